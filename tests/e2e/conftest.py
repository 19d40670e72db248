"""Shared work of the end-to-end tests: sap2-tiny, one corpus, and adapters trained once by the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from serving import free_port

from sap2.shipped import resolve_name

STEPS = 8
RANK_OF_THIS_PROCESS = {
    "NPROC_PER_NODE",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
}
SWIFT = Path(sys.executable).with_name("swift")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a swift command: this one's programs first, as if activated; offline, one thread, no GPU; and
    nothing of the process group that ms-swift made in this process for some other test."""
    clean = {name: value for name, value in os.environ.items() if name not in {*RANK_OF_THIS_PROCESS, "SAP2_AUTOLOAD"}}
    fixed = {
        # DeepSpeed compiles with the ninja that it finds; two versions of it would compile anew each time
        "PATH": os.pathsep.join([str(SWIFT.parent), os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "MASTER_PORT": str(free_port()),  # another process of pytest may be training as well
    }
    return {**clean, **fixed, **variables}


def run_swift(*arguments: str, expect: int | None = 0, timeout: float = 400, **variables: str) -> str:
    """Run ``swift ARGUMENTS`` as a user does; its whole output. ``expect=None``: any exit code but 0."""
    done = subprocess.run(
        [SWIFT, *arguments],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if (done.returncode == 0) if expect is None else (done.returncode != expect):
        pytest.fail(f"swift {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def run_python(*arguments: str) -> None:
    """``python ARGUMENTS``."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=300)


def sft_arguments(model: Path | str, rows: Path, output: Path, *more: str) -> list[str]:
    """The training command of the README at the tiny model's width, with salience, the pooling that has weights."""
    return [
        *("sft", "--model", str(model), "--model_type", "sap_qwen2_audio", "--dataset", str(rows)),
        *("--output_dir", str(output), "--add_version", "false", "--max_length", "4096", "--train_type", "lora"),
        *("--freeze_llm", "false", "--freeze_vit", "true", "--freeze_aligner", "false", "--lora_rank", "8"),
        *("--sap_pooling", "salience", "--sap_window_size", "2"),
        *("--compressor_hidden_size", "128", "--num_attention_heads", "4"),
        *("--deepspeed", "zero2", "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1"),
        *("--learning_rate", "1e-4", "--logging_steps", "1", "--report_to", "none", "--check_model", "false"),
        *("--max_steps", str(STEPS), "--save_steps", str(STEPS // 2), "--dataloader_num_workers", "0"),
        *more,
    ]


def infer_arguments(rows: Path, result: Path, *more: str) -> list[str]:
    return [
        *("--infer_backend", "pt", "--temperature", "0", "--max_new_tokens", "60", "--stream", "false"),
        *("--val_dataset", str(rows), "--result_path", str(result), *more),
    ]


def read_results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def responses(path: Path) -> dict[str, str]:
    """Reply by audio path."""
    return {row["audios"][0]: row["response"] for row in read_results(path)}


def losses(output: Path) -> dict[int, float]:
    """Loss by step, as the trainer logged it."""
    lines = (json.loads(line) for line in (output / "logging.jsonl").read_text(encoding="utf-8").splitlines())
    return {int(line["global_step/max_steps"].split("/")[0]): float(line["loss"]) for line in lines if "loss" in line}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> SimpleNamespace:
    """The model and the rows of a few talks with names that it has never heard, made by the project's own commands."""
    root = tmp_path_factory.mktemp("corpus")
    talks = ["--talks", "3", "--slides", "2", "--utterances", "4", "--max-seconds", "3", "--seed", "3"]
    run_python("-m", "sap2.cli", "make-talks", str(root / "talks"), *talks)
    for split in ("train", "test"):
        utterances = str(root / f"{split}.utterances.jsonl")
        cut = ["--split", split, "--output", utterances, "--audio-dir", str(root / "audio")]
        run_python("-m", "data_tools.slidespeech", str(root / "talks"), *cut)
        run_python("-m", "data_tools.build_asr", utterances, "--output", str(root / f"{split}.jsonl"))
        run_python("-m", "data_tools.build_prune", utterances, "--output", str(root / f"{split}.prune.jsonl"))
    model = Path(resolve_name("sap2-tiny"))
    return SimpleNamespace(root=root, model=model, train=root / "train.jsonl", test=root / "test.jsonl")


@pytest.fixture(scope="session")
def trained(corpus) -> SimpleNamespace:
    """The stage-two adapter: LoRA, ZeRO-2, two processes, without a break."""
    output = corpus.root / "out"
    log = run_swift(*sft_arguments("sap2-tiny", corpus.train, output), NPROC_PER_NODE="2")
    return SimpleNamespace(output=output, checkpoint=output / f"checkpoint-{STEPS}", log=log)


@pytest.fixture(scope="session")
def decoded(corpus, trained) -> Path:
    """Results of the real ``swift infer`` on the test rows, two ranks, batches of 3."""
    result = corpus.root / "result.jsonl"
    run_swift(
        *("infer", "--adapters", str(trained.checkpoint)),
        *infer_arguments(corpus.test, result, "--max_batch_size", "3"),
        NPROC_PER_NODE="2",
    )
    return result


@pytest.fixture(scope="session")
def asr_adapter(trained) -> Path:
    return trained.checkpoint
