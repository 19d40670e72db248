"""Blocks of audio to the samples of one channel at the rate that is wanted, and what was heard on the way."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from sap2.audio_blocks import Block, Source, read_blocks
from sap2.errors import InputError
from sap2.files import naming_errors

_IN_MEMORY = 30 * 60 * 16_000  # samples; longer recordings go to a temporary file
_STEP = 60 * 16_000  # samples that are looked at together
_LARGE_FILES = "/var/tmp"
_CANCELLED = 0.05  # a mix with less than this part of its channels' power has lost the sound


class Sound:
    """What was heard of a recording while it was decoded: length, power of each channel and of their mix, peak."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.frames = 0
        self.mixed = self.total = 0.0
        self.peak = 0.0
        self.powers = np.zeros(0)

    def add(self, block: Block, mono: np.ndarray, name: str) -> None:
        """Take a block in.

        Raises:
            InputError: it holds a number that is not finite.
        """
        if not np.isfinite(mono).all():
            place = self.seconds + int(np.argmin(np.isfinite(mono))) / block.rate
            raise InputError(
                f"audio {name} holds samples that are not finite numbers, the first at {place:.2f} s; allowed: finite"
            )
        channels = block.samples.shape[0]
        if channels > len(self.powers):
            self.powers = np.pad(self.powers, (0, channels - len(self.powers)))
        if channels > 1:
            # without their offsets, which would hide that the sound cancels
            spread = block.samples.astype(np.float64) - block.samples.mean(axis=1, keepdims=True)
            self.powers[:channels] += np.square(spread).sum(axis=1)
            self.mixed += float(np.square(spread.mean(axis=0)).sum())
        self.total += float(mono.sum(dtype=np.float64))
        self.peak = max(self.peak, float(np.abs(mono).max(initial=0.0)))
        self.frames += len(mono)
        self.seconds += len(mono) / block.rate

    def cancels(self) -> bool:
        """Whether the mix of the channels has lost their sound (one of them is inverted)."""
        return len(self.powers) > 1 and self.mixed < _CANCELLED * self.powers.mean()

    def loudest(self) -> int:
        """The channel with the most power."""
        return int(np.argmax(self.powers))


class Recording:
    """(samples,) of one channel, read in slices: from memory, or from a temporary file that goes with them.

    A slice is float32, so that a recording of ten hours takes the memory of the slices that somebody holds.

    Args:
        stored: samples, floating point; or an open file of nothing but float32 samples.
    """

    def __init__(self, stored: np.ndarray | IO[bytes], count: int | None = None):
        self._stored = stored
        self._count = len(stored) if isinstance(stored, np.ndarray) else count or 0
        self._scale, self._offset = 1.0, 0.0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, span: slice) -> np.ndarray:
        first, last, _ = span.indices(self._count)
        return self._set_right(self._read(first, max(first, last)))

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples, in order, about a minute at a time."""
        return (self[first : first + _STEP] for first in range(0, self._count, _STEP))

    def adjust(self, scale: float, offset: float) -> None:
        """Have samples multiplied by a scale, and an offset then taken away, when they are read."""
        self._scale, self._offset = scale, offset

    def array(self) -> np.ndarray:
        """All samples as one array, which a file is mapped to."""
        if isinstance(self._stored, np.ndarray):
            return self[:]
        whole = np.memmap(self._stored, np.float32, "r+", shape=(self._count,))
        if self._scale != 1.0 or self._offset:
            for first in range(0, self._count, _STEP):
                whole[first : first + _STEP] = self[first : first + _STEP]
            self.adjust(1.0, 0.0)
        return whole

    def _read(self, first: int, last: int) -> np.ndarray:
        if isinstance(self._stored, np.ndarray):
            return self._stored[first:last].astype(np.float32, copy=False)
        found = np.empty(last - first, np.float32)
        space, done = memoryview(found).cast("B"), 0
        while done < len(space):
            # no place of the file moves: several threads may read
            count = os.preadv(self._stored.fileno(), [space[done:]], first * found.itemsize + done)
            if not count:
                raise OSError(errno.EIO, "the temporary file of a recording has become shorter", temporary_folder())
            done += count
        return found

    def _set_right(self, samples: np.ndarray) -> np.ndarray:
        if self._scale != 1.0:
            samples = samples * np.float32(self._scale)
        return samples - np.float32(self._offset) if self._offset else samples


Samples = np.ndarray | Recording
"""What is read in slices."""


def temporary_folder() -> str:
    """Where large temporary files go: /tmp is memory on many machines, so /var/tmp unless the user names a place."""
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return tempfile.gettempdir() if named or not os.access(_LARGE_FILES, os.W_OK) else _LARGE_FILES


class _Store:
    """Samples that come in pieces: in memory, or from half an hour on in a file."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self.count = 0
        self._file: IO[bytes] | None = None

    def append(self, part: np.ndarray) -> None:
        """Take samples in.

        Raises:
            OSError: there is no room for them; it names the folder.
        """
        self._parts.append(part)
        self.count += len(part)
        if self._file is not None or self.count > _IN_MEMORY:
            with naming_errors(temporary_folder()):
                # without a name in the folder: it is gone with the process, however that ends
                self._file = self._file or tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115 - the recording's
                for held in self._parts:
                    self._file.write(held.astype(np.float32, copy=False).tobytes())
            self._parts = []

    def recording(self, count: int) -> Recording:
        """The first ``count`` samples, with silence after the last where there are fewer."""
        self.append(np.zeros(max(0, count - self.count), np.float32))
        if self._file is None:
            return Recording(np.concatenate([*self._parts, np.zeros(0, np.float32)])[:count])
        with naming_errors(temporary_folder()):
            self._file.flush()
        return Recording(self._file, count)


def collect(
    source: Source, rate: int, span: tuple[float, float | None], sound: Sound, channel: int | None, name: str
) -> Recording:
    """One channel, or the mean of all, at ``rate``; the same numbers as librosa's, block by block."""
    store, resampler, last_rate, expected = _Store(), None, rate, 0.0
    for block in _piece(read_blocks(source, span[0]), *span):
        samples = block.samples
        mono = samples.mean(axis=0) if channel is None else samples[min(channel, len(samples) - 1)]
        sound.add(block, mono, name)
        if block.rate != last_rate:
            store.append(_rest(resampler))
            resampler = _resampler(block.rate, rate) if block.rate != rate else None
            last_rate = block.rate
        expected += len(mono) * rate / block.rate
        store.append(mono if resampler is None else resampler.resample_chunk(np.ascontiguousarray(mono)))
    store.append(_rest(resampler))
    return store.recording(int(np.ceil(expected - 1e-6)))


def _resampler(rate: int, target: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")


def _rest(resampler: Any) -> np.ndarray:
    return (
        np.zeros(0, np.float32) if resampler is None else resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    )


def _piece(blocks: Iterator[Block], start: float, end: float | None) -> Iterator[Block]:
    """The blocks up to ``end - start`` seconds."""
    left = None if end is None else end - start
    for block in blocks:
        count = block.samples.shape[1]
        keep = count if left is None else min(count, round(left * block.rate))
        if keep > 0:
            yield Block(block.rate, block.samples[:, :keep])
        if left is not None:
            left -= count / block.rate
            if round(left * block.rate) <= 0:
                return
