"""What the chunks of a wav file and the marks of a flac file say of how much sound is in them, and where a second file
begins in a file that was joined of several. Standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Source = str | os.PathLike[str] | io.IOBase
"""A file, or a stream in which any place can be sought."""

_UNKNOWN_SIZES = (0, 0x7FFF0000)  # of a wav: nothing yet, or so much that a pipe must have been written
_PART = 1 << 22  # bytes that are searched at a time: a file that is mapped would count as memory
_SHORTEST_TAIL = 1 << 12  # bytes after the data of a wav that are more than padding


class Riff(NamedTuple):
    """What the chunks of a wav say.

    Attributes:
        claimed: seconds of its data; None if unknown.
        to_the_end: whether its data goes on to the end of the file, whatever it claims.
        parts: first and last byte (excluded) of each wav in a file that was joined of several; else empty.
    """

    claimed: float | None
    to_the_end: bool
    parts: tuple[tuple[int, int], ...] = ()


class Range(io.RawIOBase):
    """The bytes ``start`` to ``end`` of a stream, as a stream of its own."""

    def __init__(self, stream: Any, start: int, end: int) -> None:
        super().__init__()
        self._stream, self._start, self._length = stream, start, end - start
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._stream.seek(self._start + self._place)
        data = self._stream.read(max(0, min(len(view), self._length - self._place)))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file or the stream from its first byte on; only the file is closed."""
    if isinstance(source, io.IOBase):
        source.seek(0)
        yield source
        return
    with Path(source).open("rb") as file:
        yield file


def walk_riff(source: Source) -> Riff | None:
    """What the chunks of a wav say of its data; None where the source is no wav."""
    if isinstance(source, io.IOBase):
        return _walk(source, source.seek(0, io.SEEK_END))
    return _riff_of_file(os.fspath(source), *_stamp(source))


def joined_flac(source: Source) -> bool:
    """Whether a second flac stream follows the first, which libsndfile would stop after."""
    if isinstance(source, io.IOBase):
        return _has_second_flac(source)
    return _joined_flac_file(os.fspath(source), *_stamp(source))


def _stamp(source: str | os.PathLike[str]) -> tuple[int, int]:
    status = Path(source).stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=1 << 12)
def _riff_of_file(path: str, size: int, _mtime: int) -> Riff | None:
    with Path(path).open("rb") as file:
        return _walk(file, size)


@functools.lru_cache(maxsize=1 << 12)
def _joined_flac_file(path: str, _size: int, _mtime: int) -> bool:
    with Path(path).open("rb") as file:
        return _has_second_flac(file)


def _walk(file: Any, size: int) -> Riff | None:
    """All wavs of the file, one after the other."""
    found: list[Riff] = []
    starts = [0]
    while (one := _walk_one(file, starts[-1], size)) is not None:
        riff, end = one
        found.append(riff)
        if end is None:
            break
        starts.append(end)
    if len(found) < 2:
        return found[0] if found else None
    claims = [riff.claimed for riff in found]
    claimed = None if None in claims else sum(claims)
    return Riff(claimed, False, tuple(zip(starts, [*starts[1 : len(found)], size], strict=False)))


def _walk_one(file: Any, start: int, size: int) -> tuple[Riff, int | None] | None:
    """What the wav that begins there says of its data, and where a next one begins; None where none begins."""
    file.seek(start)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    byte_rate, place = 0, start + 12
    while (found := _chunk(file, place)) is not None:
        name, length = found
        if name == b"fmt " and len(form := file.read(16)) == 16:
            byte_rate = struct.unpack("<I", form[8:12])[0]
        if name == b"data":
            break
        place += 8 + length + length % 2
    else:
        return None
    if length <= _UNKNOWN_SIZES[0] or length >= _UNKNOWN_SIZES[1]:
        return Riff(None, size > place + 8), None
    end = place + 8 + length
    following = _after_chunks(file, end + length % 2, size)
    goes_on = following is None and size - end > _SHORTEST_TAIL
    return Riff(length / byte_rate if byte_rate else None, goes_on), None if following == size else following


def _chunk(file: Any, place: int) -> tuple[bytes, int] | None:
    file.seek(place)
    head = file.read(8)
    return (head[:4], struct.unpack("<I", head[4:])[0]) if len(head) == 8 else None


def _after_chunks(file: Any, place: int, size: int) -> int | None:
    """The place where another wav begins after the chunks that follow the sound (notes, markers), or the end of the
    file where they go on to it; None where something else follows."""
    while place + 8 <= size:
        name, length = _chunk(file, place) or (b"", 0)
        if name == b"RIFF":
            return place
        if not all(32 <= byte < 127 for byte in name) or place + 8 + length > size + 1:
            return None
        place += 8 + length + length % 2
    return size


def _has_second_flac(file: Any) -> bool:
    marks = [b"fLaC" + last + b"\0\0\x22" for last in (b"\0", b"\x80")]
    file.seek(4)
    kept = b""
    while part := file.read(_PART):
        data = kept + part
        if any(mark in data for mark in marks):
            return True
        kept = data[1 - len(marks[0]) :]
    return False
