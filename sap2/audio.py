"""Audio to samples: the one reader of training, decoding and data preparation.

What is wrong with a recording and can be set right is set right: a constant offset is removed, floating point samples
in the scale of whole numbers are brought to full scale 1, and of channels that cancel each other the louder one is
taken. What cannot be set right is refused with the name of the file. ``docs/formats.md`` lists all of it.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sap2.audio_blocks import (
    Block,
    Source,
    UnreadableError,
    check_file,
    claimed_seconds,
    read_blocks,
    read_header,
)
from sap2.errors import InputError
from sap2.lengths import MIN_SECONDS

_FORMATS = (
    "wav flac mp3 ogg oga opus m4a m4b aac mp4 m4v mov mkv mka webm avi wma wmv amr 3gp aiff aif aifc au caf w64 sph "
    "mp2 ac3 ts mpg mpeg flv"
)
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
"""Names of audio and video files that are looked for in folders; what a file is, is found out by opening it."""

_OVERSHOOT = 0.5  # seconds that a piece may reach past the end of its recording (published times are rounded)
_IN_MEMORY = 30 * 60 * 16_000  # samples; longer recordings go to a temporary file
_CANCELLED = 0.05  # a mix with less than this part of its channels' power has lost the sound
_OFFSET = 0.01  # of full scale: a mean above it is no sound
_FULL_SCALES = (1 << 15, 1 << 23, 1 << 31)
_FLOAT_PEAK = 16.0  # floating point samples above it (24 dB over full scale) are whole numbers
_SILENT = 1e-6


def unreadable_audio(name: str, reason: object) -> InputError:
    """The error for what no reader takes."""
    text = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return InputError(
        f"audio {name} cannot be read ({text}); allowed: what libsndfile or ffmpeg reads (wav, flac, mp3, m4a, mp4, …)"
    )


class SilentAudioError(InputError):
    """A recording without any sound."""


def load_samples(
    source: Source, sampling_rate: int, start: float = 0.0, end: float | None = None, name: str | None = None
) -> np.ndarray:
    """(samples,) float32 at that rate, channels averaged, of the whole recording or of ``start`` to ``end`` seconds.

    Recordings of more than half an hour are held in a temporary file instead of memory.

    Args:
        source: a path, or the bytes of a file.
        name: for the messages; None takes the path.

    Raises:
        InputError: the file does not exist, is empty, cannot be read, is silent, holds numbers that are not finite, or
            ends before the piece does.
    """
    name = name or ("(bytes)" if isinstance(source, io.BytesIO) else os.fspath(source))
    if not isinstance(source, io.BytesIO):
        check_file(source)
    try:
        scale = _float_scale(source)
        samples = _collect(source, sampling_rate, (start, end), sound := _Sound(), None, name)
        if sound.cancels():
            channel = sound.loudest()
            samples = _collect(source, sampling_rate, (start, end), sound := _Sound(), channel, name)
    except UnreadableError as error:
        raise unreadable_audio(name, error) from None
    if (start and not sound.frames) or (end is not None and start + sound.seconds < end - _OVERSHOOT):
        seconds = sum(_lengths(source))
        piece = f"{start:g} s to its end" if end is None else f"{start:g} to {end:g} s"
        raise InputError(f"audio {name}: the piece from {piece} lies outside the recording of {seconds:.2f} s")
    _set_right(samples, sound, scale)
    if not start and end is None and sound.seconds >= MIN_SECONDS and _is_silent(samples):
        raise SilentAudioError(f"audio {name} is silent: all of its {sound.seconds:.2f} s are one number")
    return samples


def probe_seconds(path: str | os.PathLike[str]) -> float:
    """Length in seconds by the file's header, or by decoding where it has none.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    check_file(path)
    try:
        seconds = read_header(path).seconds
        return sum(_lengths(path)) if seconds is None else seconds
    except UnreadableError as error:
        raise unreadable_audio(os.fspath(path), error) from None


def true_seconds(path: str | os.PathLike[str]) -> float:
    """Length in seconds as decoding finds it, whatever the header says.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    check_file(path)
    try:
        header = read_header(path)
        return header.seconds if header.exact and header.seconds is not None else sum(_lengths(path))
    except UnreadableError as error:
        raise unreadable_audio(os.fspath(path), error) from None


def missing_seconds(path: str | os.PathLike[str], seconds: float) -> float:
    """How much of what its header promises a file of that true length lacks (half a download); 0 where all is there."""
    try:
        claimed = claimed_seconds(path)
    except UnreadableError:
        return 0.0
    return claimed - seconds if claimed is not None and claimed - seconds > max(_OVERSHOOT, 0.02 * claimed) else 0.0


def check_audio(audio: np.ndarray, sampling_rate: int, max_samples: int, truncate: bool, name: str) -> np.ndarray:
    """One channel of samples that fits the model's window.

    Args:
        audio: (samples,) floating point.
        sampling_rate: samples per second.
        max_samples: window of the feature extractor (``n_samples``), 30 s for Qwen2-Audio.
        truncate: cut longer audio at the window instead of refusing it.
        name: of the file, for the message.

    Raises:
        InputError: the audio is empty, shorter than :data:`MIN_SECONDS`, longer than the window, or not finite.
    """
    seconds, window = len(audio) / sampling_rate, max_samples / sampling_rate
    if len(audio) == 0:
        raise InputError(f"audio {name} is empty; allowed: {MIN_SECONDS} to {window:g} s")
    if seconds < MIN_SECONDS:
        raise InputError(f"audio {name} is {seconds:.3g} s long; allowed: {MIN_SECONDS} to {window:g} s")
    if not np.isfinite(audio).all():
        raise InputError(f"audio {name} holds samples that are not finite numbers; allowed: finite samples")
    if len(audio) > max_samples:
        if not truncate:
            raise InputError(
                f"audio {name} is {seconds:.2f} s long, and the model hears {window:g} s: cut it into pieces, or pass "
                f"--sap_truncate_audio true to hear the first {window:g} s of it"
            )
        audio = audio[:max_samples]
    return audio


class _Sound:
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


def _collect(
    source: Source, rate: int, span: tuple[float, float | None], sound: _Sound, channel: int | None, name: str
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


def _set_right(samples: np.ndarray, sound: _Sound, scale: float) -> None:
    """Scale and offset as they should be, in place."""
    offset = scale * sound.total / max(1, sound.frames)
    if scale != 1.0:
        samples *= np.float32(scale)
    if abs(offset) > _OFFSET:
        samples -= np.float32(offset)


def _is_silent(samples: np.ndarray) -> bool:
    return all(np.abs(samples[i : i + (1 << 20)]).max() <= _SILENT for i in range(0, len(samples), 1 << 20))


def _float_scale(source: Source) -> float:
    """What floating point samples are to be multiplied by; 1 unless they are whole numbers (±32768)."""
    if not read_header(source).floating:
        return 1.0
    if isinstance(source, io.BytesIO):
        peak = _peak_of(source)
    else:
        peak = _peak_of_file(os.fspath(source), Path(source).stat().st_mtime_ns)
    if peak <= _FLOAT_PEAK:
        return 1.0
    return 1.0 / next((scale for scale in _FULL_SCALES if peak <= scale), peak)


@functools.lru_cache(maxsize=1 << 10)
def _peak_of_file(path: str, _mtime: int) -> float:
    return _peak_of(path)


def _peak_of(source: Source) -> float:
    peaks = (np.abs(block.samples[np.isfinite(block.samples)]).max(initial=0.0) for block in read_blocks(source))
    return float(max(peaks, default=0.0))


def _lengths(source: Source) -> Iterator[float]:
    return (block.samples.shape[1] / block.rate for block in read_blocks(source))
