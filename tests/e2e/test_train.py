"""Training through the real ``swift sft``: ZeRO-2 on two processes, a kill, a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sap2
from sap2.ms_swift.noise import FLAGS

from .conftest import STEPS, SWIFT, environment, infer_arguments, losses, read_results, run_swift, sft_arguments

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def plain_tiny(corpus) -> Path:
    """A random Qwen2-Audio, which has no spotter."""
    from sap2.tiny.checkpoint import make_tiny

    return make_tiny(corpus.root / "plain")


def test_zero2_on_two_processes_trains_lora_and_projector(trained):
    assert list(losses(trained.output)) == list(range(1, STEPS + 1))
    weights = load_file(trained.checkpoint / "adapter_model.safetensors")
    # LoRA starts with B = 0: what has a number in B was trained
    changed = {name for name, weight in weights.items() if "lora_B" in name and weight.any()}
    assert changed == {name for name in weights if "lora_B" in name}
    assert any("multi_modal_projector" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert any("context_pooling.spotter" in name for name in weights)
    config = json.loads((trained.checkpoint / "adapter_config.json").read_text())
    assert "multi_modal_projector" in config["target_modules"]
    assert "audio_tower" not in config["target_modules"]
    # one half of the optimizer's state in each rank's file: ZeRO was on, and counted two processes
    assert len(list(trained.checkpoint.glob("global_step*/*optim_states.pt"))) == 2


def test_checkpoint_carries_the_settings(trained):
    args = json.loads((trained.checkpoint / "args.json").read_text())
    assert {name: args[name] for name in args if name.startswith("sap_")} == {
        "sap_window_size": 2,
        "sap_min_positions": 64,
        "sap_pooling": "salience",
        "sap_num_heads": 4,
        "sap_hidden_size": 128,
        "sap_spotter": True,
        "sap_retriever": False,
        "sap_train": None,
        "sap_truncate_audio": None,
        **dict.fromkeys(FLAGS),
        "sap_case": "lower",
        "sap_stages": ["asr"],
        "sap_punctuation": "none",
    }


def test_a_training_hears_noise_and_its_evaluation_does_not(corpus):
    """The same 8 rows, and a model that does not change: it is worse with noise, and not the same in every epoch."""
    output = corpus.root / "noisy"
    noise = ["--sap_noise", "0:5", "--sap_noise_share", "1", "--val_dataset", str(corpus.train)]
    still = ["--learning_rate", "1e-12", "--max_steps", "8", "--save_steps", "8", "--eval_strategy", "steps"]
    more = ["--eval_steps", "8", "--per_device_eval_batch_size", "2", "--dataloader_num_workers", "1"]
    run_swift(*sft_arguments("sap2-tiny", corpus.train, output), *noise, *still, *more, NPROC_PER_NODE="1")
    lines = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    clean = next(float(line["eval_loss"]) for line in lines if "eval_loss" in line)
    noisy = [loss for _, loss in sorted(losses(output).items())]
    first, second = sum(noisy[:4]) / 4, sum(noisy[4:]) / 4
    assert min(first, second) > 2 * clean and abs(first - second) > 1e-3
    args = json.loads((output / "checkpoint-8" / "args.json").read_text())
    assert args["sap_noise"] == "0:5"


def test_killed_training_resumes_to_the_same_loss(corpus, trained):
    output = corpus.root / "killed"
    arguments = sft_arguments(corpus.model, corpus.train, output)
    process = subprocess.Popen(
        [SWIFT, *arguments],
        env=environment(NPROC_PER_NODE="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoint = output / f"checkpoint-{STEPS // 2}"
    deadline = time.monotonic() + 300
    # trainer_state.json is the last file of a checkpoint
    while not (checkpoint / "trainer_state.json").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / f"checkpoint-{STEPS}").exists()

    run_swift(*arguments, "--resume_from_checkpoint", str(checkpoint), NPROC_PER_NODE="2")
    resumed, whole = losses(output), losses(trained.output)
    for step in range(STEPS // 2 + 1, STEPS + 1):
        assert resumed[step] == pytest.approx(whole[step], rel=1e-5)


def test_zero3_learns_the_same(corpus, trained):
    output = corpus.root / "zero3"
    arguments = sft_arguments("sap2-tiny", corpus.train, output)
    arguments[arguments.index("zero2")] = "zero3"
    run_swift(*arguments, NPROC_PER_NODE="2")
    split, whole = losses(output), losses(trained.output)
    assert split.keys() == whole.keys()
    for step, loss in whole.items():
        assert split[step] == pytest.approx(loss, rel=1e-3)
    adapters = [
        load_file(folder / f"checkpoint-{STEPS}" / "adapter_model.safetensors") for folder in (output, trained.output)
    ]
    for name, weight in adapters[1].items():
        torch.testing.assert_close(adapters[0][name], weight, atol=1e-4, rtol=1e-2, msg=name)


def test_resume_with_another_window_is_refused(corpus, trained):
    output = corpus.root / "refused"
    arguments = sft_arguments(corpus.model, corpus.train, output)
    arguments[arguments.index("--sap_window_size") + 1] = "4"
    log = run_swift(*arguments, "--resume_from_checkpoint", str(trained.checkpoint), expect=None)
    line = next(line for line in log.splitlines() if line.startswith("sap2: error:"))
    assert "--sap_window_size 4" in line
    assert "--sap_window_size 2" in line
    assert "Traceback" not in log
    assert not output.exists()


def test_bad_row_stops_the_training_with_one_line(corpus):
    bad = corpus.root / "bad.jsonl"
    rows = [json.loads(line) for line in corpus.train.read_text().splitlines()]
    rows[3]["messages"][0]["content"] = rows[3]["messages"][0]["content"].replace("<|endofcontext|>", "")
    bad.write_text("\n".join(map(json.dumps, rows)))
    log = run_swift(*sft_arguments(corpus.model, bad, corpus.root / "bad"), expect=None)
    line = next(line for line in log.splitlines() if "sap2: error:" in line)
    assert rows[3]["audios"][0] in line
    assert "never closed" in line


def test_strict_false_skips_and_counts(corpus):
    rows = corpus.root / "one-bad.jsonl"
    lines = [json.loads(line) for line in corpus.train.read_text().splitlines()]
    lines[2]["audios"] = ["/nowhere/missing.wav"]
    rows.write_text("\n".join(map(json.dumps, lines)))
    log = run_swift(
        *sft_arguments(corpus.model, rows, corpus.root / "lenient", "--strict", "false"), NPROC_PER_NODE="1"
    )
    assert "/nowhere/missing.wav does not exist" in log
    assert "sap2: 1 bad rows were skipped" in log


def test_plugin_file_instead_of_the_automatic_loading(corpus):
    """No flags of ours then: the settings come through --model_kwargs, and from the checkpoint afterwards."""
    plugin = Path(sap2.__file__).parent / "plugin" / "sap2_plugin.py"
    output = corpus.root / "plugin"
    arguments = sft_arguments(corpus.model, corpus.train, output, "--external_plugins", str(plugin))
    for flag in (
        "--sap_window_size",
        "--sap_pooling",
        "--compressor_hidden_size",
        "--num_attention_heads",
        "--deepspeed",
    ):
        place = arguments.index(flag)
        del arguments[place : place + 2]
    arguments[arguments.index("--train_type")] = "--tuner_type"
    settings = ["--model_kwargs", '{"sap_window_size": 4, "sap_pooling": "mean"}', "--max_steps", "2"]
    run_swift(*arguments, *settings, "--save_steps", "2", SAP2_AUTOLOAD="0")
    checkpoint = output / "checkpoint-2"
    args = json.loads((checkpoint / "args.json").read_text())
    assert (args["sap_window_size"], args["sap_pooling"], args["sap_num_heads"]) == (4, "mean", 4)

    result = corpus.root / "plugin.jsonl"
    infer = ["infer", "--adapters", str(checkpoint), *infer_arguments(corpus.test, result)]
    run_swift(*infer, SAP2_AUTOLOAD="0")
    assert len(read_results(result)) == len(corpus.test.read_text().splitlines())


def spotter_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights = load_file(checkpoint / "adapter_model.safetensors")
    return {name: weight for name, weight in weights.items() if "context_pooling.spotter" in name}


@pytest.mark.parametrize(
    "flags", [("--label_smoothing_factor", "0.1"), ("--enable_dft_loss", "true")], ids=lambda flags: flags[0]
)
def test_a_loss_of_the_logits_trains_the_spotter_too(plain_tiny, corpus, flags):
    """ms-swift takes the labels away and makes its loss of the logits; steps are accumulated on two processes."""
    output = corpus.root / f"spotter{flags[0]}"
    arguments = sft_arguments(plain_tiny, corpus.train, output, *flags)
    arguments[arguments.index("--gradient_accumulation_steps") + 1] = "2"
    run_swift(*arguments, "--max_steps", "2", "--save_steps", "2", NPROC_PER_NODE="2")
    assert all(weight.any() for name, weight in spotter_of(output / "checkpoint-2").items() if "symbols" in name)
    lines = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    assert all(float(line["aux_loss"]) > 0 for line in lines if "loss" in line)


def test_rows_without_a_transcript_do_not_train_an_untrained_spotter(plain_tiny, corpus):
    rows = [json.loads(line) for line in (corpus.root / "train.prune.jsonl").read_text().splitlines()]
    silent = corpus.root / "silent.jsonl"
    silent.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k != "transcript"}) for row in rows))
    log = run_swift(*sft_arguments(plain_tiny, silent, corpus.root / "silent"), expect=None)
    assert f"sap2: error: none of the {len(rows)} training rows tells what is said" in log


def test_the_spotter_alone(plain_tiny, corpus):
    """Its adapter holds it and nothing else, and tells what is said by itself."""
    output = corpus.root / "alone"
    arguments = sft_arguments(plain_tiny, corpus.root / "train.prune.jsonl", output, "--sap_train", "spotter")
    arguments[arguments.index("--sap_pooling") + 1] = "attention"
    run_swift(*arguments, NPROC_PER_NODE="2")
    checkpoint = output / f"checkpoint-{STEPS}"
    weights = load_file(checkpoint / "adapter_model.safetensors")
    assert weights.keys() == spotter_of(checkpoint).keys() and all(weight.any() for weight in weights.values())
    found = losses(output)
    assert found[STEPS] < found[1]
    args = json.loads((checkpoint / "args.json").read_text())
    assert args["sap_spotter"] is True and args["sap_pooling"] == "attention"
    result = corpus.root / "alone.jsonl"
    run_swift("infer", "--adapters", str(checkpoint), *infer_arguments(corpus.test, result))
    assert len(read_results(result)) == len(corpus.test.read_text().splitlines())


def test_the_whole_model_on_two_processes_without_deepspeed(plain_tiny, corpus):
    """Every step of every rank uses all parameters, or DDP stops with "Expected to have finished reduction"; some
    rows have a list and some have none."""
    rows = [json.loads(line) for line in corpus.train.read_text().splitlines()]
    for row in rows[::2]:
        row["messages"][0]["content"] = "<audio>Transcribe speech to text."
    mixed, output = corpus.root / "mixed.jsonl", corpus.root / "whole"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = sft_arguments(plain_tiny, mixed, output)
    for flag in ("--deepspeed", "--lora_rank"):
        place = arguments.index(flag)
        del arguments[place : place + 2]
    arguments[arguments.index("--train_type") + 1] = "full"
    arguments[arguments.index("--per_device_train_batch_size") + 1] = "1"
    run_swift(*arguments, "--max_steps", "4", "--save_steps", "4", NPROC_PER_NODE="2")
    assert len(losses(output)) == 4
    before, after = (load_file(folder / "model.safetensors") for folder in (plain_tiny, output / "checkpoint-4"))
    assert all(after[name].any() for name in after if "spotter.symbols" in name)
    assert any((after[name] != before[name]).any() for name in before if "language_model" in name)
