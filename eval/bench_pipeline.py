"""Both stages in one process against two runs of ``swift infer`` with the extraction between: time and memory.

    python eval/bench_pipeline.py
    python eval/bench_pipeline.py --model DIR --prune_adapter DIR --asr_adapter DIR --utterances test.utterances.jsonl
    python eval/bench_pipeline.py … --few 20 --engine vllm --swift OTHER_ENVIRONMENT/bin/swift

Whole processes, from their start to their end, one after another on the same machine, with the same batches and the
same limit of tokens. "cpu" is the processor time of a process and all that it has started, waited for or not, which
other work on the machine changes least. Peak memory is the proportional set size of all these together. Without a
model, a tiny one with random adapters and a few synthetic talks are made first.

With ``--few N`` all is done a second time with the first N utterances only. What the others take on top is the steady
state: the difference of the two runs, for an utterance, without start and end. One start takes seconds more than
another, so that a difference which is little of the whole run says nothing: it is not known then, and more utterances
are needed.
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
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from children import child, run_apart
from process_tree import Watch

from sap2.commands.shared import Parser, run_parser
from sap2.errors import InputError

LEAST = 0.25
"""Share of the longer run that the difference of two runs must be, to be known."""


class Cost(NamedTuple):
    """What a command took: ``seconds`` of wall time and ``cpu`` of processors, ``mib`` of memory at its peak."""

    name: str
    seconds: float
    cpu: float
    mib: float


class Setup(NamedTuple):
    """What both ways work on."""

    model: str
    prune_adapter: str
    asr_adapter: str
    utterances: str
    batch_size: int = 8
    max_new_tokens: int = 32
    swift: str = ""
    engine: str = "transformers"


def measure(name: str, command: Sequence[str], log: Path) -> Cost:
    """Run a command to its end; its output goes to ``log``.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    print(f"… {name}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    with child(command, log) as process:
        with Watch(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{name} ended with code {process.returncode}:\n{tail}")
    waited_for = usage.ru_utime + usage.ru_stime  # to the end, and too short for a look; the watch has the others
    return Cost(name, seconds, max(watch.cpu, waited_for), watch.mib)


def make_setup(folder: Path, talks: int) -> Setup:
    """A tiny model, two random LoRA adapters of the recipe's shape, and the test utterances of some talks."""
    from peft import LoraConfig, get_peft_model

    from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
    from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
    from sap2.tiny.checkpoint import make_tiny
    from sap2.tiny.plan import TalksOptions
    from sap2.tiny.talks import make_talks

    model = make_tiny(folder / "model")
    root = make_talks(folder / "talks", TalksOptions(talks=talks))
    convert_slidespeech(root, "test", folder / "test.jsonl", folder / "audio", SlideSpeechOptions())
    targets = r"^model\.(language_model.*|multi_modal_projector)\.(\w+_proj|linear)$"
    config = LoraConfig(r=8, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    for name in ("prune", "asr"):
        adapted = get_peft_model(SAP2Qwen2AudioForConditionalGeneration.from_pretrained(model), config)
        adapted.save_pretrained(folder / name)
    return Setup(str(model), str(folder / "prune"), str(folder / "asr"), str(folder / "test.jsonl"))


def make_apart(folder: Path, talks: int) -> Setup:
    """:func:`make_setup` in a process of its own: a child's peak begins with what its parent holds."""
    return run_apart(make_setup, folder, talks)


def run_two(setup: Setup, folder: Path) -> list[Cost]:
    """``swift infer``, the extraction, ``swift infer``."""
    from sap2.data.build_asr import build_asr

    build_asr(setup.utterances, folder / "asr.jsonl")
    costs = []
    for name, adapter, rows in (
        ("prune", setup.prune_adapter, folder / "prune.jsonl"),
        ("asr", setup.asr_adapter, folder / "predicted.jsonl"),
    ):
        if name == "asr":
            extract = [str(folder / "prune.result.jsonl"), str(folder / "asr.jsonl"), "--output", str(rows)]
            module = [sys.executable, "-m", "data_tools.extract_predicted_keywords"]
            costs.append(measure("extraction", [*module, *extract], folder / "extract.log"))
        command = [
            setup.swift,
            "infer",
            "--model",
            setup.model,
            "--model_type",
            "sap_qwen2_audio",
            "--adapters",
            adapter,
        ]
        command += ["--infer_backend", "pt", "--temperature", "0", "--stream", "false"]
        command += ["--max_batch_size", str(setup.batch_size), "--max_new_tokens", str(setup.max_new_tokens)]
        command += ["--val_dataset", str(rows), "--result_path", str(folder / f"{name}.result.jsonl")]
        costs.append(measure(f"swift infer, {name}", command, folder / f"{name}.log"))
    return costs


def run_one(setup: Setup, folder: Path) -> Cost:
    """``sap2 pipeline``."""
    command = [sys.executable, "-m", "sap2.cli", "pipeline", "--model", setup.model]
    command += ["--prune-adapter", setup.prune_adapter, "--asr-adapter", setup.asr_adapter]
    command += ["--val_dataset", str(folder / "prune.jsonl"), "--result_path", str(folder / "pipeline.jsonl")]
    command += ["--batch_size", str(setup.batch_size), "--max_new_tokens", str(setup.max_new_tokens)]
    command += ["--engine", setup.engine]
    return measure("sap2 pipeline", command, folder / "pipeline.log")


def responses(path: Path) -> dict[str, str]:
    """Transcripts by audio."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["audios"][0]: row["response"] for row in rows}


def run_both(setup: Setup, folder: Path) -> tuple[list[Cost], str]:
    """The costs of both ways, those of the two runs together last but one, and how many rows are the same."""
    from sap2.data.build_prune import build_prune

    rows = build_prune(setup.utterances, folder / "prune.jsonl").rows
    two = run_two(setup, folder)
    one = run_one(setup, folder)
    seconds, cpu, mib = zip(*(cost[1:] for cost in two), strict=True)
    expected, ours = responses(folder / "asr.result.jsonl"), responses(folder / "pipeline.jsonl")
    same = sum(ours.get(audio) == text for audio, text in expected.items())
    total = Cost("two runs together", sum(seconds), sum(cpu), max(mib))
    return [*two, total, one], f"same text in {same} of {rows} rows"


def report(costs: Sequence[Cost], same: str) -> str:
    """The table of whole processes."""
    *_, total, one = costs
    lines = [f"{'':22}{'wall s':>10}{'cpu s':>10}{'peak MiB':>10}"]
    lines += [f"{cost.name:22}{cost.seconds:10.1f}{cost.cpu:10.1f}{cost.mib:10.0f}" for cost in costs]
    lines.append(
        f"sap2 pipeline / two runs: time {one.seconds / total.seconds:.2f}, processor time {one.cpu / total.cpu:.2f}, "
        f"memory {one.mib / total.mib:.2f}; {same}"
    )
    return "\n".join(lines)


class Rate(NamedTuple):
    """Wall and processor seconds that one more utterance takes; None: not known."""

    seconds: float | None
    cpu: float | None

    def times(self, other: Rate) -> tuple[float | None, float | None]:
        """How many times as much it takes as another, by the clock and by processor time."""
        pairs = zip(self, other, strict=True)
        first, second = (None if None in pair else pair[0] / pair[1] for pair in pairs)
        return first, second


def steady(costs: Sequence[Cost], few: Sequence[Cost], utterances: int) -> list[Rate]:
    """Of each command, what one of so many more utterances takes."""

    def known(longer: float, shorter: float) -> float | None:
        return (longer - shorter) / utterances if longer - shorter >= LEAST * longer else None

    return [
        Rate(known(all.seconds, some.seconds), known(all.cpu, some.cpu)) for all, some in zip(costs, few, strict=True)
    ]


def figures(costs: Sequence[Cost], few: Sequence[Cost], utterances: int, same: str) -> dict[str, Any]:
    """What the tables are made of; ``few`` is empty where there was no second run."""
    told: dict[str, Any] = {"commands": [cost._asdict() for cost in costs], "same": same}
    if few:
        told |= {
            "utterances": utterances,
            "steady": dict(zip((c.name for c in costs), steady(costs, few, utterances), strict=True)),
        }
    return told


def report_steady(costs: Sequence[Cost], few: Sequence[Cost], utterances: int) -> str:
    """The table of what so many more utterances take."""
    lines = [f"{'steady state':22}{'ms/utt':>10}{'cpu ms/utt':>12}{'utt/s':>10}"]
    rates = steady(costs, few, utterances)
    for cost, (seconds, cpu) in zip(costs, rates, strict=True):
        told = [_told(value and 1000 * value, ".1f") for value in (seconds, cpu)]
        lines.append(f"{cost.name:22}{told[0]:>10}{told[1]:>12}{_told(seconds and 1 / seconds, '.1f'):>10}")
    time, cpu = (_told(ratio, ".2f") for ratio in rates[-2].times(rates[-1]))
    lines.append(f"two runs / sap2 pipeline: time {time}, processor time {cpu}")
    if any(None in rate for rate in rates[-2:]):
        lines.append(f"not known: less than {LEAST:.0%} of the run; give more utterances")
    return "\n".join(lines)


def _told(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("--model", help="base model; with both adapters and --utterances")
    parser.add_argument("--prune_adapter")
    parser.add_argument("--asr_adapter")
    parser.add_argument("--utterances", help="as the converters of data_tools write them")
    parser.add_argument("--talks", type=int, default=3, help="synthetic talks, where no model is given")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--few", type=int, help="utterances of a second run; the difference is the steady state")
    parser.add_argument("--engine", default="transformers", help="of sap2 pipeline; default: %(default)s")
    parser.add_argument("--swift", default=str(Path(sys.executable).with_name("swift")), help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures there, too")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        InputError: a model without its adapters or utterances.
    """
    given = [args.model, args.prune_adapter, args.asr_adapter, args.utterances]
    if any(given) and not all(given):
        raise InputError("--model, --prune_adapter, --asr_adapter and --utterances go together")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup = Setup(args.model, args.prune_adapter, args.asr_adapter, args.utterances)
        setup = setup if args.model else make_apart(folder / "made", args.talks)
        setup = setup._replace(
            batch_size=args.batch_size, max_new_tokens=args.max_new_tokens, swift=args.swift, engine=args.engine
        )
        costs, same = run_both(setup, folder)
        print(report(costs, same), flush=True)
        few: list[Cost] = []
        lines = Path(setup.utterances).read_text(encoding="utf-8").splitlines(keepends=True)
        left = len(lines) - (args.few or 0)
        if args.few:
            (folder / "few").mkdir()
            (folder / "few.jsonl").write_text("".join(lines[: args.few]), encoding="utf-8")
            few, _ = run_both(setup._replace(utterances=str(folder / "few.jsonl")), folder / "few")
            print(report_steady(costs, few, left))
    if args.json:
        args.json.write_text(json.dumps(figures(costs, few, left, same)), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_pipeline.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
