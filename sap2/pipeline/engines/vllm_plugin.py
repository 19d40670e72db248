"""What vLLM must know before it reads one of our checkpoints; imports nothing heavy.

vLLM calls :func:`register` in each of its processes (entry point ``vllm.general_plugins`` of pyproject.toml).
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sap2.errors import debugging, one_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURE = "SAP2LanguageModel"
MERGED = "sap_merged_adapter"
"""Field of the language model's configuration with the folder of the adapter that is merged into its weights."""
DRIVER = "SAP2_VLLM_DRIVER"
"""Environment variable with the number of the process that starts vLLM for itself, while it does."""
REASON = "SAP2_VLLM_REASON"
"""Environment variable with the file into which vLLM's processes write why they do not start."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


def die_with_driver() -> None:
    """End this process when the one that has started it ends, however that happens; only in processes of our engine.

    vLLM's own processes outlive one that is killed, and hold on to the memory of their GPU.
    """
    if _is_ours() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _is_ours() -> bool:
    return os.environ.get(DRIVER, str(os.getpid())) != str(os.getpid())


def lock_bars() -> None:
    """Give tqdm a lock of this process alone; only in processes of our engine.

    vLLM ends its processes without their own end. Of the lock that tqdm makes for several processes a semaphore is left
    then, of which Python warns the user.
    """
    if _is_ours():
        tqdm.set_lock(threading.RLock())


class _KeepReason(logging.Filter):
    """As long as the file is there, writes the first error that is logged into it, in place of a traceback."""

    def __init__(self, path: str):
        super().__init__()
        self._path = Path(path)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if not record.exc_info or record.exc_info[1] is None or not self._path.exists():
            return True
        if not self._path.stat().st_size:
            self._path.write_text(one_line(record.exc_info[1]), encoding="utf-8")
        sys.stderr = io.StringIO()  # the process prints it once more when it ends
        return False


def keep_reason() -> None:
    """Have a process of our engine say why it does not start to the one that waits for it; not with SAP2_DEBUG."""
    path = os.environ.get(REASON)
    if path is not None and not debugging():
        for handler in logging.getLogger("vllm").handlers:
            handler.addFilter(_KeepReason(path))


def register() -> None:
    """Name the class that reads the language model out of a whole checkpoint; on a CPU, mend LoRA."""
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    die_with_driver()
    keep_reason()
    lock_bars()
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__package__}.vllm_model:{ARCHITECTURE}")
    if current_platform.is_cpu():
        from sap2.pipeline.engines.vllm_cpu import install

        install()


def language_model_config(config: PretrainedConfig, merged: str | None = None) -> PretrainedConfig:
    """The configuration of the language model alone; one that has no such part comes back as it is.

    Args:
        merged: folder of the half of an adapter that is merged into the weights.
    """
    text = getattr(config, "text_config", None)
    if text is None:
        return config
    text.architectures = [ARCHITECTURE]
    setattr(text, MERGED, merged)
    return text
