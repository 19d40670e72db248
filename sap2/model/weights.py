"""What a loaded checkpoint must hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.core_model_loading import WeightRenaming

from sap2.errors import InputError
from sap2.model.configuration import SAP2Qwen2AudioConfig

NAMES = {"sap_spotter": "context_pooling.", "sap_retriever": ".retriever."}
"""In the names of the tensors of each part that a model may have or not."""
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


def tensors_of(part: str, names: Iterable[str]) -> set[str]:
    """The names of a part's tensors."""
    return {name for name in names if NAMES[part] in name}


def lacking(names: Collection[str], missing: Collection[str]) -> set[str]:
    """The parts of a model of which a checkpoint has nothing, as a plain Qwen2-Audio: that is no fault."""
    return {part for part in NAMES if tensors_of(part, names) and tensors_of(part, names) <= set(missing)}


def may_lack(names: Collection[str], missing: Collection[str]) -> set[str]:
    """Missing tensors that may be missing: all of a part, or the spotter's view of neighbouring frames, which came
    later and adds nothing untrained."""
    around = {name for name in names if AROUND in name and name in missing}
    return around.union(*(tensors_of(part, names) for part in lacking(names, missing)))


def claimed_parts(source: str | None, **kwargs: Any) -> set[str]:
    """The parts that a checkpoint says it has: it may not lack them then.

    ``kwargs``: those of ``from_pretrained``.
    """
    if source is None:
        return set()
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config, _ = PreTrainedConfig.get_config_dict(source, **hub)
    if config.get("model_type") != SAP2Qwen2AudioConfig.model_type:
        return set()
    always = {"sap_spotter"} if config.get("sap_pooling") == "salience" else set()
    return {part for part in NAMES if config.get(part)} | always


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
