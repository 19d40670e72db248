"""ms-swift's ``TransformersEngine`` with adapters: their settings, and which of the named ones a request wants."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from peft import PeftModel

from sap2.model.settings import MODEL_TYPE, recorded_settings, resolve_settings
from sap2.shipped import resolve_name

_BASE = "__base__"


def patch_engine(engine: type) -> None:
    """Extend the engine's methods for our model type. Once is enough."""
    if hasattr(engine._get_model_processor, "__wrapped__"):
        return
    engine._get_model_processor = _with_settings(engine._get_model_processor)
    engine._get_adapter_names = _with_switching(engine._get_adapter_names)


def _with_settings(original: Any) -> Any:
    """Give ``TransformersEngine(model, adapters=[…])`` the settings of its adapters; the commands do so themselves."""

    @functools.wraps(original)
    def get_model_processor(self, model_id_or_path, **kwargs):
        self.adapters = [resolve_name(adapter) for adapter in self.adapters]
        recorded = [adapter for adapter in self.adapters if recorded_settings(adapter)]
        if recorded and "sap_settings" not in kwargs:
            kwargs["sap_settings"] = resolve_settings({}, [*recorded, resolve_name(model_id_or_path)])
            self.model_type = self.model_type or MODEL_TYPE
        return original(self, model_id_or_path, **kwargs)

    return get_model_processor


def _with_switching(original: Any) -> Any:
    """Switch the whole model to the adapter that a batch asks for (ms-swift makes batches of one adapter each).

    The names that ms-swift hands to PEFT instead would have to be one for each row of every layer's input, and the
    rows of the projector and the spotter are audios and not samples.
    """

    @functools.wraps(original)
    def get_adapter_names(self, adapter_request):
        if self.model_meta.model_type != MODEL_TYPE:
            return original(self, adapter_request)
        if not hasattr(self, "sap_unnamed_adapters"):
            self.sap_unnamed_adapters = self.model.active_adapters if isinstance(self.model, PeftModel) else []
        if adapter_request is not None:
            adapter_request = replace(adapter_request, path=resolve_name(adapter_request.path))
        names = original(self, adapter_request)  # loads the adapter when it is first asked for
        if names is not None:
            _use(self.model, self.sap_unnamed_adapters if names == [_BASE] else names)
        return None

    return get_adapter_names


def _use(model: PeftModel, adapters: list[str]) -> None:
    if adapters:
        model.base_model.enable_adapter_layers()
        model.base_model.set_adapter(adapters, inference_mode=True)
    else:
        model.base_model.disable_adapter_layers()
