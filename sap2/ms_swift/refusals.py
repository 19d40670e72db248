"""What ms-swift can do and this model cannot: each refused in one line before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch

from sap2.caches import unwritable
from sap2.errors import InputError
from sap2.model.settings import MODEL_TYPE

BACKEND = "transformers"
PACKAGES = {
    "flash_attn": "flash-attn",
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
    "bnb": "bitsandbytes",
    "hqq": "hqq",
    "eetq": "eetq",
    "quanto": "optimum-quanto",
}
"""Values of --attn_impl and --quant_method, and the package that each needs."""
_MODULES = {"flash-attn": "flash_attn", "flash-attn-3": "flash_attn_interface", "flash-attn-4": "flash_attn.cute"}

OF_VLLM = "sap2 pipeline --engine vllm, sap2 serve --engine vllm"
"""The commands that hand vLLM what the model has embedded, context included."""


def check_supported(args: Any) -> None:
    """Refuse what would load for minutes and then fail, or work on something else than speech and context.

    Raises:
        InputError: names the flag, the reason and what is allowed.
    """
    for checks in (_check_task, _check_decoding, _check_export, _check_training, _check_packages, _check_caches):
        for message in checks(args):
            raise InputError(message)


def _check_task(args: Any) -> Iterator[str]:
    rlhf_type = getattr(args, "rlhf_type", None)
    if rlhf_type == "rm" or MODEL_TYPE in (getattr(args, "reward_model_type", None) or []):
        yield f"{MODEL_TYPE} writes text and cannot be a reward model; allowed: --reward_funcs, or another reward model"
    if rlhf_type == "ppo":
        yield "--rlhf_type ppo has its replies written and judged without the audio; allowed: grpo, gkd, dpo, kto, …"
    if getattr(args, "task_type", None) not in {None, "causal_lm"}:
        yield f"--task_type {args.task_type}: {MODEL_TYPE} writes text; allowed: --task_type causal_lm"
    if getattr(args, "template", None) not in {None, MODEL_TYPE}:
        yield (
            f"--template {args.template} knows no context and no lengths of speech; "
            f"allowed: --template {MODEL_TYPE}, or no flag"
        )


def _check_decoding(args: Any) -> Iterator[str]:
    backend = getattr(args, "infer_backend", None) or BACKEND
    if backend not in {BACKEND, "pt"}:
        other = f", and for vLLM: {OF_VLLM}" if backend == "vllm" else ""
        yield (
            f"--infer_backend {backend} would decode without the context: {MODEL_TYPE} needs its own model code; "
            f"allowed: --infer_backend {BACKEND} (or pt){other}"
        )
    if getattr(args, "use_vllm", None):
        yield f"--use_vllm true would decode without the context of {MODEL_TYPE}; allowed: --use_vllm false"
    if getattr(args, "tuner_backend", None) == "unsloth":
        yield "--tuner_backend unsloth has no such model; allowed: --tuner_backend peft"
    if args.strict is False and getattr(args, "stream", False) and not getattr(args, "eval_human", True):
        yield "--strict false skips no row while it streams; allowed: --stream false, or --strict true"
    if getattr(args, "truncation_strategy", None) == "split":
        yield "--truncation_strategy split would part a row from its audio; allowed: delete, left, right, raise"


def _check_export(args: Any) -> Iterator[str]:
    if getattr(args, "to_ollama", False):
        yield "--to_ollama true: Ollama hears no audio and reads no context; allowed: swift deploy, which serves both"
    if getattr(args, "to_mcore", False) or getattr(args, "to_hf", False):
        yield "--to_mcore, --to_hf: Megatron-Core has no such model; allowed: --merge_lora true"
    if getattr(args, "quant_method", None) in {"gptq", "gptq_v2", "awq"}:
        yield (
            f"--quant_method {args.quant_method} is calibrated on text alone, without speech and context; "
            f"allowed: --quant_method bnb"
        )


def _check_training(args: Any) -> Iterator[str]:
    if not hasattr(args, "output_dir") or not hasattr(args, "gradient_accumulation_steps"):
        return
    precision = next((name for name in ("bf16", "fp16") if getattr(args, name, None)), None)
    if precision and not torch.accelerator.is_available() and not getattr(args, "use_cpu", False):
        yield f"--{precision} true (from --torch_dtype) needs a GPU; allowed on a CPU: --torch_dtype float32"
    frozen = [name for name in ("freeze_llm", "freeze_vit", "freeze_aligner") if getattr(args, name, False)]
    everywhere = getattr(args, "target_modules", None) in (None, ["all-linear"], "all-linear")
    if len(frozen) == 3 and everywhere and args.tuner_type != "full" and not getattr(args, "target_regex", None):
        yield (
            "--freeze_llm, --freeze_vit and --freeze_aligner true leave nothing to train; "
            "allowed: one of them false (the paper's: --freeze_llm false --freeze_aligner false)"
        )
    for name in ("packing", "padding_free"):
        if getattr(args, name, False):
            yield f"--{name} true: rows of speech and context cannot share a sequence; allowed: --{name} false"
    if getattr(args, "use_liger_kernel", False):
        yield f"--use_liger_kernel true: Liger has no kernels for {MODEL_TYPE}; allowed: --use_liger_kernel false"


def _check_packages(args: Any) -> Iterator[str]:
    for name in ("attn_impl", "quant_method"):
        value = getattr(args, name, None)
        package = PACKAGES.get(value)
        if package and not _is_installed(_MODULES.get(package, package.replace("-", "."))):
            instead = "--attn_impl sdpa" if name == "attn_impl" else f"no --{name}"
            yield f"--{name} {value} needs the package {package} (pip install {package}) and a GPU; or: {instead}"

    if getattr(args, "rlhf_type", None) in {"grpo", "gkd"} and not _is_installed("msgspec"):
        yield f"--rlhf_type {args.rlhf_type} needs the package msgspec; install it: pip install msgspec"


def _check_caches(args: Any) -> Iterator[str]:
    if getattr(args, "dataset", None) or getattr(args, "val_dataset", None):
        for cache, reason in unwritable():
            yield (
                f"the cache of {cache.user}, {cache.folder}, cannot be written ({reason}); "
                f"allowed: {cache.variable}=<a folder that can> in the environment"
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
