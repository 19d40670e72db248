"""An adapter in two halves: one for the language model, which vLLM holds, and one for what hears and pools."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, load_peft_weights
from safetensors.torch import save_file
from torch import Tensor

from sap2.errors import InputError

_OF_LANGUAGE_MODEL = re.compile(r"\.(language_model|lm_head)\.")
_LORA_OF_LAYER = re.compile(r"\.language_model\.layers\.\d+\..+_proj\.lora_[AB]\.weight$")
_BEYOND_LORA = ("use_dora", "lora_bias", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora")
_FORMAT = "1"
"""Goes into the hash: changes when the halves are cut in another way."""


class AdapterHalves(NamedTuple):
    """Folders of the two halves of an adapter.

    Attributes:
        hearing: for audio tower, projector and pooling; None where the adapter leaves them as they are.
        language: for the language model, LoRA only; None likewise.
        rank: of the largest LoRA matrices of the language model; 0 without any.
    """

    hearing: str | None
    language: str | None
    rank: int


def shared_adapter(folders: Mapping[str, str | None], stages: Iterable[str]) -> str | None:
    """The adapter that all stages have; None where they have different ones, or one has none.

    Args:
        folders: of the adapters of stages.
    """
    found = {folders.get(stage) for stage in stages}
    return found.pop() if len(found) == 1 else None


def cache_folder() -> Path:
    """Where the halves are kept: ``$XDG_CACHE_HOME/sap2/adapters``, by default ``~/.cache/sap2/adapters``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sap2" / "adapters"


def split_adapter(folder: str) -> AdapterHalves:
    """Cut the adapter in two, or find the halves that an earlier run left in the cache.

    The cache knows an adapter by the hash of its files, so that one that was trained further is cut anew.

    Raises:
        InputError: the adapter changes the language model otherwise than by LoRA on its layers.
    """
    config = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))
    target = cache_folder() / _hash(Path(folder))
    if not target.exists():
        weights = load_peft_weights(folder, device="cpu")
        language = {name: tensor for name, tensor in weights.items() if _OF_LANGUAGE_MODEL.search(name)}
        _check_language(folder, config, language)
        hearing = {name: tensor for name, tensor in weights.items() if name not in language}
        _write_halves(target, config, hearing, language)
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    found = {name: str(target / name) if (target / name).exists() else None for name in ("hearing", "language")}
    return AdapterHalves(**found, rank=max(ranks) if found["language"] else 0)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256(_FORMAT.encode())
    for path in sorted(folder.glob("adapter_*")):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def _check_language(folder: str, config: dict[str, Any], language: dict[str, Tensor]) -> None:
    strange = sorted(name for name in language if not _LORA_OF_LAYER.search(name))
    reason = f"changes {strange[0]}" if strange else None
    if reason is None and language:
        reason = next((f"has {name}" for name in _BEYOND_LORA if config.get(name)), None)
    if reason is not None:
        raise InputError(
            f"adapter {folder} {reason}, which --engine vllm cannot apply; allowed: LoRA on the layers of the language "
            f"model, --engine transformers, or a merged model (swift export --merge_lora true)"
        )


def _write_halves(
    target: Path, config: dict[str, Any], hearing: dict[str, Tensor], language: dict[str, Tensor]
) -> None:
    """Write both under the final name at once; where another process was quicker, its halves stay."""
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        for name, tensors, saved_whole in (
            ("hearing", hearing, config.get("modules_to_save")),
            ("language", language, None),
        ):
            if tensors:
                half = workplace / name
                half.mkdir()
                save_file(tensors, half / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
                content = json.dumps({**config, "modules_to_save": saved_whole}, indent=2)
                (half / CONFIG_NAME).write_text(content, encoding="utf-8")
        workplace.chmod(0o755)
        if not target.exists():
            workplace.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
