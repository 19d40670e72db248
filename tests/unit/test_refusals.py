"""What ms-swift can do and this model cannot is refused in one line, before anything is loaded."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from swift.arguments import DeployArguments, ExportArguments, InferArguments, RLHFArguments, SftArguments
from swift.utils import parse_args

from sap2.errors import InputError
from sap2.ms_swift import refusals

EVERYTHING_FROZEN = ["--freeze_llm", "true", "--freeze_vit", "true", "--freeze_aligner", "true"]


@pytest.fixture
def parse(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    monkeypatch.setattr(refusals, "_is_installed", lambda module: False)

    def parse(command, *flags):
        argv = [*flags, "--model", str(tiny), "--model_type", "sap_qwen2_audio"]
        if command in (SftArguments, RLHFArguments):
            argv += ["--dataset", "train.jsonl", "--output_dir", "out", "--check_model", "false"]
        return parse_args(command, argv)[0]

    with mock.patch.dict(os.environ):  # --to_mcore makes ms-swift set the variables of torchrun
        yield parse


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (
            SftArguments,
            ["--task_type", "seq_cls", "--num_labels", "2"],
            "--task_type seq_cls: .*; allowed: .* causal_lm",
        ),
        (InferArguments, ["--task_type", "embedding"], "--task_type embedding: .*; allowed: --task_type causal_lm"),
        (
            SftArguments,
            ["--template", "qwen2_audio"],
            "--template qwen2_audio knows no context .*; allowed: --template",
        ),
        (InferArguments, ["--template", "chatml"], "--template chatml knows no context"),
        (SftArguments, EVERYTHING_FROZEN, "--freeze_llm, .* leave nothing to train; allowed: one of them false"),
        (SftArguments, ["--attn_impl", "flash_attention_2"], r"needs the package flash-attn \(pip install .* sdpa$"),
        (InferArguments, ["--quant_method", "bnb", "--quant_bits", "4"], "bnb needs the package bitsandbytes"),
        (SftArguments, ["--use_liger_kernel", "true"], "Liger has no kernels for sap_qwen2_audio; allowed"),
        (SftArguments, ["--packing", "true"], "--packing true: .*; allowed: --packing false"),
        (SftArguments, ["--padding_free", "true"], "--padding_free true: .*; allowed: --padding_free false"),
        (SftArguments, ["--tuner_backend", "unsloth"], "unsloth has no such model; allowed: --tuner_backend peft"),
        (ExportArguments, ["--to_ollama", "true"], "--to_ollama true: Ollama hears no audio .*; allowed: swift deploy"),
        (ExportArguments, ["--to_mcore", "true"], "Megatron-Core has no such model; allowed: --merge_lora true"),
        (ExportArguments, ["--quant_method", "gptq", "--quant_bits", "4"], "calibrated on text alone"),
        (ExportArguments, ["--quant_method", "awq", "--quant_bits", "4"], "calibrated on text alone"),
        (RLHFArguments, ["--rlhf_type", "gkd", "--teacher_model", "x"], "gkd needs the package msgspec; install it"),
        (RLHFArguments, ["--rlhf_type", "rm"], "cannot be a reward model; allowed: --reward_funcs"),
        (RLHFArguments, ["--rlhf_type", "ppo", "--reward_model", "x"], "--rlhf_type ppo .* without the audio; allowed"),
    ],
)
def test_refused_in_one_line(parse, command, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(command, *flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [InferArguments, DeployArguments])
@pytest.mark.parametrize("backend", ["vllm", "sglang", "lmdeploy"])
def test_backends_that_bypass_the_context_are_refused(parse, command, backend):
    more = ", and for vLLM: sap2 pipeline --engine vllm, sap2 serve --engine vllm" if backend == "vllm" else ""
    with pytest.raises(
        InputError, match=rf"--infer_backend {backend} .*; allowed: --infer_backend transformers \(or pt\){more}$"
    ):
        parse(command, "--infer_backend", backend)


@pytest.mark.parametrize("backend", ["pt", "transformers"])
def test_backends_that_work(parse, backend):
    assert parse(InferArguments, "--infer_backend", backend).infer_backend == "transformers"


@pytest.mark.parametrize("flags", [["--torch_dtype", "bfloat16"], ["--bf16", "true"], ["--fp16", "true"]])
def test_half_precision_on_a_cpu(parse, flags, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a GPU; allowed on a CPU: --torch_dtype float32"):
        parse(SftArguments, *flags)
    assert parse(InferArguments, "--torch_dtype", "bfloat16").torch_dtype == torch.bfloat16, "decoding works"


def test_what_is_installed_is_used(parse, monkeypatch):
    monkeypatch.setattr(refusals, "_is_installed", lambda module: module == "flash_attn")
    assert parse(InferArguments, "--attn_impl", "flash_attention_2").attn_impl == "flash_attention_2"


def test_a_part_may_be_named_where_all_is_frozen(parse):
    assert parse(SftArguments, *EVERYTHING_FROZEN, "--target_modules", "linear").target_modules == ["linear"]
    assert parse(SftArguments, *EVERYTHING_FROZEN[2:]).freeze_llm is False


def test_a_read_only_home(parse, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(blocked / "hf"))
    message = r"the cache of datasets, .*file/hf/datasets, cannot be written \(.*\); allowed: HF_HOME="
    with pytest.raises(InputError, match=message):
        parse(SftArguments)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(blocked))
    with pytest.raises(InputError, match=r"the cache of ModelScope, .*; allowed: MODELSCOPE_CACHE="):
        parse(SftArguments)


@pytest.mark.parametrize(("module", "found"), [("json", True), ("no_such_package", False), ("no_such.part", False)])
def test_is_installed(module, found):
    assert refusals._is_installed(module) is found
