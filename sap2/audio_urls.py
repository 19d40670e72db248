"""Audio behind an address (``s3://…``, ``gs://…``, ``https://…``, any protocol of fsspec), copied when it is needed.

The readers of :mod:`sap2.audio` take files and streams only and open no address. Whoever reads the rows of the person
who started the command (the pipeline, the data tools, the template in training) resolves their addresses here; what
strangers send to a server never comes here.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from fsspec.core import url_to_fs

from sap2.audio import archive_entry, audio_exists, load_samples, probe_seconds
from sap2.audio_blocks import UnreadableError, read_header
from sap2.audio_parts import Source, walk_riff
from sap2.audio_samples import temporary_folder
from sap2.errors import InputError, one_line
from sap2.files import naming_errors
from sap2.rows import is_url

_ARCHIVE = re.compile(r"(.+\.ark):(\d+)", re.I | re.S)
_HEAD = 1 << 16  # bytes that hold the header of a wav or flac
_IN_MEMORY = 1 << 24  # bytes; larger audio is copied to a temporary file
_PART = 1 << 22
MAX_BYTES = 8 << 30
"""Largest audio that is copied: a mistyped address must not fill the disk."""


@contextlib.contextmanager
def opened_audio(name: str | os.PathLike[str]) -> Iterator[Source]:
    """The audio as the readers of :mod:`sap2.audio` take it: a path as it is, of an address a copy.

    A copy is in memory, or in a temporary file without a name, and is gone with the block or the process. The address
    may name an entry of a Kaldi archive (``s3://bucket/wav.ark:1234``), of which nothing else is fetched.

    Raises:
        InputError: the address cannot be read; names it.
        OSError: there is no room for the copy; names the folder.
    """
    if not is_url(name):
        yield name
        return
    with contextlib.closing(_copy(str(name))) as copy:
        yield copy


def is_there(name: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; an address is taken for granted until it is read."""
    return is_url(name) or audio_exists(name)


def kept_audio(name: str | os.PathLike[str]) -> Source:
    """As :func:`opened_audio`, for callers that read one recording many times: the copy of the last address is kept.

    Raises:
        InputError, OSError: as there.
    """
    return _last_copy(str(name)) if is_url(name) else name


@functools.lru_cache(maxsize=1)
def _last_copy(url: str) -> io.IOBase:
    return _copy(url)


def load_audio(name: str, sampling_rate: int) -> Any:
    """As :func:`sap2.audio.load_samples`, of a path or an address.

    Raises:
        InputError: as there, or the address cannot be read.
    """
    with opened_audio(name) as source:
        return load_samples(source, sampling_rate, name=name)


def about_seconds(name: str) -> float:
    """Length by the header, of a path or an address; of a wav or flac behind an address only the beginning is fetched.

    Raises:
        InputError: the audio cannot be read.
    """
    if is_url(name) and not _ARCHIVE.fullmatch(name):
        head = io.BytesIO(_fetch(name, _HEAD))
        if len(head.getbuffer()) == _HEAD and (seconds := _claimed(head)) is not None:
            return seconds
    with opened_audio(name) as source:
        return probe_seconds(source, name)


def _claimed(head: io.BytesIO) -> float | None:
    """What the first bytes of a wav or flac say of its length."""
    riff = walk_riff(head)
    if riff is not None:
        return riff.claimed
    if not head.getvalue().startswith(b"fLaC"):
        return None
    try:
        return read_header(head).seconds
    except UnreadableError:
        return None


def _copy(url: str) -> io.IOBase:
    entry = _ARCHIVE.fullmatch(url)
    if entry is not None:
        with _naming(url):
            filesystem, path = url_to_fs(entry[1])
            with filesystem.open(path, "rb") as archive:
                return io.BytesIO(archive_entry(entry[1], int(entry[2]), archive).getvalue())
    content = _fetch(url, _IN_MEMORY)
    if not content:
        raise InputError(f"audio {url} is empty (0 bytes)")
    return io.BytesIO(content) if len(content) < _IN_MEMORY else _copy_to_file(url)


def _copy_to_file(url: str) -> io.IOBase:
    folder, size = temporary_folder(), 0
    with naming_errors(folder):
        file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    try:
        with _naming(url):
            filesystem, path = url_to_fs(url)
            with filesystem.open(path, "rb") as remote:
                while part := remote.read(_PART):
                    size += len(part)
                    if size > MAX_BYTES:
                        raise InputError(f"audio {url} has more than {MAX_BYTES >> 30} GiB, which is not copied")
                    with naming_errors(folder):
                        file.write(part)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _fetch(url: str, count: int) -> bytes:
    """The first bytes."""
    with _naming(url):
        filesystem, path = url_to_fs(url)
        return filesystem.cat_file(path, start=0, end=count)[:count]


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Errors of fsspec and of the libraries below it as one line that names the address."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # each protocol has errors of its own
        if isinstance(error, OSError) and error.filename == temporary_folder():
            raise
        missing = isinstance(error, FileNotFoundError)
        reason = "there is none" if missing else f"{one_line(error):.200}"
        raise InputError(f"audio {url} cannot be fetched ({reason}); allowed: an address that fsspec reads") from None
