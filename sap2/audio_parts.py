"""What the chunks of a wav file and the marks of a flac file say of how much sound is in them. Standard library only."""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

_UNKNOWN_SIZES = (0, 0x7FFF0000)  # of a wav: nothing yet, or so much that a pipe must have been written
_PART = 1 << 22  # bytes that are searched at a time: a file that is mapped would count as memory
_SHORTEST_TAIL = 1 << 12  # bytes after the data of a wav that are more than padding


class Riff(NamedTuple):
    """``claimed`` seconds of a wav's data, None if unknown; whether its data goes on ``to_the_end`` of the file."""

    claimed: float | None
    to_the_end: bool


def _stamp(source: str | os.PathLike[str]) -> tuple[int, int]:
    status = Path(source).stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=1 << 12)
def walk_riff(path: str, size: int, _mtime: int) -> Riff | None:
    """What the chunks of a wav file say of its data; None where the file is no wav."""
    with Path(path).open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        byte_rate, place = 0, 12
        while (found := _chunk(file, place)) is not None:
            name, length = found
            if name == b"fmt " and len(form := file.read(16)) == 16:
                byte_rate = struct.unpack("<I", form[8:12])[0]
            if name == b"data":
                break
            place += 8 + length + length % 2
        else:
            return None
        unknown = length <= _UNKNOWN_SIZES[0] or length >= _UNKNOWN_SIZES[1]
        seconds = None if unknown or not byte_rate else length / byte_rate
        end = place + 8 + length
        if unknown:
            return Riff(None, size > place + 8)
        return Riff(seconds, size - end > _SHORTEST_TAIL and not _chunks_to_the_end(file, end + length % 2, size))


def _chunk(file: Any, place: int) -> tuple[bytes, int] | None:
    file.seek(place)
    head = file.read(8)
    return (head[:4], struct.unpack("<I", head[4:])[0]) if len(head) == 8 else None


def _chunks_to_the_end(file: Any, place: int, size: int) -> bool:
    """Whether chunks follow one another up to the end of the file, as notes and markers do after the sound."""
    while place + 8 <= size:
        name, length = _chunk(file, place) or (b"", 0)
        if not all(32 <= byte < 127 for byte in name) or place + 8 + length > size + 1:
            return False
        if name == b"RIFF":
            raise UnreadableError(f"a second wav file begins at byte {place}; join recordings with an audio editor")
        place += 8 + length + length % 2
    return True


@functools.lru_cache(maxsize=1 << 12)
def joined_flac(path: str, size: int, _mtime: int) -> bool:
    """Whether a second flac stream follows the first, which libsndfile would stop after."""
    marks = [b"fLaC" + last + b"\0\0\x22" for last in (b"\0", b"\x80")]
    with Path(path).open("rb") as file:
        file.seek(4)
        kept = b""
        while part := file.read(_PART):
            data = kept + part
            if any(mark in data for mark in marks):
                return True
            kept = data[1 - len(marks[0]) :]
    return False
