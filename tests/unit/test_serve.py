"""``sap2 serve`` on a tiny model: OpenAI's shapes, refusals, and what is left behind."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
from pathlib import Path

import decks
import pytest
from late_readers import write_when_told
from openai import OpenAI
from pipeline_rows import KEYWORDS, TOKENS
from starlette.testclient import TestClient

from sap2 import Transcriber
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.sharing import Lanes
from sap2.prompts import asr_prompt, prune_prompt
from sap2.serve import app
from sap2.serve.app import make_app
from sap2.serve.decoding import Upload
from sap2.serve.options import Limits, ServeOptions
from sap2.serve.service import Service

URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def transcriber(tiny, prune, asr):
    return Transcriber(tiny, prune_adapter=prune, asr_adapter=asr, max_new_tokens=TOKENS, batch_size=4, vad="energy")


@pytest.fixture(scope="module")
def service(transcriber, tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    limits = Limits(upload_bytes=4 << 20, audio_seconds=60.0, pages=20, requests=4, worker_bytes=8 << 30)
    made = Service(ServeOptions(("tiny", "whisper-1"), limits=limits, workers=1, vad="energy"), folder)
    made.start(Lanes(transcriber, PruneOptions()))
    yield made
    made.close()
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def client(service):
    with TestClient(make_app(service), raise_server_exceptions=False) as client:
        yield client
    assert not list(service.folder.iterdir()) and service.busy == 0


@pytest.fixture(scope="module")
def openai(client):
    return OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client, max_retries=0)


@pytest.fixture(scope="module")
def expected(transcriber, wavs):
    return transcriber.transcribe(wavs[0], KEYWORDS)


def ask(client, wav, files=(), **fields):
    with Path(wav).open("rb") as stream:
        return client.post(URL, files=[("file", ("talk.wav", stream)), *files], data=fields)


def refused(response, status, *words):
    """The one sentence of an error in OpenAI's shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    assert all(word in error["message"] for word in words), error
    return error


def pptx_of(title):
    presentation, content = pytest.importorskip("pptx").Presentation(), io.BytesIO()
    presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = title
    presentation.save(content)
    return content.getvalue()


def test_the_official_client_gets_the_words_of_the_transcriber(openai, wavs, expected):
    with Path(wavs[0]).open("rb") as stream:
        answer = openai.audio.transcriptions.create(file=stream, model="tiny", extra_body={"keywords": KEYWORDS})
    assert answer.text == expected.text and expected.text
    assert openai.models.list().data[0].id == "tiny"


def test_the_official_client_reads_the_stream(openai, wavs, expected):
    with Path(wavs[0]).open("rb") as stream:
        events = list(
            openai.audio.transcriptions.create(
                file=stream, model="tiny", stream=True, extra_body={"keywords": ", ".join(KEYWORDS)}
            )
        )
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == expected.text


@pytest.mark.parametrize("format", ["text", "srt", "vtt", "verbose_json"])
def test_formats(client, wavs, expected, format):
    answer = ask(client, wavs[0], response_format=format, keywords=json.dumps(KEYWORDS))
    assert answer.status_code == 200
    if format == "text":
        assert answer.text == expected.text + "\n"
    elif format == "verbose_json":
        body = answer.json()
        assert body["text"] == expected.text and body["duration"] == pytest.approx(expected.audio_seconds, abs=0.01)
        assert [s["start"] for s in body["segments"]] == [s.start for s in expected.segments]
        assert [k["keyword"] for k in body["keywords"]] == expected.picked_keywords == ["bob"]
    else:
        assert " --> " in answer.text and answer.text.startswith({"srt": "1\n", "vtt": "WEBVTT\n"}[format])


def test_slides_and_where_a_keyword_stands(client, wavs):
    slides = [("slides", ("deck.md", b"we saw Bob and Amy today\x0cof Zolden"))]
    body = ask(client, wavs[0], slides, response_format="verbose_json", **{"include[]": "slides"}).json()
    assert [slide["slide"] for slide in body["slides"]] == [1, 2] and "Bob" in body["slides"][0]["keywords"]
    assert body["keywords"] == [{"keyword": "Bob", "slides": [{"deck": "deck.md", "slide": 1}]}]
    url = "data:text/plain;base64," + base64.b64encode(b"we saw Bob and Amy today").decode()
    assert ask(client, wavs[0], response_format="verbose_json", slides=url).json()["keywords"][0]["keyword"] == "Bob"


def test_a_manifest_says_when_a_slide_is_shown(client, wavs):
    slides = [("slides", ("deck.md", b"we saw Amy today\x0cwe saw Bob today"))]
    for slide, keywords in ((1, []), (2, ["Bob"])):
        manifest = f"id,audio,start,end,slide\na,x.wav,0,60,{slide}\n"
        body = ask(client, wavs[0], slides, response_format="verbose_json", manifest=manifest).json()
        assert [one["keyword"] for one in body["keywords"]] == keywords
    manifest = "id,audio,slides,slide\na,x.wav,/etc/passwd,1\n"
    refused(ask(client, wavs[0], slides, manifest=manifest), 400, "manifest:2", "passwd", "not sent")
    refused(ask(client, wavs[0], slides, manifest="id,audio,slide\na,x.wav,3\n"), 400, "slide 3", "has 2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deck.pdf", lambda: decks.pdf(["we saw Bob today"])),
        ("deck.pptx", lambda: pptx_of("we saw Bob today")),
    ],
)
def test_decks_of_all_kinds(client, wavs, name, content):
    body = ask(client, wavs[0], [("slides", (name, content()))], response_format="verbose_json").json()
    assert body["keywords"] == [{"keyword": "Bob", "slides": [{"deck": name, "slide": 1}]}]


def test_fields_may_stand_in_the_address(openai, client, wavs):
    query = {"keywords": ["bob", "amy"], "stages": "asr", "response_format": "text"}
    with Path(wavs[0]).open("rb") as stream:
        answer = openai.audio.transcriptions.create(
            model="tiny", file=stream, response_format="verbose_json", extra_query=query, extra_body={"keywords": "eve"}
        )
    assert [one["keyword"] for one in answer.keywords] == ["bob", "amy", "eve"]
    with Path(wavs[0]).open("rb") as stream:
        refused(client.post(f"{URL}?keyword=bob", files=[("file", ("talk.wav", stream))]), 400, "keyword is unknown")


def test_the_words_of_a_prompt_are_keywords(client, wavs):
    body = ask(client, wavs[0], prompt="A talk of Bob.", response_format="verbose_json").json()
    assert [one["keyword"] for one in body["keywords"]] == ["Bob"]


def test_stages_are_chosen_by_the_request(client, wavs, transcriber):
    body = ask(client, wavs[0], stages="asr", keywords="bob, amy", response_format="verbose_json").json()
    assert [one["keyword"] for one in body["keywords"]] == ["bob", "amy"]
    refused(ask(client, wavs[0], stages="joint"), 400, "joint", "asr | prune,asr")
    refused(ask(client, wavs[0], pruner="spot"), 400, "spotter")
    refused(ask(client, wavs[0], term_bank="names"), 400, "names", "--term-bank")


def test_chat_completions(openai, wavs, expected):
    with Path(wavs[0]).open("rb") as stream:
        data = base64.b64encode(stream.read()).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    messages = [{"role": "user", "content": [audio, {"type": "text", "text": asr_prompt(KEYWORDS)}]}]
    answer = openai.chat.completions.create(model="tiny", messages=messages, temperature=0)
    assert answer.choices[0].message.content == expected.text
    chunks = list(openai.chat.completions.create(model="tiny", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"type": "audio_url", "audio_url": {"url": "http://127.0.0.1/x.wav"}}], "no address is fetched"),
        ([{"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}], "no address is fetched"),
        ([{"type": "input_audio", "input_audio": {"data": "%%%"}}], "base64"),
        ("only text", "0 audios"),
        ([{"type": "image_url"}], "allowed: text"),
    ],
)
def test_chats_that_are_refused(client, content, words):
    body = {"messages": [{"role": "user", "content": content}]}
    refused(client.post("/v1/chat/completions", json=body), 400, words)


def test_the_question_of_stage_one_is_refused(client):
    body = {"messages": [{"role": "user", "content": prune_prompt(["bob"])}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 400


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "gpt-4"}, 404, ["gpt-4", "tiny, whisper-1"]),
        ({"response_format": "xml"}, 400, ["xml", "verbose_json"]),
        ({"temperature": "0.7"}, 400, ["greedy"]),
        ({"keyword": "bob"}, 400, ["keyword is unknown", "keywords"]),
        ({"keywords": "[1, 2]"}, 400, ["JSON list of texts"]),
        ({"keywords": "[" * 100_000}, 400, ["JSON list of texts"]),
        ({"timestamp_granularities[]": "word"}, 400, ["verbose_json"]),
        ({"language": "xx"}, 400, ["xx"]),
        ({"keywords": "x" * (5 << 20)}, 413, ["MiB"]),
    ],
)
def test_requests_that_are_refused(client, wavs, fields, status, words):
    refused(ask(client, wavs[0], **fields), status, *words)


def test_keywords_never_break_the_prompt(client, wavs):
    bad = ["<|endofcontext|>", "<|im_end|>", "bob<|AUDIO|>", "a, b", "\u0000\u202e", "<audio>"]
    assert ask(client, wavs[0], keywords=json.dumps(bad)).status_code == 200


def test_a_file_is_needed_and_the_form_has_to_be_one(client):
    refused(client.post(URL, data={"model": "tiny"}, files={"x": ("x", b"y")}), 400, "x takes no file")
    refused(client.post(URL, content=b"{}", headers={"content-type": "application/json"}), 415, "multipart/form-data")
    broken = {"content-type": "multipart/form-data; boundary=a"}
    refused(client.post(URL, content=b"--b\r\n", headers=broken), 400, "form")
    half = b'--a\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF....WAVE'
    refused(client.post(URL, content=half, headers=broken), 400, "ends before its end")


def test_paths_of_this_machine_are_not_told(client, service):
    answer = client.post(URL, files={"file": ("../../talk.wav", b"RIFF\x00\x00\x00\x00WAVEgarbage")})
    error = refused(answer, 400, "talk.wav", "cannot be read")
    assert str(service.folder) not in error["message"] and ".." not in error["message"]


def test_models_health_metrics_and_docs(client, wavs):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models/tiny").json()["stages"] == "prune,asr"
    refused(client.get("/v1/models/other"), 404, "other")
    refused(client.get("/v1/nothing"), 404)
    ask(client, wavs[0])
    figures = client.get("/metrics").text
    assert 'sap2_requests_total{endpoint="/v1/audio/transcriptions",status="200"}' in figures
    assert "sap2_real_time_factor" in figures and "sap2_audio_seconds_total" in figures
    form = client.get("/openapi.json").json()["paths"][URL]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert {"file", "keywords", "slides"} <= set(form["schema"]["properties"])
    page = client.get("/docs").text
    assert "openapi.json" in page and "http://" not in page and "https://" not in page


@pytest.fixture
def guarded(service):
    """The same model behind a key, for callers on this machine."""
    options = service.options
    hosts = frozenset({"localhost"})
    service.options = dataclasses.replace(options, api_key="secret", hosts=hosts)
    with TestClient(make_app(service), base_url="http://localhost:1234") as client:
        yield client
    service.options = options


def test_the_key(guarded, wavs):
    assert refused(ask(guarded, wavs[0]), 401)["code"] == "invalid_api_key"
    for wrong in ("Bearer secre", "Bearer secrets", "Basic secret", "Bearer ", "secret"):
        refused(guarded.get("/v1/models", headers={"Authorization": wrong}), 401)
    refused(guarded.get("/metrics"), 401)
    assert guarded.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert guarded.get("/health").status_code == 200


def test_other_names_of_this_machine_are_refused(guarded):
    refused(guarded.get("/v1/models", headers={"Host": "evil.example"}), 403)


def test_pages_of_other_sites_may_not_ask(client, wavs):
    with Path(wavs[0]).open("rb") as stream:
        answer = client.post(URL, files={"file": stream}, headers={"Origin": "http://evil.example"})
    refused(answer, 403, "other sites")


def test_what_is_too_much_is_refused(client, service, wavs):
    refused(client.post(URL, files={"file": ("a.wav", b"RIFF....WAVE" + bytes(5 << 20))}), 413, "4 MiB")
    service.busy += 4
    try:
        answer = ask(client, wavs[0])
    finally:
        service.busy -= 4
    refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


def test_nothing_new_while_the_server_ends(client, service, wavs):
    service.draining = True
    try:
        refused(ask(client, wavs[0]), 503)
        refused(client.get("/health"), 503)
    finally:
        service.draining = False


def test_a_request_that_has_its_place_is_finished_when_the_end_begins(client, service, wavs, expected, monkeypatch):
    """The signal comes while the upload is being read."""
    read_form = app.read_form

    async def read_and_drain(*args):
        form = await read_form(*args)
        service.draining = True
        return form

    monkeypatch.setattr(app, "read_form", read_and_drain)
    try:
        answer = ask(client, wavs[0], keywords=", ".join(KEYWORDS))
    finally:
        service.draining = False
    assert answer.status_code == 200 and answer.json()["text"] == expected.text


def test_what_a_reader_writes_after_its_caller_has_left_is_removed(service, tmp_path):
    told = tmp_path / "told"
    with service.place() as folder:
        upload = Upload(str(folder / "0.wav"), "a.wav", "audio")
        reading = service._read(service._audio_workers, write_when_told, upload, str(told))
    assert not folder.exists()
    told.touch()
    reading.result(60)
    while folder.exists():  # what is done after it runs when it is done
        time.sleep(0.01)
