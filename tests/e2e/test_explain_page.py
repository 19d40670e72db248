"""``sap2 explain`` as a user runs it, and its page in a browser, at a desk and on a phone. The page needs chromium and
playwright (``pip install playwright``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import picture
import pytest

from sap2.explain.page import write_html
from sap2.explain.types import Cost, ExplainedKeyword, ExplainedSegment, ExplainedWord, Explanation

TALK = Path(__file__).parents[2] / "examples" / "my_talk"
KEYWORDS = ["Sater", "Wailtal", "Nailveekeek"]
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">&<b>"


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A page and JSON of eight words in two segments."""
    folder = tmp_path_factory.mktemp("explain")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sap2.cli", "explain", str(TALK / "talk.flac"), "--keywords", ", ".join(KEYWORDS)),
            *("--model", "sap2-tiny", "--asr-adapter", "sap2-tiny-asr", "--pruner", "spot", "--device", "cpu"),
            *("--max-segment-seconds", "3", "--words", "24-31", "--masks", "60", "--gradient-steps", "4"),
            *("--html", str(folder / "why.html"), "--json", str(folder / "why.json")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_command(explained):
    folder, done = explained
    assert "8 words in 2 segments: 12" in done.stderr and "forward passes and 32 with gradients, about " in done.stderr
    assert done.stdout == ""
    data = json.loads((folder / "why.json").read_text(encoding="utf-8"))
    words = [word for segment in data["segments"] for word in segment["words"]]
    assert [word["number"] for word in words] == list(range(24, 32)) and words[3]["text"] == "Sater"
    assert words[3]["log_prob"] > words[3]["without"]["Sater"] + 1 and words[0]["start"] < words[0]["end"]


@pytest.fixture
def browser():
    module = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    if picture.find_browser() is None:
        pytest.skip("no browser: chromium is not in PATH")
    with module.sync_playwright() as running:
        yield running.chromium.launch(executable_path=picture.find_browser(), args=picture.FLAGS, timeout=30_000)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1240, 400])
def test_the_page(browser, explained, width):
    folder, _ = explained
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(10_000)
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{folder / 'why.html'}")
    assert page.title() == "Why these words: talk.flac"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page does not run out of the screen"
    assert page.locator("#word").inner_text() == "27. “Sater”", "the first word of the list is chosen"
    assert "Without “Sater” in the list it would be" in page.locator("#verdict").inner_text()
    rows = [text.split("\t") for text in page.locator("#list tbody tr").all_inner_texts()]
    assert rows[0][0] == "Sater" and rows[0][1:3] == ["yes", "yes"] and "%" in rows[0][3]
    assert sorted(row[0] for row in rows) == sorted(KEYWORDS)
    lefts = [label.bounding_box()["x"] for label in page.locator("#labels .word").all()]
    assert len(lefts) == 6 and lefts == sorted(lefts), "the words stand on the spectrogram in their order"
    drawn = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert all(page.locator("#stage canvas").nth(n).evaluate(drawn) > 3 for n in range(4)), "four pictures with ink"
    page.locator("#transcript .word").nth(3).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#word").inner_text() == "28. “is”" and page.evaluate("location.hash") == "#word=28"
    assert page.evaluate("document.activeElement.textContent") == "is"
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert page.locator("#word").inner_text().startswith("31. "), "it stops at the last"
    assert page.locator("[aria-pressed=true]").count() == 2, "in the transcript and on the spectrogram"
    page.locator("#transcript .word").first.click()
    assert page.locator("#word").inner_text() == "24. “the”"
    page.goto("about:blank")
    page.goto(f"file://{folder / 'why.html'}#word=30")
    assert page.locator("#word").inner_text().startswith("30. ")
    assert page.title() == "Why these words: talk.flac" and errors == []
    assert {url.partition("#")[0] for url in asked} <= {f"file://{folder / 'why.html'}", "about:blank"}


@pytest.mark.timeout(120)
def test_texts_are_never_markup(browser, tmp_path):
    looked = {"speech": 0.5, "keywords": 0.2, "prompt": 0.2, "reply": 0.1}
    maps = np.ones(20), looked, {HOSTILE: 0.2}, np.ones((8, 20)), None, {HOSTILE: -9.0}
    word = ExplainedWord(1, HOSTILE, None, None, -0.1, HOSTILE, *maps)
    keyword = ExplainedKeyword(HOSTILE, True, True, 1, 0.9, None, 0.5)
    segment = ExplainedSegment(0.0, 0.8, HOSTILE, 1, [word], [keyword], np.ones((128, 80)))
    rest = ExplainedSegment(1.0, 2.0, HOSTILE, 2, [], [], np.ones((128, 80)))
    write_html(tmp_path / "why.html", Explanation(HOSTILE, HOSTILE, [segment, rest], Cost(1, 1, 1, 0, 1.0), 1.0))
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.set_default_timeout(10_000)
    page.goto(f"file://{tmp_path / 'why.html'}")
    assert page.locator("#transcript .word").inner_text() == HOSTILE and "onerror" in page.title()
    assert HOSTILE in page.locator("#verdict").inner_text() and HOSTILE in page.locator("#list").inner_text()
    assert page.locator("img").count() == 0 and page.title() != "broken"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#stage canvas").count() == 3, "no gradients"
