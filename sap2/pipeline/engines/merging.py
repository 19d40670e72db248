"""An adapter merged into the weights of the language model while they are read; nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_LAYER = re.compile(r"language_model\.(?:model\.)?(layers\.\d+\..+_proj)\.")


def can_merge(folder: str) -> bool:
    """Whether the half of an adapter is LoRA of one scale."""
    return not _config(folder).get("alpha_pattern")


def merge_lora(weights: Iterable[tuple[str, Tensor]], folder: str) -> Iterator[tuple[str, Tensor]]:
    """Add to each weight (out, in) the product of the adapter's two matrices for it.

    Args:
        weights: of a checkpoint, by name.
        folder: the adapter's half for the language model (:func:`sap2.pipeline.adapters.split_adapter`).

    Raises:
        ValueError: the checkpoint lacks a layer that the adapter changes.
    """
    matrices: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(Path(folder) / "adapter_model.safetensors").items():
        matrices.setdefault(_layer(name), {})[name.split(".")[-2]] = tensor.float()
    config = _config(folder)
    for name, tensor in weights:
        found = matrices.pop(_layer(name), None) if name.endswith(".weight") else None
        yield name, tensor if found is None else tensor + _product(found, config).to(tensor.dtype)
    if matrices:
        raise ValueError(f"the model has no layer {sorted(matrices)[0]}, which the adapter {folder} changes")


def _layer(name: str) -> str:
    found = _LAYER.search(name)
    return found[1] if found else ""


def _product(matrices: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    first, second = matrices["lora_A"], matrices["lora_B"]
    rank = len(first)
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    return scale * torch.mm(second, first)


def _config(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
