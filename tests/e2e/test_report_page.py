"""The report in a browser, at a desk and on a phone. Needs chromium in PATH and playwright."""

from __future__ import annotations

import json
from pathlib import Path

import picture
import pytest

from sap2.cli import main

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">&<b>"


def row(number: int, response: str, labels: str, **more: object) -> str:
    context = "<|startofcontext|>emily, wozniak<|endofcontext|>"
    turns = [{"role": "user", "content": f"<audio>Transcribe.{context}"}]
    return (
        json.dumps({"id": f"u{number:03d}", "response": response, "labels": labels, "messages": turns, **more}) + "\n"
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """60 utterances: helped, hurt with a lost keyword, and alike in turn; one with hostile words."""
    folder = tmp_path_factory.mktemp("page")
    label = "now hear Wozniak speak to all of us about machines"
    wrong, right = label.replace("Wozniak", "was"), label
    kinds = [(wrong, right), (right, wrong), (right, right)]
    (folder / "a.wav").write_bytes(b"RIFF")
    for index, name in enumerate(("base", "sap2")):
        words = [{"word": word, "probability": 0.3 if word.lower() == "wozniak" else 0.9} for word in right.split()]
        more = {"audios": [str(folder / "a.wav")], "picked_keywords": ["wozniak"], "words": words} if index else {}
        rows = [row(n, kinds[n % 3][index], label, session=f"talk{n % 2}", **more) for n in range(60)]
        (folder / f"{name}.jsonl").write_text("".join(rows) + row(99, HOSTILE, HOSTILE, session="talk0"))
    files = [f"{name}={folder / name}.jsonl" for name in ("base", "sap2")]
    assert main(["score", *files, "--html", str(folder / "report.html"), "--bootstrap", "20", "--title", "Talks"]) == 0
    return folder / "report.html"


@pytest.fixture
def playwright():
    module = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[dev]'")
    if picture.find_browser() is None:
        pytest.skip("no browser: chromium is not in PATH")
    return module


@pytest.fixture
def browser(playwright):
    with playwright.sync_playwright() as running:
        yield running.chromium.launch(executable_path=picture.find_browser(), args=picture.FLAGS, timeout=30_000)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1240, 400])
def test_the_page(browser, page_file, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(10_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{page_file}")
    assert page.title() == "Talks" and page.locator("h1").inner_text() == "Talks"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page does not run out of the screen"
    assert not page.locator("#problems").is_visible()
    shown = page.locator("#filters").inner_text()
    assert "Helped (20)" in shown and "Hurt (20)" in shown and "Lost a keyword (20)" in shown
    assert page.locator("#where").inner_text() == "1 to 50 of 61"
    assert page.locator("#list audio").count() == 50 and "sap2 picked wozniak" in page.locator("#list").inner_text()
    assert ["wozniak", "60", "20", "20"] in [text.split("\t") for text in page.locator("#words tr").all_inner_texts()]
    framed = "getComputedStyle(document.querySelector('#list .unsure')).outlineStyle"
    assert page.evaluate(framed) == "none"
    page.get_by_label("not sure of").check()
    assert page.evaluate(framed) == "dashed"
    assert set(page.locator("#list .unsure").all_inner_texts()) == {"Wozniak", "was"}  # the word in its place
    page.get_by_text("Lost a keyword").click()
    assert "filter=lost" in page.evaluate("location.hash")
    page.goto("about:blank")
    page.goto(f"file://{page_file}#filter=lost&session=talk1&by=0&down=1")
    assert page.locator("#where").inner_text() == "1 to 10 of 10"
    ids = page.locator("#list td.id").all_inner_texts()
    assert ids == sorted(ids, reverse=True) and len(ids) == 10
    with page.expect_download() as download:
        page.locator("#export").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 11 and lines[0].split("\t")[:3] == ["id", "session", "reference"]
    page.goto("about:blank")
    page.goto(f"file://{page_file}#search=onerror")
    assert page.locator("#where").inner_text() == "1 to 1 of 1" and page.title() == "Talks"
    assert errors == []


@pytest.mark.timeout(120)
def test_pictures_for_the_docs(playwright, page_file, capsys):
    target = page_file.parent / "report.png"
    assert picture.main([str(page_file), str(target), "--height", "600"]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert picture.main([str(page_file.with_name("absent.html")), str(target)]) == 2
    assert "does not exist; allowed: a page of sap2 score --html" in capsys.readouterr().err
