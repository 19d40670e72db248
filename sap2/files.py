"""Where results go: files and folders that appear whole or not at all, standard output, devices and pipes.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sap2.errors import InputError

STDOUT = "-"
"""The name of an output that means standard output."""
_DESCRIPTOR = re.compile(r"(?:/dev/(?=std|fd)|/proc/self/(?=fd))(stdout|stderr|fd/\d+)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""Errors of writing itself, which the system tells without the file's name."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open an output. A file takes its name only when the block ends well; on an error or a kill none is half-made.

    ``-`` is standard output. A symbolic link stays one, and its target is written. What is no plain file (a device, a
    pipe) is written as it goes. Parent folders are made. Text is UTF-8 with ``\\n`` line ends.

    Raises:
        InputError: the path is a folder.
        OSError: it cannot be written; names it.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    descriptor = _descriptor(path)
    with naming_errors(path):
        if os.fspath(path) == STDOUT:
            sys.stdout.flush()  # what was printed before comes first, whatever is written to the bytes below
            yield sys.stdout.buffer if "b" in mode else sys.stdout
            sys.stdout.flush()
        elif descriptor is not None:
            sys.stdout.flush()
            with os.fdopen(os.dup(descriptor), mode, **text) as stream:
                yield stream
        elif _is_special(path):
            with Path(path).open(mode, **text) as stream:
                yield stream
        else:
            with _replacing(path, mode, text) as stream:
                yield stream


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str], mode: str, text: dict[str, Any]) -> Iterator[IO[Any]]:
    """A temporary file beside the target, which takes its name in the end and is removed on any error."""
    target = Path(os.path.realpath(path))
    _refuse_folder(path, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(descriptor, mode, **text) as stream:
            yield stream
        Path(name).chmod(_permissions(target))
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse an output that :func:`atomic_write` could not write, before any work is done for it.

    Raises:
        InputError: the path is a folder.
        OSError: there is no permission to write it, or the place for it is no folder; names it.
    """
    if os.fspath(path) == STDOUT or _descriptor(path) is not None:
        return
    if _is_special(path):
        place = Path(path)
    else:
        target = Path(os.path.realpath(path))
        _refuse_folder(path, target)
        place = next(folder for folder in target.parents if folder.exists())
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, f"{place} is no folder", os.fspath(path))
    if not os.access(place, os.W_OK):
        raise OSError(errno.EACCES, f"no permission to write in {place}", os.fspath(path))


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether an output goes where the process prints: ``-``, ``/dev/stdout``, the terminal's own name."""
    if os.fspath(path) == STDOUT or _descriptor(path) == 1:
        return True
    try:
        return _is_special(path) and os.path.samestat(Path(path).stat(), os.fstat(1))
    except OSError:
        return False


def has_own_name(path: str | os.PathLike[str]) -> bool:
    """Whether an output is a file whose name, and so its suffix, is the user's choice; not a pipe or a device."""
    return not (os.fspath(path) == STDOUT or _descriptor(path) is not None or _is_special(path))


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """The open file of this process that a name like ``/dev/stdout`` or ``/dev/fd/63`` stands for.

    It is written where it stands: opened by its name, a file that a shell appends to would be emptied.
    """
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        return None
    named = {"stdout": 1, "stderr": 2}
    return named[match[1]] if match[1] in named else int(match[1].rpartition("/")[2])


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that is neither a plain file nor a folder."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _refuse_folder(path: str | os.PathLike[str], target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{path} is a folder; allowed: the name of a file")


def _permissions(target: Path) -> int:
    """Those of the file that is replaced; of a new one, what the umask leaves, as for any other file."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def naming_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give the name of the output to an error of writing that has none: a full disk, say."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


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
