"""Where the SAP² settings of a run come from: flag > checkpoint > the model's configuration > default.

A flag that contradicts the checkpoint is an error: a model that was trained with other settings would silently do
worse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sap2.errors import InputError
from sap2.model.configuration import PARTS, SAP_FIELDS, SAP2Qwen2AudioConfig

MODEL_TYPE = SAP2Qwen2AudioConfig.model_type
FLAGS = {
    "sap_window_size": "--sap_window_size",
    "sap_min_positions": "--sap_min_positions",
    "sap_pooling": "--sap_pooling",
    "sap_num_heads": "--num_attention_heads",
    "sap_hidden_size": "--compressor_hidden_size",
    "sap_spotter": "--sap_spotter",
    "sap_retriever": "--sap_retriever",
}


def flag_value(name: str, value: Any) -> Any:
    """The value of a setting; numbers come as text from the command line and the environment.

    Raises:
        InputError: the text is not an integer, or not true or false.
    """
    if name == "sap_pooling" or not isinstance(value, str):
        return value
    if name in PARTS:
        if value.lower() not in {"true", "false"}:
            raise InputError(f"{FLAGS[name]} is {value!r}; allowed: true, false")
        return value.lower() == "true"
    try:
        return int(value)
    except ValueError:
        raise InputError(
            f"{FLAGS[name]} is {value!r}; allowed: an integer from {int(name != 'sap_min_positions')}"
        ) from None


class Recorded(NamedTuple):
    """Settings that a checkpoint was trained with."""

    path: str
    settings: dict[str, Any]


def recorded_settings(folder: str | Path) -> Recorded | None:
    """The settings in a folder's args.json (adapter) or config.json (whole model); None where it has none."""
    for name in ("args.json", "config.json"):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not JSON: {error}") from None
        if content.get("model_type") == MODEL_TYPE:
            settings = {field: content[field] for field in SAP_FIELDS if content.get(field) is not None}
            if "sap_pooling" in settings:  # recorded before there was such a setting
                settings.setdefault("sap_min_positions", 0)
            for part in PARTS:
                if not settings.get(part):
                    settings.pop(part, None)  # it can be had later
            if settings:
                return Recorded(str(folder), settings)
    return None


def resolve_settings(flags: Mapping[str, Any], checkpoints: Sequence[str | Path]) -> dict[str, Any]:
    """The settings that flags and checkpoints give together.

    Args:
        flags: values of the command line; None where a flag was not given.
        checkpoints: folders of adapters and models that the run starts from.

    Raises:
        InputError: two of them contradict each other; the message names both.
    """
    settings = {name: value for name, value in flags.items() if value is not None}
    origin = {name: f"{FLAGS[name]} {value}" for name, value in settings.items()}
    for recorded in filter(None, map(recorded_settings, checkpoints)):
        for name, value in recorded.settings.items():
            if settings.setdefault(name, value) != value:
                raise InputError(
                    f"{origin[name]} contradicts {recorded.path}, which was trained with {FLAGS[name]} {value}; "
                    f"allowed: the value of the checkpoint, or no flag"
                )
            origin.setdefault(name, f"{FLAGS[name]} {value} of {recorded.path}")
    return settings


def apply_settings(config: SAP2Qwen2AudioConfig, settings: Mapping[str, Any]) -> SAP2Qwen2AudioConfig:
    """Put settings into a configuration and check that they fit the model.

    Raises:
        InputError: a value is not allowed.
    """
    if settings.get("sap_spotter") is False and settings.get("sap_pooling", config.sap_pooling) == "salience":
        raise InputError("--sap_spotter false with --sap_pooling salience, which listens through it; allowed: true")
    for name, value in settings.items():
        setattr(config, name, value)
    config.resolve_sap()
    if config.sap_hidden_size is None:
        config.sap_hidden_size = config.text_config.hidden_size
    try:
        config.check_sap()
    except ValueError as error:
        raise InputError(str(error)) from None
    return config
