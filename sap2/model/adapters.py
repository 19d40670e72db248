"""The settings of an adapter travel in its ``adapter_config.json``, and a model with other ones refuses it.

PEFT takes an adapter for any model whose layers have the right names and shapes, and the settings change no shape.
"""

from __future__ import annotations

import functools
from typing import Any

from sap2.errors import InputError
from sap2.model.configuration import SAP_FIELDS, SAP2Qwen2AudioConfig

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
    """None was not recorded; an adapter that needs no spotter fits a model that has one."""
    return value is None or settings[name] == value or (name == "sap_spotter" and settings[name])


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
