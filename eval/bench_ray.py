#!/usr/bin/env python
"""Ray with N workers of one core against one process with N threads: utterances a second, and the same text.

    python eval/bench_ray.py                   # sap2-tiny and synthetic talks, two workers
    python eval/bench_ray.py --model DIR --prune-adapter DIR --asr-adapter DIR --utterances test.utterances.jsonl

Needs Ray. Both ways run as commands, in turns (``--rounds``), and the best round of each counts: other work on the
machine slows single rounds down. "steady" is the slope of the results over time in the result file, without the first
and the last arrivals: start, loading and the last blocks are left out. "cpu" is the processor time of the command and
all that it has started, for an utterance of the steady state; other work changes it least. "wall" is the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from children import child
from process_tree import cpu_seconds

from sap2.commands.shared import Parser, run_parser

_LOOK = 0.1  # seconds between two looks at the result file
_LEAST = 4  # arrivals of results that a slope is taken of


class Arrival(NamedTuple):
    """``rows`` were there after so many ``seconds``, and so much processor time (``cpu``, seconds) was spent."""

    seconds: float
    rows: int
    cpu: float


class Round(NamedTuple):
    """One run: utterances a second and processor seconds an utterance in the steady state, and the wall time."""

    name: str
    rate: float
    cpu: float
    wall: float


def watch(command: Sequence[str], result: Path, threads: int, log: Path) -> tuple[list[Arrival], float]:
    """Run a command to its end; when its results came, and how long it took.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    start, arrivals = time.perf_counter(), [Arrival(0.0, 0, 0.0)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with child(command, log, env=environment) as process:
        while process.poll() is None:
            time.sleep(_LOOK)
            rows = result.read_bytes().count(b"\n") if result.exists() else 0
            if rows > arrivals[-1].rows:
                arrivals.append(Arrival(time.perf_counter() - start, rows, cpu_seconds(process.pid)))
    if process.returncode:
        raise RuntimeError(f"{command}: code {process.returncode}\n{log.read_text(encoding='utf-8')[-2000:]}")
    return arrivals[1:], time.perf_counter() - start


def steady(arrivals: Sequence[Arrival], wall: float, name: str) -> Round:
    """The slopes through the arrivals but for the first and the last.

    Raises:
        RuntimeError: there are too few.
    """
    import numpy as np

    inner = np.array(arrivals[1:-1])
    if len(inner) < _LEAST:
        raise RuntimeError(f"{name}: {len(arrivals)} arrivals of results are too few; allowed: more --count")
    seconds, rows, cpu = inner.T
    return Round(name, float(np.polyfit(seconds, rows, 1)[0]), float(np.polyfit(rows, cpu, 1)[0]), wall)


def make_utterances(folder: Path) -> str:
    """Test utterances of synthetic talks."""
    from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
    from sap2.tiny.plan import TalksOptions
    from sap2.tiny.talks import make_talks

    root = make_talks(folder / "talks", TalksOptions(talks=6, seed=1))
    convert_slidespeech(root, "test", folder / "test.jsonl", folder / "audio", SlideSpeechOptions(slides=5))
    return str(folder / "test.jsonl")


def repeat(utterances: str, count: int, target: Path) -> str:
    """So many utterances: those of the file again and again, each with an id of its own."""
    from sap2.rowfiles import read_rows, write_rows

    rows = [row for _, row in read_rows(utterances)]
    write_rows(target, ({**rows[n % len(rows)], "id": f"{n:06d}"} for n in range(count)))
    return str(target)


def replies_of(path: Path) -> dict[str, dict[str, str]]:
    """What the model said, by id and stage."""
    return {row["id"]: row["replies"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("--model", default="sap2-tiny")
    parser.add_argument("--prune-adapter", default="sap2-tiny-prune")
    parser.add_argument("--asr-adapter", default="sap2-tiny-asr")
    parser.add_argument("--utterances", help="utterances, as sap2 data writes them (default: of synthetic talks)")
    parser.add_argument("--count", type=int, default=640, help="utterances of a run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="workers, and threads (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures there, too")


def best(rounds: Sequence[Round], way: str) -> Round:
    """The best figures of all rounds of one way."""
    own = [one for one in rounds if one.name == way]
    return Round(way, max(r.rate for r in own), min(r.cpu for r in own), min(r.wall for r in own))


def show(first: Round, second: Round) -> None:
    """Print both ways, and how the second compares with the first."""
    print(f"{'':12s} {'steady, utt./s':>15s} {'cpu s/utt.':>11s} {'wall s':>8s}")
    for one in (first, second):
        print(f"{one.name:12s} {one.rate:15.2f} {one.cpu:11.3f} {one.wall:8.1f}")
    rate, cpu, wall = (after / before for before, after in zip(first[1:], second[1:], strict=True))
    print(f"{second.name} / {first.name}: steady {rate:.2f}, cpu {cpu:.2f}, wall {wall:.2f}")


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    rounds: list[Round] = []
    said: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = repeat(args.utterances or make_utterances(folder), args.count, folder / "rows.jsonl")
        common = [sys.executable, "-m", "sap2.cli", "pipeline", "--val-dataset", path, "--model", args.model]
        common += ["--prune-adapter", args.prune_adapter, "--asr-adapter", args.asr_adapter]
        common += ["--batch-size", str(args.batch_size), "--num-workers", "1"]
        ways = {"one process": [], "ray": ["--ray", "--ray-actors", str(args.workers)]}
        for number in range(args.rounds):
            for way, more in ways.items():
                print(f"… {way}, round {number + 1}", file=sys.stderr, flush=True)
                result = folder / f"{way.replace(' ', '_')}{number}.jsonl"
                arrivals, wall = watch(
                    [*common, *more, "--result-path", str(result)], result, args.workers, folder / "log"
                )
                rounds.append(steady(arrivals, wall, way))
                said[way] = replies_of(result)
    found = [best(rounds, way) for way in ways]
    show(*found)
    same = sum(said["ray"][id] == replies for id, replies in said["one process"].items())
    print(f"same text in {same} of {args.count} utterances; {args.workers} workers, best of {args.rounds} rounds")
    if args.json:
        told = {"utterances": args.count, "same": same, "ways": [one._asdict() for one in found]}
        args.json.write_text(json.dumps(told), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_ray.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
