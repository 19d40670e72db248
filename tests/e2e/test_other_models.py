"""A training of a model that ms-swift knows itself is the same to the byte with the plugin and without."""

from __future__ import annotations

import json

import pytest
import torch

from sap2.tiny.checkpoint import build_processor

from .conftest import run_swift

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    """A text model of a few thousand weights, and rows for it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer = build_processor().tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(vocab_size=384, num_key_value_heads=2, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    turns = [{"role": "user", "content": "say a word"}, {"role": "assistant", "content": "a word"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(8)))
    return folder


def train(folder, output, plugin: str):
    """Two steps in one folder, the same for both runs; its files."""
    run_swift(
        *(
            "sft",
            "--model",
            str(folder),
            "--model_type",
            "qwen2",
            "--template",
            "qwen2_5",
            "--dataset",
            str(folder / "rows.jsonl"),
            "--strict",
        ),
        *("--output_dir", str(output), "--add_version", "false", "--max_steps", "2", "--save_steps", "2"),
        *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--report_to", "none"),
        *("--check_model", "false", "--torch_dtype", "float32", "--logging_steps", "1", "--tuner_type", "lora"),
        SAP2_AUTOLOAD=plugin,
    )
    checkpoint = output / "checkpoint-2"
    logs = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    return {
        "args": (checkpoint / "args.json").read_bytes(),
        "weights": (checkpoint / "adapter_model.safetensors").read_bytes(),
        "losses": [(line["loss"], line["grad_norm"]) for line in logs if "loss" in line],
        "files": sorted(path.name for path in checkpoint.iterdir()),
    }


def test_the_plugin_leaves_no_trace(qwen2, tmp_path):
    without = train(qwen2, tmp_path / "out", "0")
    (tmp_path / "out").rename(tmp_path / "without")
    assert len(without["losses"]) == 2
    assert train(qwen2, tmp_path / "out", "1") == without
