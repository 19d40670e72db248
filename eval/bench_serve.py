"""``sap2 serve`` beside ``swift deploy``: requests a second and latency at some numbers of clients, and memory.

    python eval/bench_serve.py
    python eval/bench_serve.py --clients 8 --requests 64 --memory-requests 0
    python eval/bench_serve.py --vllm build/vllm/bin/python      # of .ci/vllm-env build/vllm

All servers run at the same time on this machine, and are asked in turn, so that whatever else the machine does falls
on all. Each client sends its next request when it has the answer to the last: an utterance of three seconds and
a list of keywords. ``sap2 serve`` is asked for transcriptions, with one stage and with both, the first of these by the
adapter and by the spotter; ``swift deploy`` for chats, as in ``examples/deploy/client.py``. Requests are what OpenAI's
client would send, made once and sent over connections that stay open: that client takes 10 ms of processor time for
each, on the cores that the servers have. Processor time is that of the server's processes; below the table is the
clients' own.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import json
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

from serving import (
    FORM,
    Client,
    Server,
    form_body,
    free_port,
    make_keywords,
    make_utterances,
    running,
    sap2_command,
    swift_command,
    vllm_command,
)

from sap2.commands.shared import Parser, positive, run_parser
from sap2.prompts import asr_prompt

Ask = Callable[[Client, Path], str]
TRIES = 3


class Arm(NamedTuple):
    """What is measured: a server, and what it is asked. ``like``: the arm whose answers it should give, or None."""

    name: str
    server: Server
    ask: Ask
    like: str | None = None


class Figure(NamedTuple):
    """What some clients got: requests a second, seconds for one (median, and the slowest of 95 %), and the processor
    time for one, in seconds: the server's, and the clients' own."""

    name: str
    clients: int
    rate: float
    median: float
    late: float
    cpu: float
    own: float


def ask_sap2(keywords: Sequence[str], stages: str, **more: str) -> Ask:
    """The transcript of one utterance by ``sap2 serve``; ``more`` are other fields of the form."""
    fields = {"model": "sap2-tiny", "keywords": ", ".join(keywords), "stages": stages, **more}

    @functools.cache
    def body(audio: Path) -> bytes:
        return form_body(fields, "file", audio)

    def ask(client: Client, audio: Path) -> str:
        return client.post("/v1/audio/transcriptions", body(audio), FORM)["text"]

    return ask


def ask_swift(keywords: Sequence[str]) -> Ask:
    """The transcript of one utterance by ``swift deploy``."""
    prompt = asr_prompt(keywords)

    @functools.cache
    def body(audio: Path) -> bytes:
        data = base64.b64encode(audio.read_bytes()).decode()
        content = [
            {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}},
            {"type": "text", "text": prompt},
        ]
        message = {"role": "user", "content": content}
        return json.dumps({"model": "sap2-tiny", "messages": [message], "temperature": 0}).encode()

    def ask(client: Client, audio: Path) -> str:
        chat = client.post("/v1/chat/completions", body(audio), "application/json")
        return chat["choices"][0]["message"]["content"]

    return ask


def agree(arms: Sequence[Arm], audios: Sequence[Path]) -> Iterator[str]:
    """How many answers of each arm are those of the arm that it should be like. (Makes the servers warm as well.)"""
    answers = {arm.name: [arm.ask(Client(arm.server.url), audio) for audio in audios] for arm in arms}
    for arm in arms:
        if arm.like is not None:
            same = sum(one == other for one, other in zip(answers[arm.name], answers[arm.like], strict=True))
            yield f"{arm.name}: {same} of {len(audios)} answers are those of {arm.like}"


def measure(url: str, ask: Ask, audios: Sequence[Path], clients: int, requests: int) -> tuple[float, list[float]]:
    """Seconds of all requests together, and of each."""
    turns = iter(range(requests))
    lock = threading.Lock()
    seconds: list[float] = []

    def work(_: int) -> None:
        client = Client(url)
        with contextlib.suppress(StopIteration), contextlib.closing(client):
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


def compare(arms: Sequence[Arm], audios: Sequence[Path], clients: Sequence[int], requests: int) -> Iterator[Figure]:
    """All arms at each number of clients, in turn, some times; the figures are of all times together."""
    for count in clients:
        totals, cpus, own = ({arm.name: 0.0 for arm in arms} for _ in range(3))
        taken: dict[str, list[float]] = {arm.name: [] for arm in arms}
        each = max(count, requests // TRIES)
        for _ in range(TRIES):
            for name, server, ask, _ in arms:
                before, mine = server.cpu_seconds(), time.process_time()
                total, seconds = measure(server.url, ask, audios, count, each)
                cpus[name] += server.cpu_seconds() - before
                own[name] += time.process_time() - mine
                totals[name] += total
                taken[name] += seconds
        for name in totals:
            ordered = sorted(taken[name])
            late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
            asked = len(ordered)
            rate, median = asked / totals[name], statistics.median(ordered)
            yield Figure(name, count, rate, median, late, cpus[name] / asked, own[name] / asked)


def memory(server: Server, ask: Ask, audios: Sequence[Path], first: int, last: int) -> tuple[float, float]:
    """MiB after ``first`` and after ``last`` requests."""
    measure(server.url, ask, audios, 8, first)
    before = server.memory_mib()
    measure(server.url, ask, audios, 8, last - first)
    return before, server.memory_mib()


def report(figures: Sequence[Figure]) -> str:
    """The table."""
    lines = [f"{'server':28}{'clients':>8}{'requests/s':>12}{'median s':>10}{'95 % s':>8}{'cpu ms':>8}"]
    lines += [
        f"{f.name:28}{f.clients:8}{f.rate:12.2f}{f.median:10.2f}{f.late:8.2f}{1000 * f.cpu:8.1f}" for f in figures
    ]
    clients = statistics.mean(figure.own for figure in figures)
    return "\n".join([*lines, f"the clients' own: {1000 * clients:.1f} ms"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the benchmark."""
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--requests", type=positive, default=96, help="of each kind and number of clients")
    parser.add_argument("--keywords", type=positive, default=500, help="of each request")
    parser.add_argument("--memory-requests", type=int, default=2000, help="after which memory is compared; 0: not")
    parser.add_argument("--vllm", metavar="PYTHON", help="measure sap2 serve --engine vllm too, run by this Python")


def start(stack: contextlib.ExitStack, folder: Path, vllm: str | None) -> tuple[Server, Server, Server | None]:
    """``swift deploy``, ``sap2 serve``, and this with vLLM where its Python is given; they end with the stack."""

    def begin(name: str, ready: str, command: Callable[[int], list[str]]) -> Server:
        port = free_port()
        return stack.enter_context(running(command(port), port, ready, folder / f"{name}.log"))

    ours = begin("sap2", "/health", sap2_command)
    swift = begin("swift", "/v1/models", swift_command)
    other = begin("vllm", "/health", lambda port: vllm_command(port, vllm)) if vllm else None
    return swift, ours, other


def make_arms(swift: Server, ours: Server, other: Server | None, keywords: Sequence[str]) -> list[Arm]:
    """What each server is asked."""
    one, both = ask_sap2(keywords, "asr"), ask_sap2(keywords, "prune,asr")
    arms = [
        Arm("swift deploy, one stage", swift, ask_swift(keywords)),
        Arm("sap2 serve, one stage", ours, one, "swift deploy, one stage"),
        Arm("sap2 serve, both stages", ours, both),
        Arm("both stages, spot", ours, ask_sap2(keywords, "prune,asr", pruner="spot")),
    ]
    if other is not None:
        arms.append(Arm("with vLLM, one stage", other, one, "sap2 serve, one stage"))
        arms.append(Arm("with vLLM, both stages", other, both, "sap2 serve, both stages"))
    return arms


def run(args: argparse.Namespace) -> None:
    """Start the servers, ask, print."""
    keywords = make_keywords(args.keywords)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        audios = make_utterances(folder / "audio")
        swift, ours, other = start(stack, folder, args.vllm)
        arms = make_arms(swift, ours, other, keywords)
        print(*agree(arms, audios), sep="\n", flush=True)
        for arm in arms:
            measure(arm.server.url, arm.ask, audios, 2, 4)  # the first requests of a server are slower
        figures = []
        for figure in compare(arms, audios, args.clients, args.requests):
            figures.append(figure)
            print(report([figure]).splitlines()[1], file=sys.stderr, flush=True)
        print(report(figures))
        if args.memory_requests:
            first = max(1, args.memory_requests // 10)
            before, after = memory(ours, arms[1].ask, audios, first, args.memory_requests)
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
