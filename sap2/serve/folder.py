"""A private folder for what comes in, empty when the server ends, and cleared by the next one after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sap2.files import naming_errors

PREFIX = "sap2-serve-"
_LOCK = ".lock"


@contextlib.contextmanager
def private_folder(place: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder below ``place`` that only this user may enter, for as long as the block lasts.

    Folders of servers that have ended without clearing theirs are removed first.

    Raises:
        OSError: it cannot be made; names the place.
    """
    clear_left(place)
    with naming_errors(place):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def clear_left(place: str | os.PathLike[str]) -> list[Path]:
    """Remove folders of ours that no living server holds; returns them."""
    removed = []
    for folder in Path(place).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.getuid() or _is_held(folder):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
