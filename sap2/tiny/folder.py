"""Output folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that takes the name ``path`` when the block ends well.

    Args:
        path: the folder to make. An empty one may exist.
        marker: a file that every folder of this kind holds, by its name; a folder without it is never overwritten,
            so that a mistyped path cannot wipe somebody's data.
        overwrite: replace an existing folder that holds ``marker``.

    Raises:
        ValueError: ``path`` is a file, or holds something and may not be replaced.
    """
    path = Path(path)
    _check_target(path, marker, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        made = workplace / "new"  # unlike mkdtemp's, its permissions follow the umask
        made.mkdir()
        yield made
        if path.exists():
            path.rename(workplace / "old")
        made.rename(path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _check_target(path: Path, marker: str, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give a folder that is new or empty")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{path} is not empty; give a new folder, or --overwrite to replace it")
    if not (path / marker).exists():
        raise ValueError(f"{path} holds no {marker}, so it was not made by this command and is not overwritten")
