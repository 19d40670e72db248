"""What vLLM must know before it reads one of our checkpoints; imports nothing heavy.

vLLM calls :func:`register` in each of its processes (entry point ``vllm.general_plugins`` of pyproject.toml).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURE = "SAP2LanguageModel"
DRIVER = "SAP2_VLLM_DRIVER"
"""Environment variable with the number of the process that starts vLLM for itself, while it does."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


def die_with_driver() -> None:
    """End this process when the one that has started it ends, however that happens; only in processes of our engine.

    vLLM's own processes outlive one that is killed, and hold on to the memory of their GPU.
    """
    driver = os.environ.get(DRIVER)
    if driver is not None and driver != str(os.getpid()) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def register() -> None:
    """Name the class that reads the language model out of a whole checkpoint; on a CPU, mend LoRA."""
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    die_with_driver()
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
