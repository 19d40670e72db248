"""Blocks of audio to one array of samples at the rate that is wanted, and what was heard on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from sap2.audio_blocks import Block, Source, read_blocks
from sap2.errors import InputError

_IN_MEMORY = 30 * 60 * 16_000  # samples; longer recordings go to a temporary file
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


class _Store:
    """Samples that come in pieces: in memory, or from half an hour on in a file that goes with them."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._held = self.count = 0
        self._file: IO[bytes] | None = None

    def append(self, part: np.ndarray) -> None:
        """Take samples in."""
        self._parts.append(part)
        self._held += len(part)
        self.count += len(part)
        if self._held > _IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - the array below holds it
            for held in self._parts:
                self._file.write(held.astype(np.float32).tobytes())
            self._parts, self._held = [], 0

    def samples(self, count: int) -> np.ndarray:
        """The first ``count`` samples, with silence after the last where there are fewer."""
        self.append(np.zeros(max(0, count - self.count), np.float32))
        if self._file is None:
            return np.concatenate([*self._parts, np.zeros(0, np.float32)])[:count]
        for held in self._parts:
            self._file.write(held.astype(np.float32).tobytes())
        self._file.flush()
        return np.memmap(self._file, np.float32, "r+", shape=(self.count,))[:count]


def collect(
    source: Source, rate: int, span: tuple[float, float | None], sound: Sound, channel: int | None, name: str
) -> np.ndarray:
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
    return store.samples(int(np.ceil(expected - 1e-6)))


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
