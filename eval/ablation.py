"""Does the speech-driven pooling beat plain averaging? Trains and decodes each arm alike, and writes the table.

    python eval/ablation.py --model MODEL --talks TALKS --output runs/ablation

Every arm starts from MODEL (a plain Qwen2-Audio that reads contexts, such as sap2-tiny), and is trained with
``swift sft`` on the same utterances for the same steps. Then it decodes the test talks with lists of 1, 5, 15 and 25
slides. What was trained or decoded before is not done again. Writes OUTPUT/counts.json (raw counts by arm, seed, list
and talk), table.md and plot.png.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from ablation_report import write_report
from tqdm import tqdm

from data_tools.build_asr import build_asr
from data_tools.build_curriculum import build_curriculum
from data_tools.slidespeech import SlideSpeechOptions, convert_slidespeech
from sap2.records import atomic_write, read_rows, write_rows
from sap2.shipped import resolve_name

LISTED = "0.85"
"""Share of the rows with a list; the others have none."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        name: in the table.
        pooling, window: settings of the pooling layer.
        tasks: of :mod:`data_tools.build_curriculum`, one model trained for each.
        context: whether the model is shown the lists.
    """

    name: str
    pooling: str = "mean"
    window: int = 1
    tasks: tuple[str, ...] = ("asr",)
    context: bool = True


POOLINGS = ("mean", "attention", "salience")
WINDOWS = (2, 4, 8)
DEFAULT = ("salience", 2)
"""Pooling and window of the two stages and of joint decoding."""


def all_arms() -> dict[str, Arm]:
    """Every arm by name."""
    arms = [Arm("none", tasks=("plain",), context=False), Arm("w1")]
    arms += [Arm(f"{pooling}-{window}", pooling, window) for window in WINDOWS for pooling in POOLINGS]
    arms += [
        Arm("prune+asr", *DEFAULT, tasks=("prune", "asr")),
        Arm("joint", *DEFAULT, tasks=("joint",)),
    ]
    return {arm.name: arm for arm in arms}


@dataclasses.dataclass(frozen=True)
class Settings:
    """See the options of the command."""

    model: str
    talks: str
    output: Path
    steps: int
    batch: int
    learning_rate: float
    list_sizes: str
    slides: tuple[int, ...]
    utterances: int


def prepare(settings: Settings, seeds: Sequence[int]) -> None:
    """Rows for training, one file for each task and seed, and the test utterances with each number of slides."""
    data = settings.output / "data"
    data.mkdir(parents=True, exist_ok=True)
    _convert(settings, "train", 25, data / "train.utterances.jsonl")
    for slides in settings.slides:
        whole, part = data / f"test-{slides}.all.jsonl", data / f"test-{slides}.jsonl"
        if not part.exists():
            _convert(settings, "test", slides, whole)
            write_rows(part, _spread([row for _, row in read_rows(whole)], settings.utterances))
    for seed in seeds:
        for task, shares in TASK_SHARES.items():
            rows = data / f"{task}-{seed}.jsonl"
            if not rows.exists():
                build_curriculum(
                    data / "train.utterances.jsonl",
                    rows,
                    settings.steps * settings.batch,
                    f"1:{settings.list_sizes}",
                    tasks=shares,
                    block=settings.batch,
                    seed=seed,
                )


TASK_SHARES = {
    "plain": "plain=1",
    "asr": f"asr={LISTED},plain={1 - float(LISTED):.2f}",
    "prune": "prune=1",
    "joint": "joint=1",
}


def _convert(settings: Settings, split: str, slides: int, output: Path) -> None:
    if not output.exists():
        options = SlideSpeechOptions(slides=slides)
        convert_slidespeech(settings.talks, split, output, settings.output / "audio", options)


def _spread(rows: list[dict], count: int) -> list[dict]:
    """``count`` of the rows, evenly spread over the talks (which follow each other)."""
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def train(settings: Settings, arm: Arm, task: str, seed: int) -> Path:
    """Train one model; its checkpoint. Does nothing where there is one already."""
    folder = settings.output / "models" / f"{arm.pooling}-{arm.window}-{task}-s{seed}"
    checkpoint = folder / f"checkpoint-{settings.steps}"
    done = folder / "done.json"
    if done.exists():
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    rows = settings.output / "data" / f"{task}-{seed}.jsonl"
    command = f"""
        swift sft --model {settings.model} --model_type sap_qwen2_audio --dataset {rows} --output_dir {folder}
        --tuner_type full --freeze_llm false --freeze_vit true --freeze_aligner false --torch_dtype float32
        --dataset_shuffle false --train_dataloader_shuffle false --seed {seed} --max_steps {settings.steps}
        --per_device_train_batch_size {settings.batch} --gradient_accumulation_steps 1 --max_length 8192
        --learning_rate {settings.learning_rate} --warmup_ratio 0.05 --weight_decay 0.01
        --gradient_checkpointing false --vit_gradient_checkpointing false
        --sap_pooling {arm.pooling} --sap_window_size {arm.window}
        --save_steps {settings.steps} --save_only_model true --logging_steps 10 --dataloader_num_workers 0
        --report_to none --check_model false --add_version false
    """.split()
    log = folder / "train.log"
    with log.open("w", encoding="utf-8") as stream:
        if subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=_environment()).returncode:
            raise RuntimeError(f"training failed; see {log}")
    speeds = re.findall(r"'train_speed\(s/it\)': '([0-9.]+)'", log.read_text(encoding="utf-8"))
    with atomic_write(done) as stream:
        json.dump({"seconds_per_step": float(speeds[-1])}, stream)
    return checkpoint


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def run_arm(settings: Settings, arm: Arm, seed: int) -> None:
    """Train what the arm needs and decode the test talks with every list."""
    models = {task: train(settings, arm, task, seed) for task in arm.tasks}
    for slides in settings.slides if arm.context else settings.slides[:1]:
        source = settings.output / "data" / f"test-{slides}.jsonl"
        folder = settings.output / "decoded" / f"{arm.name}-s{seed}"
        result = folder / f"{slides}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if not arm.context:
            rows = folder / "rows.jsonl"
            build_asr(source, rows, "none")
            decode(models["plain"], rows, result, "asr")
        elif arm.tasks == ("prune", "asr"):
            picked, rows = folder / f"{slides}.picked.jsonl", folder / f"{slides}.rows.jsonl"
            decode(models["prune"], source, picked, "prune")
            if not rows.exists():
                build_asr(source, rows, "predicted", predictions=picked)
            decode(models["asr"], rows, result, "asr")
        else:
            decode(models[arm.tasks[0]], source, result, arm.tasks[0])


def decode(model: Path, source: Path, result: Path, stages: str) -> None:
    """Decode with ``sap2 pipeline``, which goes on where it was."""
    done = result.with_suffix(".done")
    if done.exists():
        return
    command = [sys.executable, "-m", "sap2.cli", "pipeline", "--model", str(model), "--stages", stages]
    command += ["--val_dataset", str(source), "--result_path", str(result), "--batch_size", "32"]
    command += ["--max_new_tokens", "200"]
    run = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if run.returncode:
        raise RuntimeError(f"decoding failed: {' '.join(command)}\n{run.stderr[-2000:]}")
    done.write_text(run.stdout + run.stderr, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="a plain Qwen2-Audio to start from, or sap2-tiny")
    parser.add_argument("--talks", required=True, metavar="DIR", help="talks of sap2 make-talks, 25 slides each")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="goes on with what is there")
    parser.add_argument("--arms", metavar="A,B", help="default: all")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=5e-4, metavar="X", help="default: %(default)s")
    parser.add_argument("--list-sizes", default="4-96", metavar="N-M", help="keywords in training (default: 4-96)")
    parser.add_argument("--slides", default="1,5,15,25", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--utterances", type=int, default=640, metavar="N", help="test (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="arms at a time (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="write the report of what is there")
    args = parser.parse_args(argv)
    arms = all_arms()
    names = list(arms) if args.arms is None else args.arms.split(",")
    unknown = sorted(set(names) - set(arms))
    if unknown:
        parser.error(f"unknown arms {', '.join(unknown)}; allowed: {', '.join(arms)}")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    slides = tuple(int(count) for count in args.slides.split(","))
    settings = Settings(
        resolve_name(args.model),
        args.talks,
        args.output,
        args.steps,
        args.batch,
        args.learning_rate,
        args.list_sizes,
        slides,
        args.utterances,
    )
    if not args.report_only:
        prepare(settings, seeds)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(run_arm, settings, arms[name], seed) for seed in seeds for name in names]
            for job in tqdm(concurrent.futures.as_completed(jobs), total=len(jobs), desc="arms"):
                job.result()
    write_report(args.output, arms, slides, settings.model)


if __name__ == "__main__":
    main()
