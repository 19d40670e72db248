"""bench_serve asks its servers in turn, and its table has a row for each."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bench_serve
import pytest
import serving

from sap2.serve.multipart import read_form
from sap2.serve.options import Limits


class Fake:
    """A server that takes half a second of processor time for what it is asked."""

    url, taken = "http://127.0.0.1:1", 0.0

    def cpu_seconds(self):
        self.taken += 0.5
        return self.taken


def test_servers_are_asked_in_turn_and_compared():
    asked = []

    def ask(name):
        return lambda client, audio: asked.append(name) or f"{audio} {'other' if name == 'c' else 'same'}"

    arms = [bench_serve.Arm("a", Fake(), ask("a"))]
    arms += [bench_serve.Arm(name, Fake(), ask(name), "a") for name in "bc"]
    assert list(bench_serve.agree(arms, ["x", "y"])) == [
        "b: 2 of 2 answers are those of a",
        "c: 0 of 2 answers are those of a",
    ]
    asked.clear()
    figures = list(bench_serve.compare(arms, ["x"], [1, 2], 6))
    assert asked == [*"aabbcc" * 3] * 2
    assert [f"{figure.name}{figure.clients}" for figure in figures] == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert all(figure.cpu == pytest.approx(3 * 0.5 / 6) and figure.median <= figure.late for figure in figures)
    table = bench_serve.report(figures).splitlines()
    assert table[0].split()[-2:] == ["cpu", "ms"] and table[1].endswith("250.0") and len(table) == 8
    assert table[-1].startswith("the clients' own: ")


def test_a_form_is_read_as_it_was_made(tmp_path):
    audio = tmp_path / "talk.wav"
    audio.write_bytes(b"RIFF\0\0\0\0WAVEfmt \r\n--")
    (folder := tmp_path / "uploads").mkdir()

    async def chunks():
        yield serving.form_body({"keywords": "süße, one", "stages": "asr"}, "file", audio)

    form = asyncio.run(read_form(chunks(), serving.FORM, folder, Limits()))
    assert form.texts == {"keywords": ["süße, one"], "stages": ["asr"]}
    (upload,) = form.uploads("file")
    assert upload.name == "talk.wav" and Path(upload.path).read_bytes() == audio.read_bytes()


def test_a_client_asks_over_one_connection():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.client_address, self.path, self.headers["Content-Type"], body))
            content = b'{"text": "hi"}'
            self.send_response(200 if self.path == "/good" else 429)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = serving.Client(f"http://127.0.0.1:{server.server_port}")
        assert [client.post("/good", body, "text/plain") for body in (b"one", b"two")] == [{"text": "hi"}] * 2
        with pytest.raises(RuntimeError, match="/full: 429"):
            client.post("/full", b"three", "text/plain")
        client.close()
        server.shutdown()
    assert [one[1:] for one in asked[:2]] == [("/good", "text/plain", b"one"), ("/good", "text/plain", b"two")]
    assert len({address for address, *_ in asked}) == 1
