"""The page of ``sap2 serve`` in a browser: files in, words, clicks, keys, downloads, errors.

Needs chromium and playwright. The picture of the README is made by
``SAP2_PICTURES=docs/images pytest -m e2e tests/e2e/test_page.py -k sample``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import picture
import pytest
import soundfile
from serving import free_port

ROOT = Path(__file__).parents[2]
TALK = ROOT / "examples" / "my_talk"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
MICROPHONE = "--use-fake-device-for-media-stream"
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    """What the browser's microphone hears: the sample talk from its beginning."""
    path = tmp_path_factory.mktemp("microphone") / "talk.wav"
    samples, rate = soundfile.read(TALK / "talk.flac", dtype="int16")
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    module = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[dev]'")
    if picture.find_browser() is None:
        pytest.skip("no browser: chromium is not in PATH")
    with module.sync_playwright() as running:
        flags = [*FLAGS, MICROPHONE, f"--use-file-for-fake-audio-capture={microphone}%noloop"]
        yield running.chromium.launch(executable_path=picture.find_browser(), args=flags, timeout=60_000)


@pytest.fixture(scope="module")
def server(browser):
    """The address of a running server, and its end."""
    port = free_port()
    model = ["--model", "sap2-tiny", "--prune-adapter", "sap2-tiny-prune", "--asr-adapter", "sap2-tiny-asr"]
    command = [sys.executable, "-m", "sap2.cli", "serve", *model, "--max-segment-seconds", "3", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(900):
        try:
            urllib.request.urlopen(f"{url}health", timeout=5)
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    yield url
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture
def open_page(browser, server):
    """Opens the page; whatever it complains about on the console is an error."""
    errors: list[str] = []
    contexts = []

    def opened(width=1240, height=950, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(server)
        return page

    opened.errors = errors
    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def done(page):
    page.locator("#status", has_text="Done").wait_for()
    return page


def fits(page, width):
    return page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_sample_talk_with_one_click(open_page):
    page = open_page()
    page.click("#sample")
    done(page)
    text = page.locator("#transcript").inner_text()
    assert "now Wailtol gives the road again" in text and "Sater opens the small party" in text
    assert "keywords in the transcript" in page.locator("#status").inner_text()
    assert {"Wailtol", "Droldol", "Zolden", "Sater"} <= set(page.locator("#said").inner_text().split())
    page.locator(".word.keyword", has_text="Sater").first.click()
    page.locator(".word.now", has_text="Sater").wait_for()
    assert page.locator(".word.now").count() == 1
    assert 9 < page.evaluate("document.getElementById('audio').currentTime") < 12
    assert "slide 2" in page.locator(".slide.shown h3").inner_text()
    assert page.locator(".slide mark").all_inner_texts().count("Sater") == 1
    assert fits(page, 1240)
    if folder := os.environ.get("SAP2_PICTURES"):
        page.locator("#result").scroll_into_view_if_needed()
        page.screenshot(path=Path(folder) / "page.png")
        page.set_viewport_size({"width": 400, "height": 800})
        page.screenshot(path=Path(folder) / "page_phone.png")


def test_own_files_keys_editing_and_downloads(open_page):
    page = open_page(400, 900)
    page.set_input_files("#recording", TALK / "talk.flac")
    page.set_input_files("#slides", TALK / "slides.md")
    assert "talk.flac" in page.locator("#recording-name").inner_text()
    page.click("#start")
    done(page)
    assert fits(page, 400), "the page does not run out of a phone's screen"
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Wailtol"
    page.locator("#audio").evaluate("audio => audio.pause()")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.place") == "1:0", "over the end of a segment"
    page.click("#edit")
    line = page.locator(".segment p").first
    line.fill("now Dr. Wailtol <b>gives</b> the road again")
    page.click("#edit")
    assert page.locator(".segment p").first.inner_text() == "now Dr. Wailtol <b>gives</b> the road again"
    assert page.locator(".segment").first.locator(".keyword").all_inner_texts() == ["Wailtol"]
    saved = {}
    for format in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as download:
            page.click(f"[data-format={format}]")
        assert download.value.suggested_filename == f"talk.{format}"
        saved[format] = Path(download.value.path()).read_text(encoding="utf-8")
    assert saved["txt"].startswith("now Dr. Wailtol <b>gives</b> the road again\n")
    assert re.match(r"1\n00:00:00,\d{3} --> 00:00:02,\d{3}\nnow Dr\. Wailtol", saved["srt"])
    assert saved["vtt"].startswith("WEBVTT\n\n") and "&lt;b>gives" in saved["vtt"]
    words = [word for segment in json.loads(saved["json"])["segments"] for word in segment["words"]]
    assert all(one["start"] <= other["start"] for one, other in itertools.pairwise(words))


def test_what_is_dropped_goes_where_it_belongs(open_page):
    page = open_page()
    dropped = page.evaluate_handle(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(['Wozniak'], 'deck.md', {type: 'text/markdown'}));
            data.items.add(new File(['x'], 'lecture.MP4', {type: ''}));
            return data;
        }"""
    )
    page.dispatch_event("#drop-recording", "drop", {"dataTransfer": dropped})
    assert "lecture.MP4" in page.locator("#recording-name").inner_text()
    assert page.locator("#slides-names").inner_text() == "deck.md"
    page.click("#clear-slides")
    assert page.locator("#slides-names").inner_text() == ""


def test_recording_in_the_browser(open_page):
    page = open_page(permissions=["microphone"])
    page.click("#record")
    page.locator("#record[aria-pressed=true]", has_text="End the recording").wait_for()
    page.wait_for_timeout(6_000)  # as long as somebody speaks
    page.click("#record")
    page.locator("#recording-name", has_text="recording.webm").wait_for()
    assert page.locator("#record").inner_text() == "Record with the microphone"
    page.set_input_files("#slides", TALK / "slides.pptx")
    page.click("#start")
    done(page)
    assert "now wailtol gives the road again" in page.locator("#transcript").inner_text().lower()
    assert 5 < page.evaluate("document.getElementById('audio').duration") < 9


def test_a_microphone_that_is_not_allowed(open_page):
    page = open_page()
    page.click("#record")
    page.locator("#problem", has_text="The microphone cannot be used").wait_for()
    assert page.locator("#record").get_attribute("aria-pressed") == "false"


def test_errors_are_told_and_the_page_goes_on(open_page, tmp_path):
    page = open_page()
    page.click("#start")
    assert "Choose a recording first" in page.locator("#problem").inner_text()
    (tmp_path / "fake.wav").write_text("this is no sound")
    page.set_input_files("#recording", tmp_path / "fake.wav")
    page.click("#start")
    page.locator("#problem", has_text="fake.wav").wait_for()
    open_page.errors.clear()  # the browser's own word on the status 415
    page.set_input_files("#recording", TALK / "talk.flac")
    page.click("#start")
    done(page)
    assert not page.locator("#problem").is_visible()


def test_a_server_that_is_gone(open_page):
    page = open_page()
    page.route("**/v1/audio/transcriptions", lambda route: route.abort("connectionrefused"))
    page.set_input_files("#recording", TALK / "talk.flac")
    page.click("#start")
    page.locator("#problem", has_text="The server does not answer").wait_for()
    assert page.locator("#start").is_enabled()
    open_page.errors.clear()  # the browser's own word on the connection


def answers(page, segments, keywords=(), slides=(), end=True):
    """The page gets these segments in place of the server's."""
    events = [
        {
            "type": "transcript.text.delta",
            "delta": text,
            "segment": {"id": number, "start": 5.0 * number, "end": 5.0 * number + 4, "text": text},
            "words": words,
            "segments": len(segments),
            "duration": 5.0 * len(segments),
        }
        for number, (text, words) in enumerate(segments)
    ]
    if end:
        last = {"type": "transcript.text.done", "text": "", "duration": 5.0 * len(segments)}
        events.append({**last, "keywords": list(keywords), "slides": list(slides)})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    page.route("**/v1/audio/transcriptions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.set_input_files("#recording", TALK / "talk.flac")
    page.click("#start")


def word(text, start, probability=0.9, keyword=None):
    return {"word": text, "start": start, "end": start + 0.4, "probability": probability, "keyword": keyword}


def test_names_of_all_scripts_and_hostile_text(open_page):
    page = open_page(400, 900)
    hostile = "<img src=x onerror=alert(1)>"
    lines = [
        ("Müßiggänger", [word("Müßiggänger", 0.1, 0.3, "Müßiggänger")]),
        ("ווזניאק אמר", [word("ווזניאק", 5.1, 0.9, "ווזניאק"), word("אמר", 5.6)]),
        ("沃兹尼亚克", [word("沃兹尼亚克", 10.1, 0.9, "沃兹尼亚克")]),
        (hostile, [word(hostile, 15.1)]),
    ]
    keywords = [{"keyword": text, "slides": [{"deck": hostile, "slide": 1}]} for text, _ in lines[:3]]
    slides = [{"deck": hostile, "slide": 1, "text": f"{hostile} Müßiggänger\nווזניאק 沃兹尼亚克", "keywords": []}]
    answers(page, lines, keywords, slides)
    done(page)
    assert page.locator(".word.unsure").all_inner_texts() == ["Müßiggänger"]
    assert page.locator("img").count() == 0 and hostile in page.locator("#transcript").inner_text()
    assert page.evaluate("getComputedStyle(document.querySelectorAll('.segment p')[1]).direction") == "rtl"
    page.locator("#said button", has_text="ווזניאק").click()
    assert page.locator(".slide.shown").count() == 1
    assert fits(page, 400)


def test_three_hours(open_page):
    page = open_page(2000, 1000)
    text = "these are ten plain words of a long lecture now"
    lines = [(text, [word(one, 5.0 * n + 0.4 * i) for i, one in enumerate(text.split())]) for n in range(2160)]
    answers(page, lines)
    done(page)
    assert page.locator(".segment").count() == 2160
    place = page.evaluate(
        """async () => {
            const { Transcript } = await import('./transcript.js');
            const one = new Transcript(document.createElement('div'));
            for (let n = 0; n < 2160; n += 1) one.add({ start: 5 * n, end: 5 * n + 4, text: 'a b' },
                [{ word: 'a', start: 5 * n, end: 5 * n + 1 }, { word: 'b', start: 5 * n + 2, end: 5 * n + 3 }]);
            return [one.placeAt(5 * 1999 + 2.5), one.placeAt(-1), one.placeAt(5 * 7 + 4.9)];
        }"""
    )
    assert place == [[1999, 1], None, None]
    assert fits(page, 2000)


def test_a_connection_that_breaks_keeps_what_has_come(open_page):
    page = open_page()
    answers(page, [("first part", [word("first", 0.1), word("part", 0.6)])], end=False)
    page.locator("#problem", has_text="What has come so far stays here").wait_for()
    assert "first part" in page.locator("#transcript").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(open_page, scheme):
    """Labels, roles, order of headings and contrast, by the rules of axe, in both colours."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install '.[dev]'")
    page = open_page(color_scheme=scheme, bypass_csp=True)
    answers(page, [("hear Wozniak", [word("hear", 0.1, 0.2), word("Wozniak", 0.6, 0.9, "Wozniak")])],
            [{"keyword": "Wozniak", "slides": []}, {"keyword": "Jobs", "slides": []}],
            [{"deck": "a", "slide": 1, "text": "Wozniak", "keywords": []}])  # fmt: skip
    done(page)
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()
