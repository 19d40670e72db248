"""``swift rlhf`` where the model writes the replies itself: two steps, and the reward moves with the context."""

from __future__ import annotations

import json

import pytest

from sap2.ms_swift.scores import list_of

from .conftest import run_swift

pytestmark = pytest.mark.timeout(900)


def rlhf(rows, output, *flags: str):
    """Two steps on a stage-two adapter; what was logged at each."""
    run_swift(
        *("rlhf", "--model", "sap2-tiny", "--adapters", "sap2-tiny-asr", "--model_type", "sap_qwen2_audio"),
        *("--dataset", str(rows), "--output_dir", str(output), "--add_version", "false", "--max_steps", "2"),
        *("--gradient_accumulation_steps", "1", "--logging_steps", "1"),
        *("--max_completion_length", "48", "--report_to", "none", "--save_steps", "2", "--tuner_type", "lora"),
        *("--temperature", "0.1", "--log_completions", "true", *flags),
    )
    assert (output / "checkpoint-2" / "adapter_model.safetensors").exists()
    lines = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_grpo_and_its_reward_moves_with_the_context(corpus, tmp_path):
    rows = [json.loads(line) for line in corpus.train.read_text().splitlines()]
    rows = [row for row in rows if set(list_of(row)) & set(row["messages"][-1]["content"].split())]
    with_names = tmp_path / "with.jsonl"
    with_names.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        head, _, rest = row["messages"][0]["content"].partition("<|startofcontext|>")
        row["messages"][0]["content"] = (
            f"{head}<|startofcontext|><|endofcontext|>{rest.partition('<|endofcontext|>')[2]}"
        )
    without = tmp_path / "without.jsonl"
    without.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        "--rlhf_type",
        "grpo",
        "--reward_funcs",
        "sap_wer",
        "sap_bwer",
        "--num_generations",
        "2",
        "--per_device_train_batch_size",
        "8",
    ]
    logged = [rlhf(path, tmp_path / path.stem, *flags) for path in (with_names, without)]
    rewards = [[line["rewards/WERReward/mean"] for line in lines] for lines in logged]
    assert len(rewards[0]) == len(rewards[1]) == 2
    assert sum(map(float, rewards[0])) > sum(map(float, rewards[1]))


def test_gkd(corpus, tmp_path):
    teacher = [
        "--teacher_model",
        "sap2-tiny",
        "--teacher_model_type",
        "sap_qwen2_audio",
        "--lmbda",
        "1",
        "--per_device_train_batch_size",
        "2",
    ]
    assert len(rlhf(corpus.train, tmp_path / "gkd", "--rlhf_type", "gkd", *teacher)) == 2


def test_the_best_checkpoint_has_the_lowest_b_wer(corpus, tmp_path):
    """No jieba, no nltk."""
    run_swift(
        *("sft", "--model", "sap2-tiny", "--adapters", "sap2-tiny-asr", "--model_type", "sap_qwen2_audio"),
        *("--dataset", str(corpus.train), "--val_dataset", str(corpus.test), "--output_dir", str(tmp_path / "out")),
        *("--add_version", "false", "--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1"),
        *("--save_steps", "1", "--predict_with_generate", "true", "--max_new_tokens", "48", "--report_to", "none"),
        *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--tuner_type", "lora"),
    )
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    measured = [entry["eval_b_wer"] for entry in state["log_history"] if "eval_b_wer" in entry]
    assert len(measured) == 2
    assert state["best_metric"] == min(measured)
