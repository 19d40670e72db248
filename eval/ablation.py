"""Does the speech-driven pooling beat plain averaging? Trains and decodes each arm alike, and writes the table.

    python eval/ablation.py --model sap2-tiny --talks TALKS --output runs/ablation
    python eval/ablation.py --from-counts docs/ablation/counts.json --output /tmp/report

Every arm starts from MODEL (a plain Qwen2-Audio that reads contexts, such as sap2-tiny), and is trained with
``swift sft`` on the same utterances with the same growing lists for the same steps. Then it decodes the test talks with
lists of 1, 5, 15 and 25 slides. What was trained or decoded before is not done again; what was interrupted starts
again. Writes OUTPUT/counts.json (raw counts by arm, seed, list and talk), table.md and plot.png.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from ablation_arms import TASK_SHARES, Arm, all_arms, decoded_file, model_name
from ablation_report import read_counts, write_counts, write_report
from children import end_families

from sap2.commands.shared import Parser, positive, run_parser
from sap2.data.build_asr import build_asr
from sap2.data.build_curriculum import build_curriculum
from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.progress import Progress
from sap2.rowfiles import read_rows, write_rows
from sap2.shipped import resolve_name


@dataclasses.dataclass(frozen=True)
class Settings:
    """See the options of the command. All but the output are the same in every run with this output."""

    model: str
    talks: str
    output: Path
    steps: int
    batch: int
    learning_rate: float
    stages: str
    slides: tuple[int, ...]
    utterances: int
    tower: bool

    def save(self) -> None:
        """Write them to OUTPUT/settings.json.

        Raises:
            InputError: OUTPUT was begun with others.
        """
        settings = {**dataclasses.asdict(self), "slides": list(self.slides)}
        del settings["output"]
        path = self.output / "settings.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
        for name, value in settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{path}: {name} was {before.get(name)!r} and is {value!r}; allowed: the same, or another --output"
                )
        with atomic_write(path) as stream:
            json.dump(settings, stream, indent=2)


def prepare(settings: Settings, seeds: Sequence[int]) -> None:
    """Rows for training, one file for each task and seed, and the test utterances with every list and with none."""
    data = settings.output / "data"
    _convert(settings, "train", 25, data / "train.utterances.jsonl")
    rows = []
    for slides in settings.slides:
        whole = data / f"test-{slides}.jsonl"
        _convert(settings, "test", slides, whole)
        chosen = _spread([row for _, row in read_rows(whole)], settings.utterances)
        rows += [{**row, "id": f"{row['id']}@{slides}"} for row in chosen]
    if not (data / "test.jsonl").exists():
        write_rows(data / "test.jsonl", rows)
    if not (data / "test-none.jsonl").exists():
        first = rows[: len(rows) // len(settings.slides)]
        write_rows(data / "test-none.jsonl", [{**row, "keywords": []} for row in first])
    for seed in seeds:
        for task, shares in TASK_SHARES.items():
            path = data / f"{task}-{seed}.jsonl"
            if not path.exists():
                build_curriculum(
                    data / "train.utterances.jsonl",
                    path,
                    settings.steps * settings.batch,
                    settings.stages,
                    tasks=shares,
                    block=settings.batch,
                    seed=seed,
                )


def _convert(settings: Settings, split: str, slides: int, output: Path) -> None:
    if not output.exists():
        options = SlideSpeechOptions(slides=slides)
        convert_slidespeech(settings.talks, split, output, settings.output / "audio", options)


def _spread(rows: list[dict], count: int) -> list[dict]:
    """``count`` of the rows, evenly spread over the talks (which follow each other)."""
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


class Commands:
    """Commands that threads wait for, and that end all together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._stopped = False

    def run(self, command: Sequence[str], log: Path, what: str) -> None:
        """Run one, its output to ``log``.

        Raises:
            ChildProcessError: names the log.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w", encoding="utf-8") as stream:
            with self._lock:
                if self._stopped:
                    raise ChildProcessError(f"{what} was not begun")
                process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code:
            raise ChildProcessError(f"{what} failed with exit code {code}; see {log}")

    def stop(self) -> None:
        """End those that run, and begin no other."""
        with self._lock:
            self._stopped = True
            end_families(process.pid for process in self._running)


def train(settings: Settings, arm: Arm, task: str, seed: int, commands: Commands) -> Path:
    """Train one model; its checkpoint. Does nothing where there is one already.

    Raises:
        ChildProcessError: names the log.
    """
    folder = settings.output / "models" / model_name(arm, task, seed)
    checkpoint = folder / f"checkpoint-{settings.steps}"
    if (folder / "done.json").exists():
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "model": settings.model,
        "model_type": "sap_qwen2_audio",
        "dataset": settings.output / "data" / f"{task}-{seed}.jsonl",
        "output_dir": folder,
        "tuner_type": "full",
        "freeze_llm": "false",
        "freeze_vit": str(not settings.tower).lower(),
        "freeze_aligner": "false",
        "torch_dtype": "float32",
        "dataset_shuffle": "false",
        "train_dataloader_shuffle": "false",
        "seed": seed,
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch,
        "gradient_accumulation_steps": 1,
        "max_length": 8192,
        "learning_rate": settings.learning_rate,
        "warmup_ratio": 0.05,
        "weight_decay": 0.01,
        "gradient_checkpointing": "false",
        "vit_gradient_checkpointing": "false",
        "sap_pooling": arm.pooling,
        "sap_window_size": arm.window,
        "sap_min_positions": arm.min_positions,
        "save_steps": settings.steps,
        "save_only_model": "true",
        "logging_steps": 10,
        "dataloader_num_workers": 0,
        "report_to": "none",
        "check_model": "false",
        "add_version": "false",
    }
    command = [str(Path(sys.executable).with_name("swift")), "sft"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    (folder / "logging.jsonl").unlink(missing_ok=True)  # of a training that was stopped
    commands.run(command, folder / "train.log", "training")
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text(encoding="utf-8").splitlines()]
    speeds = [line["train_speed(s/it)"] for line in lines if "train_speed(s/it)" in line]
    with atomic_write(folder / "done.json") as stream:
        json.dump({"seconds_per_step": float(speeds[-1])}, stream)
    return checkpoint


def run_arm(settings: Settings, arm: Arm, seed: int, commands: Commands) -> None:
    """Train what the arm needs and decode the test talks with every list."""
    models = {task: train(settings, arm, task, seed, commands) for task in arm.tasks}
    data, result = settings.output / "data", decoded_file(settings.output, arm.name, seed)
    if not arm.context:
        decode(models["plain"], data / "test-none.jsonl", result, "asr", commands)
    elif arm.tasks == ("prune", "asr"):
        picked, rows = result.with_suffix(".prune.jsonl"), result.with_suffix(".rows.jsonl")
        decode(models["prune"], data / "test.jsonl", picked, "prune", commands)
        if not rows.exists():
            build_asr(data / "test.jsonl", rows, "predicted", predictions=picked)
        decode(models["asr"], rows, result, "asr", commands)
    else:
        decode(models[arm.tasks[0]], data / "test.jsonl", result, arm.tasks[0], commands)


def decode(model: Path, source: Path, result: Path, stages: str, commands: Commands) -> None:
    """Decode with ``sap2 pipeline``, which goes on where it was.

    Raises:
        ChildProcessError: names the log.
    """
    done = result.with_suffix(".done")
    if done.exists():
        return
    command = [sys.executable, "-m", "sap2.cli", "pipeline", "--model", str(model), "--stages", stages]
    command += ["--val_dataset", str(source), "--result_path", str(result), "--batch_size", "32"]
    command += ["--max_new_tokens", "120"]
    result.parent.mkdir(parents=True, exist_ok=True)
    commands.run(command, result.with_suffix(".log"), "decoding")
    done.touch()


def run_arms(settings: Settings, arms: Sequence[Arm], seeds: Sequence[int], jobs: int) -> None:
    """Run them, several at a time. After an error no further one begins; an interruption ends those that run too.

    Raises:
        ChildProcessError: a training or decoding failed.
    """
    settings.save()
    prepare(settings, seeds)
    # arms with a model in common follow each other in one job, or two jobs would train it at once
    chains: dict[tuple, list[Arm]] = {}
    for arm in arms:
        chains.setdefault((arm.pooling, arm.window, arm.min_positions), []).append(arm)
    commands = Commands()
    with (
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
        Progress("arms", len(arms) * len(seeds), "arm") as bar,
    ):

        def run_chain(chain: Sequence[Arm], seed: int) -> None:
            for arm in chain:
                run_arm(settings, arm, seed, commands)
                bar.update()

        futures = [pool.submit(run_chain, chain, seed) for seed in seeds for chain in chains.values()]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                commands.stop()
            raise


def _parser() -> Parser:
    parser = Parser(prog="ablation.py", description=__doc__)
    parser.add_argument("--model", metavar="DIR", help="a plain Qwen2-Audio to start from, or sap2-tiny")
    parser.add_argument("--talks", metavar="DIR", help="talks of sap2 make-talks, 25 slides each")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="goes on with what is there")
    parser.add_argument("--arms", metavar="A,B", help="default: all")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--steps", type=positive, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=12, metavar="N", help="rows of a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, metavar="X", help="default: %(default)s")
    parser.add_argument(
        "--stages",
        default="0.2:1,0.2:2-4,0.2:4-16,0.4:8-200",
        metavar="S:N,S:N-M",
        help="shares and sizes of the lists in training (default: %(default)s)",
    )
    parser.add_argument("--tower", action="store_true", help="train the audio tower too (for a random MODEL)")
    parser.add_argument("--slides", default="1,5,15,25", metavar="N,N", help="of the test (default: %(default)s)")
    parser.add_argument(
        "--utterances", type=positive, default=160, metavar="N", help="of the test (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="arms at a time (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="count and report what is there, and run nothing")
    parser.add_argument("--from-counts", type=Path, metavar="FILE", help="only report these counts")
    return parser


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r}; allowed: whole numbers, such as 1,5") from None


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


def run(args: argparse.Namespace) -> None:
    """Train, decode and count what is missing, and write the report."""
    if args.from_counts is not None:
        write_report(read_counts(args.from_counts), args.output)
        return
    if args.model is None or args.talks is None:
        raise InputError("--model and --talks are missing; allowed: both, or --from-counts FILE")
    arms = all_arms()
    names = list(arms) if args.arms is None else args.arms.split(",")
    unknown = sorted(set(names) - set(arms))
    if unknown:
        raise InputError(f"unknown arms {', '.join(unknown)}; allowed: {', '.join(arms)}")
    seeds, slides = _numbers("--seeds", args.seeds), _numbers("--slides", args.slides)
    settings = Settings(
        resolve_name(args.model),
        args.talks,
        args.output,
        args.steps,
        args.batch,
        args.learning_rate,
        args.stages,
        slides,
        args.utterances,
        args.tower,
    )
    if not args.report_only:
        run_arms(settings, [arms[name] for name in names], seeds, args.jobs)
    write_report(write_counts(args.output, arms, slides, settings.model), args.output)


if __name__ == "__main__":
    sys.exit(main())
