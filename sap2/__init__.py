"""SAP²: speech-aware context pruning and pooling for contextual speech recognition, as a plugin of ms-swift.

Importing this package is quick: the classes below load transformers and torch when they are first used. It also makes
sure that ms-swift knows the model type ``sap_qwen2_audio`` from the moment it is imported.
"""

from __future__ import annotations

from importlib import import_module

from sap2 import _autoload

__version__ = "0.1.0"

_LAZY = {
    "SAP2Qwen2AudioConfig": "sap2.model.configuration",
    "SAP2Qwen2AudioForConditionalGeneration": "sap2.model.modeling",
    "SAP2Qwen2AudioModel": "sap2.model.inner",
    "SAP2Qwen2AudioProcessor": "sap2.model.processing",
    "SpeechDrivenPooling": "sap2.model.pooling",
    "Request": "sap2.pipeline.types",
    "TimedKeywords": "sap2.slides.sources",
    "Transcriber": "sap2.pipeline.transcriber",
    "Transcript": "sap2.pipeline.types",
    "Word": "sap2.pipeline.types",
}

__all__ = [
    "Request",
    "SAP2Qwen2AudioConfig",
    "SAP2Qwen2AudioForConditionalGeneration",
    "SAP2Qwen2AudioModel",
    "SAP2Qwen2AudioProcessor",
    "SpeechDrivenPooling",
    "TimedKeywords",
    "Transcriber",
    "Transcript",
    "Word",
    "__version__",
]

# typing is not imported: this file runs at the start of every interpreter of the environment
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sap2.model.configuration import SAP2Qwen2AudioConfig
    from sap2.model.inner import SAP2Qwen2AudioModel
    from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
    from sap2.model.pooling import SpeechDrivenPooling
    from sap2.model.processing import SAP2Qwen2AudioProcessor
    from sap2.pipeline.transcriber import Transcriber
    from sap2.pipeline.types import Request, Transcript, Word
    from sap2.slides.sources import TimedKeywords

_autoload.install()


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'sap2' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
