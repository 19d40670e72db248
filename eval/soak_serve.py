"""``sap2 serve`` under good, bad, huge, aborted and slow requests: does every good one get its answer?

    python eval/soak_serve.py                    # ten minutes
    python eval/soak_serve.py --minutes 1

Ends with code 1 where a good request got a wrong answer or none, a bad one was not refused with a status from 400 to
499, the server died, or a file was left.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import httpx
from serving import TALK, free_port, make_keywords, make_utterances, running, sap2_command

from sap2.commands.shared import Parser, positive, run_parser

ROUTE = "/v1/audio/transcriptions"
BUSY = 429
UPLOAD_MIB = 8
Kind = Callable[[httpx.Client, random.Random], str]


class Soak:
    """Requests of all kinds, and what became of them.

    Args:
        url: of the server.
        audios: utterances.
        keywords: of good requests.
    """

    def __init__(self, url: str, audios: Sequence[Path], keywords: Sequence[str]):
        self.url, self.audios, self.keywords = url, audios, keywords
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._right: dict[tuple[Path, str], str] = {}
        self.kinds: dict[str, Kind] = {
            "good": self.good,
            "talk": self.talk,
            "bad": self.bad,
            "huge": self.huge,
            "aborted": self.aborted,
            "slow": self.slow,
        }

    def learn(self) -> None:
        """What is right: the answers to good requests that are alone."""
        with httpx.Client(timeout=600) as client:
            for audio in [*self.audios, TALK / "talk.flac"]:
                for stages in ("asr", "prune,asr"):
                    answer = self._post(client, audio, stages)
                    answer.raise_for_status()
                    self._right[audio, stages] = answer.json()["text"]

    def _post(self, client: httpx.Client, audio: Path, stages: str) -> httpx.Response:
        form = {"keywords": ", ".join(self.keywords), "stages": stages}
        return client.post(self.url + ROUTE, files={"file": audio.open("rb")}, data=form)

    def good(self, client: httpx.Client, rng: random.Random) -> str:
        """An utterance; 429 is an answer as well."""
        return self._check(client, rng.choice(self.audios), rng.choice(["asr", "prune,asr"]))

    def talk(self, client: httpx.Client, rng: random.Random) -> str:
        """A recording of some segments."""
        return self._check(client, TALK / "talk.flac", "asr")

    def _check(self, client: httpx.Client, audio: Path, stages: str) -> str:
        answer = self._post(client, audio, stages)
        if answer.status_code == BUSY:
            return "busy"
        if answer.status_code != httpx.codes.OK or answer.json()["text"] != self._right[audio, stages]:
            self._fault(f"{audio.name} {stages}: {answer.status_code} {answer.text[:200]}")
        return "right"

    def bad(self, client: httpx.Client, rng: random.Random) -> str:
        """What is no recording, or half of one, or a form that lacks what it needs."""
        sound = rng.choice(self.audios).read_bytes()
        files, data = rng.choice(
            [
                ({"file": ("a.wav", rng.randbytes(5000))}, {}),
                ({"file": ("a.wav", b"RIFF\x00\x00\x00\x00WAVE" + rng.randbytes(5000))}, {}),
                ({"file": ("a.mp3", b"ID3" + rng.randbytes(5000))}, {}),
                ({"file": ("a.wav", sound), "slides": ("a.pdf", b"%PDF-1.7" + rng.randbytes(5000))}, {}),
                ({"file": ("a.wav", sound), "slides": ("a.pptx", b"PK\x03\x04" + rng.randbytes(5000))}, {}),
                ({"file": ("a.wav", sound)}, {"response_format": "xml"}),
                ({"file": ("a.wav", sound)}, {"keywords": "[1]"}),
                ({"slides": ("a.txt", b"Emily")}, {}),
            ]
        )
        return self._refused(client.post(self.url + ROUTE, files=files, data=data))

    def huge(self, client: httpx.Client, rng: random.Random) -> str:
        """More than is allowed."""
        content = b"RIFF\x00\x00\x00\x00WAVE" + bytes((UPLOAD_MIB + 1) << 20)
        with contextlib.suppress(httpx.TransportError):  # the server may close before all is sent
            return self._refused(client.post(self.url + ROUTE, files={"file": io.BytesIO(content)}))
        return "closed"

    def _refused(self, answer: httpx.Response) -> str:
        if not 400 <= answer.status_code < 500 or "message" not in answer.json().get("error", {}):
            self._fault(f"not refused: {answer.status_code} {answer.text[:200]}")
        return f"refused {answer.status_code}"

    def aborted(self, client: httpx.Client, rng: random.Random) -> str:
        """A good request whose caller goes away, at some moment."""
        with contextlib.suppress(httpx.TimeoutException), httpx.Client(timeout=rng.uniform(0.05, 1.0)) as hasty:
            self._post(hasty, rng.choice(self.audios), "prune,asr")
        return "gone"

    def slow(self, client: httpx.Client, rng: random.Random) -> str:
        """A request that comes in byte by byte, and then no more."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as connection, contextlib.suppress(OSError):
            head = f"POST {ROUTE} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=a\r\n\r\n".encode())
            for byte in b"--a\r\nContent-Disposition: form-data":
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        return "gone"

    def _fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(what)

    def work(self, seed: int, until: float) -> None:
        """One caller after another kind of request, until the time is over."""
        rng = random.Random(seed)
        weights = {"good": 6, "talk": 1, "bad": 3, "huge": 0.5, "aborted": 2, "slow": 0.5}
        with httpx.Client(timeout=600) as client:
            while time.monotonic() < until:
                kind = rng.choices(list(weights), list(weights.values()))[0]
                try:
                    became = self.kinds[kind](client, rng)
                except httpx.TransportError as error:
                    became = "no answer"
                    self._fault(f"{kind}: no answer ({error})")
                with self._lock:
                    self.counts[f"{kind}: {became}"] += 1


def left_over(folder: Path) -> list[str]:
    """Files of requests that are still there; hidden ones are the server's own."""
    return [str(path) for made in folder.iterdir() for path in made.iterdir() if not path.name.startswith(".")]


def run(args: argparse.Namespace) -> int:
    """Plague a server, and say what became of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "uploads").mkdir()
        port = free_port()
        limits = ["--max-upload-mib", str(UPLOAD_MIB), "--max-requests", "12", "--max-segment-seconds", "3"]
        command = sap2_command(port, *limits, "--temp-dir", str(folder / "uploads"))
        with running(command, port, "/health", folder / "log") as server:
            soak = Soak(server.url, make_utterances(folder / "audio"), make_keywords(args.keywords))
            soak.learn()
            until = time.monotonic() + 60 * args.minutes
            with ThreadPoolExecutor(args.clients) as pool:
                list(pool.map(lambda seed: soak.work(seed, until), range(args.clients)))
            time.sleep(2)
            soak.learn()  # it still answers
            if server.process.poll() is not None:
                soak.faults.append(f"the server ended with code {server.process.returncode}")
            soak.faults += [f"left: {path}" for path in left_over(folder / "uploads")]
        if server.process.returncode:
            soak.faults.append(f"the server ended with code {server.process.returncode}")
        soak.faults += [f"left: {path}" for path in (folder / "uploads").iterdir()]
        if "Traceback" in (log := (folder / "log").read_text(encoding="utf-8", errors="replace")):
            soak.faults.append(f"a traceback: {log[log.index('Traceback') :][:2000]}")
    for kind, count in sorted(soak.counts.items()):
        print(f"{kind:24}{count:8}")
    print(f"{len(soak.faults)} faults in {args.minutes:g} minutes", *soak.faults[:20], sep="\n")
    return 1 if soak.faults else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="soak_serve.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument("--clients", type=positive, default=16, help="callers at a time (default: %(default)s)")
    parser.add_argument("--keywords", type=positive, default=50, help="of a good request (default: %(default)s)")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
