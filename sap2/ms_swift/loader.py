"""Loads configuration, processor and model for ms-swift."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from swift.model import ModelLoader

from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.settings import FLAGS, apply_settings, flag_value

if TYPE_CHECKING:
    from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
    from sap2.model.processing import SAP2Qwen2AudioProcessor


class SAP2ModelLoader(ModelLoader):
    """Loader of ``sap_qwen2_audio``.

    Args:
        sap_settings: values for the fields of :class:`SAP2Qwen2AudioConfig`; what is not named stays as the
            checkpoint has it.
    """

    default_trust_remote_code = False

    def __init__(self, *args: Any, sap_settings: dict[str, Any] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.sap_settings = sap_settings

    def get_config(self, model_dir: str) -> SAP2Qwen2AudioConfig:
        config = SAP2Qwen2AudioConfig.from_pretrained(model_dir)
        settings = environment_settings() if self.sap_settings is None else self.sap_settings
        return apply_settings(config, settings)

    def get_processor(self, model_dir: str, config: SAP2Qwen2AudioConfig) -> SAP2Qwen2AudioProcessor:
        from sap2.model.processing import SAP2Qwen2AudioProcessor

        processor = SAP2Qwen2AudioProcessor.from_pretrained(
            model_dir,
            sap_window_size=config.sap_window_size,
            sap_min_positions=config.sap_min_positions,
            sap_pooling=config.sap_pooling,
            sap_truncate_audio=config.sap_truncate_audio,
            embedding_rows=config.text_config.vocab_size,
        )
        config.sap_context_token_id = processor.context_token_id
        return processor

    def get_model(self, *args: Any, **kwargs: Any) -> SAP2Qwen2AudioForConditionalGeneration:
        from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration

        self.auto_model_cls = self.auto_model_cls or SAP2Qwen2AudioForConditionalGeneration
        return super().get_model(*args, **kwargs)


def environment_settings() -> dict[str, Any]:
    """SAP² settings from the environment: ``--model_kwargs '{"sap_window_size": 4}'`` of ms-swift sets
    ``SAP_WINDOW_SIZE``."""
    return {name: flag_value(name, os.environ[name.upper()]) for name in FLAGS if os.environ.get(name.upper())}
