"""What vLLM must know before it reads one of our checkpoints; imports nothing heavy.

vLLM calls :func:`register` in each of its processes (entry point ``vllm.general_plugins`` of pyproject.toml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURE = "SAP2LanguageModel"


def register() -> None:
    """Name the class that reads the language model out of a whole checkpoint; on a CPU, mend LoRA."""
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__package__}.vllm_model:{ARCHITECTURE}")
    if current_platform.is_cpu():
        from sap2.pipeline.engines.vllm_cpu import install

        install()


def language_model_config(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the language model alone; one that has no such part comes back as it is."""
    text = getattr(config, "text_config", None)
    if text is None:
        return config
    text.architectures = [ARCHITECTURE]
    return text
