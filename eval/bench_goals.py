#!/usr/bin/env python
"""All goals of the engines in one run on one machine: a table of goal, measured, met.

    python eval/bench_goals.py figures --vllm-python build/vllm/bin/python --ray-python build/ray/bin/python
    python eval/bench_goals.py figures --parts engine                # some of the parts only
    python eval/bench_goals.py figures --small                       # a rehearsal: a few utterances

Runs the benches of this folder one after another, sap2-tiny on synthetic talks: ``bench_engine.py`` and
``bench_pipeline.py`` in an environment with vLLM (``.ci/vllm-env``), ``bench_ray.py`` in one with Ray
(``.ci/ray-env``).
The figures of a part are kept in the folder with the load of the machine before it; a part that is there is not run
again, so that an interrupted run goes on. On a machine with nothing beside it (two cores), all take some ten minutes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench_engine import CACHE_BYTES, make_utterances
from children import child

from sap2.commands.shared import Parser, run_parser

EVAL = Path(__file__).resolve().parent
PARTS = ("engine", "ray", "infer")
Figures = Mapping[str, Any]


class Plan(NamedTuple):
    """How much is done."""

    utterances: int
    rounds: int
    ray_count: int
    infer_talks: int
    few: int


FULL = Plan(utterances=1000, rounds=2, ray_count=160, infer_talks=240, few=20)
SMALL = Plan(utterances=40, rounds=1, ray_count=48, infer_talks=3, few=5)


class Goal(NamedTuple):
    """A row of the table: ``measure`` gives the figure as text and whether the goal is met; None: not known."""

    what: str
    goal: str
    part: str
    measure: Callable[[Figures], tuple[str, bool | None]]


def _speed(figures: Figures) -> tuple[str, bool]:
    one, vllm = _arms(figures)
    gain = one["seconds"] / vllm["seconds"]
    rates = [figures["utterances"] / arm["seconds"] for arm in (vllm, one)]
    return (
        f"{gain:.2f} × ({rates[0]:.1f} against {rates[1]:.1f}); {one['cpu'] / vllm['cpu']:.2f} × by processor time",
        gain >= 5,
    )


def _latency(figures: Figures) -> tuple[str, bool]:
    one, vllm = _arms(figures)
    ratio = vllm["latency"] / one["latency"]
    return (
        f"{ratio:.2f} × ({1000 * vllm['latency']:.0f} ms; first token {vllm['first'] / one['first']:.2f} ×)",
        ratio <= 1,
    )


def _waiting(figures: Figures) -> tuple[str, bool]:
    share = _arms(figures)[1]["waited"]
    return f"{100 * share:.1f} %", share < 0.1


def _memory(figures: Figures) -> tuple[str, bool]:
    one, vllm = _arms(figures)
    allowed = CACHE_BYTES / 2**20 + 1.2 * one["mib"]
    return f"{vllm['mib']:.0f} MiB, where {allowed:.0f} are allowed", vllm["mib"] <= allowed


def _ray(figures: Figures) -> tuple[str, bool]:
    one, ray = figures["ways"]
    ratio = ray["rate"] / one["rate"]
    return f"{ratio:.2f} × ({ray['rate']:.1f} against {one['rate']:.1f} utterances a second)", ratio >= 0.9


def _infer(figures: Figures) -> tuple[str, bool | None]:
    two, one = (figures["steady"][name][0] for name in ("two runs together", "sap2 pipeline"))
    whole = {command["name"]: command["seconds"] for command in figures["commands"]}
    processes = f"whole processes {whole['two runs together'] / whole['sap2 pipeline']:.1f} ×"
    if two is None or one is None:
        return f"not known; {processes}", None
    return f"{two / one:.1f} × ({1 / one:.1f} against {1 / two:.1f} utterances a second); {processes}", two / one >= 8


def _arms(figures: Figures) -> tuple[Figures, Figures]:
    return figures["arms"]["transformers"], figures["arms"]["vllm"]


GOALS = (
    Goal("utterances a second, both stages, vllm against transformers", "≥ 5 ×", "engine", _speed),
    Goal("one utterance alone (latency)", "≤ 1 ×", "engine", _latency),
    Goal("vLLM waits for audio", "< 10 %", "engine", _waiting),
    Goal("memory", "cache + 1.2 × transformers", "engine", _memory),
    Goal("Ray with 2 workers against one process with 2 threads", "≥ 0.9 ×", "ray", _ray),
    Goal("two stages against two `swift infer` runs, steady state", "≥ 8 ×", "infer", _infer),
)


def commands(args: argparse.Namespace, plan: Plan, folder: Path) -> dict[str, list[str]]:
    """The bench of each part."""
    infer = ["--model", "sap2-tiny", "--prune_adapter", "sap2-tiny-prune", "--asr_adapter", "sap2-tiny-asr"]
    infer += ["--utterances", str(folder / "utterances" / "test.jsonl"), "--few", str(plan.few), "--engine", "vllm"]
    infer += ["--batch_size", "16", "--max_new_tokens", "64", "--swift", str(args.swift)]
    engine = ["--utterances", str(plan.utterances), "--rounds", str(plan.rounds)]
    ray = ["--count", str(plan.ray_count), "--batch-size", "4", "--rounds", str(plan.rounds)]
    return {
        "engine": [args.vllm_python, str(EVAL / "bench_engine.py"), *engine],
        "ray": [args.ray_python, str(EVAL / "bench_ray.py"), *ray],
        "infer": [args.vllm_python, str(EVAL / "bench_pipeline.py"), *infer],
    }


def measure(part: str, command: Sequence[str], folder: Path) -> None:
    """Run a bench; its figures are kept once it has come to its end."""
    partial = folder / f"{part}.partial.json"
    load = os.getloadavg()[0]
    print(f"== {part}, load {load:.2f}", file=sys.stderr, flush=True)
    with child([*command, "--json", str(partial)]) as process:
        if code := process.wait():
            raise ChildProcessError(f"{part}: {command[1]} ended with code {code}")
    told = json.loads(partial.read_text(encoding="utf-8"))
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    kept = {**told, "load": load, "when": when}
    (folder / f"{part}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    partial.unlink()


def table(figures: Mapping[str, Figures]) -> str:
    """All goals; those of parts that are not there are not measured."""
    lines = ["| what | goal | measured | met |", "| --- | --- | --- | --- |"]
    for goal in GOALS:
        said, met = goal.measure(figures[goal.part]) if goal.part in figures else ("not measured", None)
        lines.append(f"| {goal.what} | {goal.goal} | {said} | {'' if met is None else 'yes' if met else '**no**'} |")
    same = [
        f"{part}: {value['when']}, load of the machine before it {value['load']:.2f}, same replies {_same(value)}"
        for part, value in figures.items()
    ]
    return "\n".join([*lines, "", *same])


def _same(figures: Figures) -> str:
    same = figures["same"]
    return same["vllm"] if isinstance(same, dict) else str(same)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("folder", type=Path, help="where figures are kept")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true", help="a rehearsal, whose figures mean nothing")
    parser.add_argument("--vllm-python", default=sys.executable, help="with vLLM; default: %(default)s")
    parser.add_argument("--ray-python", default=sys.executable, help="with Ray; default: %(default)s")
    parser.add_argument("--swift", default=EVAL.parent / ".venv" / "bin" / "swift", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, and print the table."""
    plan = SMALL if args.small else FULL
    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    if "infer" in args.parts and not (folder / "utterances" / "test.jsonl").exists():
        make_utterances(folder / "utterances", plan.infer_talks)
    for part, command in commands(args, plan, folder).items():
        if part in args.parts and not (folder / f"{part}.json").exists():
            measure(part, command, folder)
    found = {part: folder / f"{part}.json" for part in PARTS}
    print(table({p: json.loads(path.read_text(encoding="utf-8")) for p, path in found.items() if path.exists()}))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_goals.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
