"""Output files and folders that appear whole or not at all. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sap2.errors import InputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends well; on an error or a kill nothing is left at ``path``.

    Parent folders are made. Text is UTF-8 with ``\\n`` line ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with tempfile.NamedTemporaryFile(mode, dir=path.parent, prefix=f".{path.name}.", delete=False, **text) as stream:
        try:
            yield stream
        except BaseException:
            Path(stream.name).unlink()
            raise
    # NamedTemporaryFile is private to its owner; an output follows the umask like any other file
    umask = os.umask(0)
    os.umask(umask)
    Path(stream.name).chmod(0o666 & ~umask)
    Path(stream.name).replace(path)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that takes the name ``path`` when the block ends well.

    On an error nothing is left. What a killed process leaves, the next call with this ``path`` removes.

    Args:
        path: the folder to make. An empty one may exist.
        marker: a file that every folder of this kind holds, by its name; a folder without it is never overwritten,
            so that a mistyped path cannot wipe somebody's data.
        overwrite: replace an existing folder that holds ``marker``.

    Raises:
        InputError: ``path`` is a file, the current folder, or holds something and may not be replaced.
    """
    path = Path(path)
    _check_target(path, marker, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    _remove_abandoned(path.parent, prefix)
    workplace = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        with _lock(workplace):
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
        raise InputError(f"{path} is a file; give a folder that is new or empty")
    if path.resolve() == Path.cwd():
        raise InputError(f"{path} is the current folder, which cannot be replaced; give another one")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{path} is not empty; give a new folder, or --overwrite to replace it")
    if not (path / marker).exists():
        raise InputError(f"{path} holds no {marker}, so it was not made by this command and is not overwritten")


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the temporary folders that no living process holds."""
    for folder in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
        with contextlib.suppress(OSError), _lock(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` until the block or the process ends; BlockingIOError where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
