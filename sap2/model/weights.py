"""What a loaded checkpoint must hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from transformers.core_model_loading import WeightRenaming

from sap2.errors import InputError

POOLING = "context_pooling."
"""In the names of the pooling layer's tensors."""
AROUND = ".spotter.around."
"""And of those of the spotter's middle layer."""
HUB_NAMES = {
    "language_model.model": "model.language_model",
    "language_model.lm_head": "lm_head",
    "audio_tower": "model.audio_tower",
    "multi_modal_projector": "model.multi_modal_projector",
}
"""Beginnings of the names in checkpoints of Qwen2-Audio, and what they are in the model."""


def hub_renamings() -> list[WeightRenaming]:
    """For transformers, which keeps a list of its own for its own class: written for the modules of that class, it
    has changed with them (5.23), and checkpoints have not."""
    return [WeightRenaming(f"^{source}", target) for source, target in HUB_NAMES.items()]


def check_loaded(source: str, names: Collection[str], info: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not fill the model exactly. It may lack the pooling layer as a whole, as a plain
    Qwen2-Audio does, or the spotter's view of neighbouring frames, which came later and adds nothing untrained.

    Args:
        source: for the message.
        names: of the model's tensors.
        info: transformers' loading report.

    Raises:
        InputError: names the tensors.
    """
    missing = set(info.get("missing_keys") or ())
    pooling = {name for name in names if POOLING in name}
    missing -= pooling if pooling <= missing else {name for name in pooling if AROUND in name}
    problems = {
        "missing": missing,
        "unexpected": info.get("unexpected_keys"),
        "of another shape": [key[0] if isinstance(key, tuple) else key for key in info.get("mismatched_keys") or ()],
    }
    found = [
        f"{len(keys)} {problem} ({', '.join(sorted(keys)[:3])}{', …' if len(keys) > 3 else ''})"
        for problem, keys in problems.items()
        if keys
    ]
    if found:
        raise InputError(
            f"the weights in {source} are not those of a Qwen2-Audio model: tensors {'; '.join(found)}; "
            f"allowed: every tensor of the model and no other"
        )
