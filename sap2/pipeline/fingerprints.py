"""What a result was made from, as a short text: the same if and only if a new run would be asked the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sap2.pipeline.items import Item
from sap2.rows import Row, is_url, row_audios
from sap2.shipped import resolve_name

_LENGTH = 16
_WEIGHTS = ("*.safetensors", "*.bin")
_BLOCK, _BLOCKS = 1 << 20, 64
"""Bytes of a block, and how many of them of a larger file of weights are read."""


def row_fingerprint(item: Item) -> str:
    """Of a row's question, keywords, reference and audio file (its size and its time of change; not its name).

    Of an audio behind an address (``s3://…``) the address counts: to ask for more would be a request for each row.
    """
    question = [item.content, item.system, item.keywords, item.labels, item.prune_labels]
    return _digest([*question, _file_state(item.audio)])


def is_made_from(result: Row, item: Item) -> bool:
    """Whether a result was made from this row as it is now.

    A result without a fingerprint (of a version before it was there) is compared by the question, the keywords and
    the audio's name, which it has; that its audio file is the same is taken for granted.
    """
    if "fingerprint" in result:
        return result["fingerprint"] == row_fingerprint(item)
    asked = [message["content"] for message in result["messages"] if message["role"] == "user"]
    return asked == [item.content] and result.get("keywords") == item.keywords and row_audios(result) == [item.audio]


def weights_fingerprint(folder: str | None) -> str | None:
    """Of the files of weights in a folder; None where there are none (a name of the hub, no adapter).

    Large files are read in part: a training changes every tensor.
    """
    if folder is None or not Path(resolve_name(folder)).is_dir():
        return None
    folder = resolve_name(folder)
    files = sorted(path for pattern in _WEIGHTS for path in Path(folder).glob(pattern))
    return _digest([[path.name, path.stat().st_size, _sample(path)] for path in files]) if files else None


def _sample(path: Path) -> str:
    size, digest = path.stat().st_size, hashlib.sha256()
    step = max(_BLOCK, size // _BLOCKS)
    with path.open("rb") as stream:
        for start in range(0, size, step):
            stream.seek(start)
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def _file_state(path: str) -> list[int] | str | None:
    if is_url(path):
        return path
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return [state.st_size, int(state.st_mtime)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:_LENGTH]
