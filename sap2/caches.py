"""The folders that the libraries below keep files in. Standard library only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple


class Cache(NamedTuple):
    """A folder, the variable that names another one, and who writes there."""

    folder: Path
    variable: str
    user: str


def caches() -> list[Cache]:
    """Where this process would write, by the rules of the libraries."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hugging_face = Path(os.environ.get("HF_HOME") or home / "huggingface").expanduser()
    datasets = Path(os.environ.get("HF_DATASETS_CACHE") or hugging_face / "datasets").expanduser()
    modelscope = Path(os.environ.get("MODELSCOPE_CACHE") or Path("~/.cache/modelscope")).expanduser()
    return [
        Cache(datasets, "HF_HOME" if "HF_DATASETS_CACHE" not in os.environ else "HF_DATASETS_CACHE", "datasets"),
        Cache(modelscope, "MODELSCOPE_CACHE", "ModelScope"),
    ]


def unwritable() -> list[tuple[Cache, str]]:
    """The caches that cannot be written, as in a home that is read-only, each with the reason."""
    found = []
    for cache in caches():
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache.folder):
                pass
        except OSError as error:
            found.append((cache, error.strerror or str(error)))
    return found
