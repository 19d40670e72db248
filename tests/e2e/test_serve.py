"""The server from the README's line: its clients get the words of ``sap2 transcribe``, and it ends as it should."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from openai import APIStatusError, OpenAI
from serving import free_port, running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TALK, SLIDES = "examples/my_talk/talk.flac", "examples/my_talk/slides.md"

pytestmark = pytest.mark.e2e


def readme(start: str) -> list[str]:
    """The words of the README's command that starts like that."""
    lines = README.replace("\\\n", " ").splitlines()
    return shlex.split(next(line for line in lines if line.startswith(start)))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    (folder / "uploads").mkdir()
    command = [sys.executable, "-m", "sap2.cli", *readme("sap2 serve")[1:], "--port", str(port)]
    command += ["--temp-dir", str(folder / "uploads"), "--drain-seconds", "60"]
    (folder / "names.txt").write_text("Wailtol\nDroldol\nWozniak\nKubernetes\n")
    command += ["--term-bank", f"names={folder / 'names.txt'}"]
    with running(command, port, "/health", folder / "log") as made:
        yield made
        uploads = next((folder / "uploads").iterdir())
        # nothing is left of the requests; hidden files are those of the server and its libraries
        assert not [path.name for path in uploads.iterdir() if not path.name.startswith(".")]
        ends_orderly(made)
    assert not list((folder / "uploads").iterdir())
    log = (folder / "log").read_text(encoding="utf-8")
    assert "Traceback" not in log and "ready: http://127.0.0.1" in log


def ends_orderly(server):
    """SIGTERM: what runs is finished, what is new is refused, and the code is 0."""
    while "sap2_requests_in_progress 0.0" not in read(server, "/metrics"):
        time.sleep(0.05)  # of an earlier test, whose caller has gone
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(server).text))
    asking.start()
    while "sap2_requests_in_progress 0.0" in read(server, "/metrics"):
        time.sleep(0.005)
    server.process.send_signal(signal.SIGTERM)
    refused = 0
    while asking.is_alive():
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            try:
                read(server, "/health")
            except urllib.error.HTTPError as error:
                refused += error.code == 503
        time.sleep(0.02)
    asking.join()
    assert server.process.wait(60) == 0
    assert len(answers) == 1 and answers[0] and refused


def read(server, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return answer.read().decode()


def client(server):
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(server, **more):
    import base64

    deck = "data:text/markdown;base64," + base64.b64encode((ROOT / SLIDES).read_bytes()).decode()
    with (ROOT / TALK).open("rb") as stream:
        return client(server).audio.transcriptions.create(
            model="sap2-tiny", file=stream, extra_body={"slides": deck}, **more
        )


@pytest.fixture(scope="module")
def expected():
    """What the command writes."""
    command = [sys.executable, "-m", "sap2.cli", "transcribe", TALK, "--keywords", SLIDES, *readme("sap2 serve")[2:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_openai_and_curl_get_the_words_of_the_command(server, expected):
    assert ask(server).text == " ".join(expected)
    curl = readme("curl http://127.0.0.1:8000/v1/audio/transcriptions")
    curl[1] = curl[1].replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run([*curl, "--silent", "--fail"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.sub(r"\d+\n[\d:,]+ --> [\d:,]+\n", "", done.stdout).split() == " ".join(expected).split()


def test_the_stream_and_words_with_times(server, expected):
    events = list(ask(server, stream=True, response_format="verbose_json", timestamp_granularities=["word", "segment"]))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == " ".join(expected)
    words = events[-1].words
    assert [word["word"] for word in words] == events[-1].text.split()
    assert all(one["start"] <= one["end"] for one in words) and words[-1]["end"] <= events[-1].duration
    assert events[-1].keywords[0]["slides"]


def test_a_term_bank_is_asked_for_by_its_name(server):
    with (ROOT / TALK).open("rb") as stream:
        answer = client(server).audio.transcriptions.create(
            model="sap2-tiny", file=stream, response_format="verbose_json", extra_query={"term_bank": "names"}
        )
    assert {"Wailtol", "Droldol"} <= {one["keyword"] for one in answer.keywords} and "Wailtol" in answer.text


def test_a_caller_that_hangs_up_frees_its_place(server):
    for stream in ("true", "false"):
        form = ["-F", f"file=@{ROOT / TALK}", "-F", f"stream={stream}"]
        asking = subprocess.Popen(["curl", "-sN", f"{server.url}/v1/audio/transcriptions", *form], stdout=-1)
        while "sap2_requests_in_progress 0.0" in read(server, "/metrics") and asking.poll() is None:
            time.sleep(0.005)
        asking.kill()
        asking.wait()
        for _ in range(600):
            if "sap2_requests_in_progress 0.0" in read(server, "/metrics"):
                break
            time.sleep(0.1)
        else:
            pytest.fail("its place is still taken")
    assert ask(server).text


def test_errors_are_those_of_the_official_client(server):
    with pytest.raises(APIStatusError) as caught:
        client(server).audio.transcriptions.create(model="sap2-tiny", file=("talk.wav", b"no sound"))
    assert caught.value.status_code == 415 and "talk.wav" in caught.value.body["message"]
