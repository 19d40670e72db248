"""Servers to measure and to plague: started on this machine, asked over the loopback, and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from process_tree import cpu_seconds, pss_mib

ROOT = Path(__file__).resolve().parents[1]
TALK = ROOT / "examples" / "my_talk"
SECONDS = 3.0
START_SECONDS = 300


class Server(NamedTuple):
    """A running server: its process and its address."""

    process: subprocess.Popen
    url: str

    def memory_mib(self) -> float:
        """What the process and its children hold, by the kernel's proportional account."""
        return pss_mib(self.process.pid)

    def cpu_seconds(self) -> float:
        """Processor time that the process and its living children have taken."""
        return cpu_seconds(self.process.pid)


class Client:
    """Sends requests that are made already, over one connection."""

    def __init__(self, url: str):
        self._connection = http.client.HTTPConnection(url.partition("://")[2], timeout=600)

    def post(self, path: str, body: bytes, kind: str) -> dict[str, Any]:
        """The JSON object that answers.

        Raises:
            RuntimeError: an answer other than 200.
        """
        self._connection.request("POST", path, body, {"Content-Type": kind})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:300].decode('utf-8', 'replace')}")
        return json.loads(content)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


_BOUNDARY = "sap2-bench-3f1c9a7e"
FORM = f"multipart/form-data; boundary={_BOUNDARY}"
"""The type of :func:`form_body`."""


def form_body(fields: Mapping[str, str], name: str, file: Path) -> bytes:
    """A form with texts and one file."""
    texts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n'
        for field, text in fields.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file.name}"\r\n\r\n'
    return "".join([*texts, head]).encode() + file.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@contextlib.contextmanager
def running(command: Sequence[str], port: int, ready: str, log: Path) -> Iterator[Server]:
    """A server in a process group of its own, from the moment that ``ready`` answers until the block ends.

    Raises:
        RuntimeError: it does not come to answer; the message has the end of its output.
    """
    url = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait(process, url + ready, log)
        yield Server(process, url)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.5)
    raise RuntimeError(f"no answer of {url}:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def sap2_command(port: int, *more: str, python: str = sys.executable) -> list[str]:
    """``sap2 serve`` with sap2-tiny and both stages."""
    adapters = ["--prune-adapter", "sap2-tiny-prune", "--asr-adapter", "sap2-tiny-asr"]
    server = ["serve", "--port", str(port), "--model", "sap2-tiny", *adapters]
    return [python, "-m", "sap2.cli", *server, *more]


def vllm_command(port: int, python: str) -> list[str]:
    """The same with vLLM, by the Python of its environment (``.ci/vllm-env``)."""
    cache = '{"kv_cache_memory_bytes": 268435456}'
    return sap2_command(port, "--engine", "vllm", "--engine-args", cache, python=python)


def swift_command(port: int) -> list[str]:
    """``swift deploy`` with the adapter of stage two, as ``examples/deploy/serve.sh`` starts it."""
    adapter = subprocess.run(
        [sys.executable, "-m", "sap2.cli", "path", "sap2-tiny-asr"], check=True, capture_output=True, text=True
    ).stdout.strip()
    decoding = ["--temperature", "0", "--max_new_tokens", "512", "--max_batch_size", "8"]
    # not `swift deploy`, whose process waits for one below it, and leaves that alone when it is ended
    server = ["-m", "swift.cli.deploy", "--adapters", adapter, "--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, *server, *decoding]


def make_utterances(folder: Path) -> list[Path]:
    """Sentences of the sample talk, with silence up to three seconds."""
    import csv

    import numpy as np
    import soundfile

    from sap2.audio import load_samples

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with (TALK / "talk.csv").open(encoding="utf-8") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            start = float(row["start"])
            samples = load_samples(str(TALK / "talk.flac"), 16_000, start, float(row["end"]))[: int(SECONDS * 16_000)]
            paths.append(folder / f"{number}.wav")
            soundfile.write(paths[-1], np.pad(samples, (0, int(SECONDS * 16_000) - len(samples))), 16_000)
    return paths


def make_keywords(count: int) -> list[str]:
    """Names that nobody says, and a few of the talk's."""
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "or")]
    names = {"".join(rng.choices(syllables, k=rng.randint(2, 3))) + rng.choice("klnrst") for _ in range(2 * count)}
    return ["wailtol", "nailveek", "droldol", "zolden", "sater", *sorted(names)][:count]
