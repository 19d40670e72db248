"""What a loaded checkpoint must hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.core_model_loading import WeightRenaming

from sap2.errors import InputError
from sap2.model.configuration import SAP2Qwen2AudioConfig

POOLING = "context_pooling."
"""In the names of the spotter's tensors."""
AROUND = ".spotter.around."
"""And of those of the spotter's middle layer."""
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "subfolder")
"""Those of ``from_pretrained`` that say where a checkpoint is."""
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


def lacking(names: Iterable[str], missing: Collection[str]) -> set[str]:
    """Missing tensors of the spotter that may be missing: all of them, as in a plain Qwen2-Audio, or the view of
    neighbouring frames, which came later and adds nothing untrained."""
    spotter = {name for name in names if POOLING in name}
    return spotter if spotter <= set(missing) else {name for name in spotter if AROUND in name and name in missing}


def is_spotter_lost(source: str | None, **kwargs: Any) -> bool:
    """Whether a checkpoint says that it has a spotter: it may not lack it then.

    ``kwargs``: those of ``from_pretrained``.
    """
    if source is None:
        return False
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config, _ = PreTrainedConfig.get_config_dict(source, **hub)
    has_one = config.get("sap_spotter") or config.get("sap_pooling") == "salience"
    return bool(has_one) and config.get("model_type") == SAP2Qwen2AudioConfig.model_type


def check_loaded(source: str, info: Mapping[str, Any], missing_too: Collection[str] = ()) -> None:
    """Refuse a checkpoint that does not fill the model exactly.

    Args:
        source: for the message.
        info: transformers' loading report.
        missing_too: tensors that are missing and not in the report.

    Raises:
        InputError: names the tensors.
    """
    missing = {*(info.get("missing_keys") or ()), *missing_too}
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
