"""``sap2 serve`` beside ``swift deploy``: requests a second and latency at some numbers of clients, and memory.

    python eval/bench_serve.py
    python eval/bench_serve.py --clients 8 --requests 64 --memory-requests 0

Both servers run at the same time on this machine, and are asked in turn, so that whatever else the machine does falls
on both. Each client sends its next request when it has the answer to the last: an utterance of three seconds and
a list of keywords. ``sap2 serve`` is asked by OpenAI's client for transcriptions, with one stage and with both;
``swift deploy`` by OpenAI's client for chats, as in ``examples/deploy/client.py``.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from openai import OpenAI
from serving import Server, free_port, make_keywords, make_utterances, running, sap2_command, swift_command

from sap2.commands.shared import Parser, positive, run_parser
from sap2.prompts import asr_prompt

Ask = Callable[[OpenAI, Path], str]
TRIES = 3


class Figure(NamedTuple):
    """What some clients got: requests a second, and seconds for one (median, and the slowest of 95 %)."""

    name: str
    clients: int
    rate: float
    median: float
    late: float


def ask_sap2(keywords: Sequence[str], stages: str) -> Ask:
    """The transcript of one utterance by ``sap2 serve``."""

    def ask(client: OpenAI, audio: Path) -> str:
        body = {"keywords": ", ".join(keywords), "stages": stages}
        with audio.open("rb") as stream:
            return client.audio.transcriptions.create(model="sap2-tiny", file=stream, extra_body=body).text

    return ask


def ask_swift(keywords: Sequence[str]) -> Ask:
    """The transcript of one utterance by ``swift deploy``."""
    prompt = asr_prompt(keywords)

    def ask(client: OpenAI, audio: Path) -> str:
        data = base64.b64encode(audio.read_bytes()).decode()
        content = [
            {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}},
            {"type": "text", "text": prompt},
        ]
        message = {"role": "user", "content": content}
        chat = client.chat.completions.create(model="sap2-tiny", messages=[message], temperature=0)
        return chat.choices[0].message.content

    return ask


def measure(url: str, ask: Ask, audios: Sequence[Path], clients: int, requests: int) -> tuple[float, list[float]]:
    """Seconds of all requests together, and of each."""
    turns = iter(range(requests))
    lock = threading.Lock()
    seconds: list[float] = []

    def work(_: int) -> None:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=8, timeout=600)
        with contextlib.suppress(StopIteration):
            while True:
                with lock:
                    turn = next(turns)
                start = time.perf_counter()
                ask(client, audios[turn % len(audios)])
                seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return time.perf_counter() - start, seconds


def compare(
    asked: Sequence[tuple[str, str, Ask]], audios: Sequence[Path], clients: Sequence[int], requests: int
) -> Iterator[Figure]:
    """All servers at each number of clients, in turn, some times; the figures are of all times together."""
    for count in clients:
        totals = {name: 0.0 for name, _, _ in asked}
        taken: dict[str, list[float]] = {name: [] for name in totals}
        each = max(count, requests // TRIES)
        for _ in range(TRIES):
            for name, url, ask in asked:
                total, seconds = measure(url, ask, audios, count, each)
                totals[name] += total
                taken[name] += seconds
        for name in totals:
            ordered = sorted(taken[name])
            late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
            yield Figure(name, count, len(ordered) / totals[name], statistics.median(ordered), late)


def memory(server: Server, ask: Ask, audios: Sequence[Path], first: int, last: int) -> tuple[float, float]:
    """MiB after ``first`` and after ``last`` requests."""
    measure(server.url, ask, audios, 8, first)
    before = server.memory_mib()
    measure(server.url, ask, audios, 8, last - first)
    return before, server.memory_mib()


def report(figures: Sequence[Figure]) -> str:
    """The table."""
    lines = [f"{'server':28}{'clients':>8}{'requests/s':>12}{'median s':>10}{'95 % s':>8}"]
    lines += [f"{f.name:28}{f.clients:8}{f.rate:12.2f}{f.median:10.2f}{f.late:8.2f}" for f in figures]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the benchmark."""
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--requests", type=positive, default=96, help="of each kind and number of clients")
    parser.add_argument("--keywords", type=positive, default=500, help="of each request")
    parser.add_argument("--memory-requests", type=int, default=2000, help="after which memory is compared; 0: not")
    parser.add_argument("--pruner", help="of stage one (default: the model is asked)")


def run(args: argparse.Namespace) -> None:
    """Start both servers, ask, print."""
    keywords = make_keywords(args.keywords)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        audios = make_utterances(folder / "audio")
        ports = free_port(), free_port()
        more = ["--pruner", args.pruner] if args.pruner else []
        ours = stack.enter_context(running(sap2_command(ports[0], *more), ports[0], "/health", folder / "sap2.log"))
        swift = stack.enter_context(running(swift_command(ports[1]), ports[1], "/v1/models", folder / "swift.log"))
        one, both = ask_sap2(keywords, "asr"), ask_sap2(keywords, "prune,asr")
        asked = [
            ("swift deploy, one stage", swift.url, ask_swift(keywords)),
            ("sap2 serve, one stage", ours.url, one),
            ("sap2 serve, both stages", ours.url, both),
        ]
        for _, url, ask in asked:
            measure(url, ask, audios, 2, 4)  # the first requests of a server are slower
        figures = []
        for figure in compare(asked, audios, args.clients, args.requests):
            figures.append(figure)
            print(report([figure]).splitlines()[-1], file=sys.stderr, flush=True)
        print(report(figures))
        if args.memory_requests:
            first = max(1, args.memory_requests // 10)
            before, after = memory(ours, one, audios, first, args.memory_requests)
            last = args.memory_requests
            print(f"memory of sap2 serve: {before:.0f} MiB after {first} requests, {after:.0f} after {last}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_serve.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
