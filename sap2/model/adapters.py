"""The settings of an adapter travel in its ``adapter_config.json``, and a model with other ones refuses it.

PEFT takes an adapter for any model whose layers have the right names and shapes, and the settings change no shape.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from sap2.errors import InputError
from sap2.model.configuration import PARTS, SAP_FIELDS, SAP2Qwen2AudioConfig

LAYERS = {
    "sap_spotter": [f"context_pooling.spotter.{layer}" for layer in ("hidden", "around", "symbols")],
    "sap_retriever": [f"retriever.{layer}" for layer in ("terms", "query", "key", "value", "output", "presence")],
}
"""The layers of each part, which an adapter carries whole. One by one: PEFT mixes several adapters in a batch where
each trained module is a single layer."""
KEY = "sap2"
"""Of our part in ``auto_mapping``, the field of PEFT's configuration that may hold anything."""


@functools.cache
def watch_adapters() -> None:
    """Record the settings in adapters that PEFT makes for our models, and check those that it loads.

    Adapters made before hold none, and pass. Nothing changes for other models.
    """
    try:
        from peft.config import PeftConfigMixin
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError:
        return
    inject, save = BaseTuner.inject_adapter, PeftConfigMixin.save_pretrained

    @functools.wraps(inject)
    def checked_inject(self, model, adapter_name, *args, **kwargs):
        if isinstance(getattr(model, "config", None), SAP2Qwen2AudioConfig):
            check_adapter(self.peft_config[adapter_name], model.config)
        return inject(self, model, adapter_name, *args, **kwargs)

    @functools.wraps(save)
    def whole_save(self, save_directory, *args, **kwargs):
        given = kwargs.get("auto_mapping_dict")
        if given is not None and KEY in (self.auto_mapping or {}):
            kwargs["auto_mapping_dict"] = {**given, KEY: self.auto_mapping[KEY]}
        return save(self, save_directory, *args, **kwargs)

    BaseTuner.inject_adapter, PeftConfigMixin.save_pretrained = checked_inject, whole_save


def check_adapter(adapter: Any, config: SAP2Qwen2AudioConfig) -> None:
    """Compare the settings that an adapter's configuration records with the model's; a new adapter gets them.

    Raises:
        InputError: they differ; the message names the setting and both values.
    """
    settings = {name: getattr(config, name) for name in SAP_FIELDS}
    settings["sap_hidden_size"] = settings["sap_hidden_size"] or config.text_config.hidden_size  # None: its width
    recorded = (adapter.auto_mapping or {}).get(KEY)
    if recorded is None:
        if not adapter.inference_mode:
            adapter.auto_mapping = {**(adapter.auto_mapping or {}), KEY: settings}
        return
    other = {name: value for name, value in recorded.items() if name in settings and not _fits(name, value, settings)}
    if other:
        raise InputError(
            f"the adapter was trained with {_listed(other)}, and the model has "
            f"{_listed({name: settings[name] for name in other})}; allowed: a model with the adapter's settings "
            f"(from_pretrained takes them by these names)"
        )


def _fits(name: str, value: Any, settings: dict[str, Any]) -> bool:
    """None was not recorded; an adapter that needs no spotter and no retriever fits a model that has them."""
    return value is None or settings[name] == value or (name in PARTS and settings[name])


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))


def carry_part(model: Any, part: str) -> None:
    """Let an adapter that is trained further carry a part of the model that it did not have; nothing where it has it.

    Args:
        model: PEFT's, with its adapter loaded.
        part: of :data:`sap2.model.configuration.PARTS`.
    """
    from peft.utils.other import set_additional_trainable_modules

    name = model.active_adapter
    adapter = model.peft_config[name]
    known = list(adapter.modules_to_save or [])
    layers = [layer for layer in LAYERS[part] if layer not in known]
    if not layers:
        return
    added = dataclasses.replace(adapter, modules_to_save=layers)
    set_additional_trainable_modules(model, added, model.get_base_model().config, name)
    adapter.modules_to_save = [*known, *layers]
    mapping = adapter.auto_mapping or {}
    adapter.auto_mapping = {**mapping, KEY: {**mapping.get(KEY, {}), part: True}}
