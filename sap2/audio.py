"""Audio to samples: the one reader of training, decoding and data preparation.

What is wrong with a recording and can be set right is set right: a constant offset is removed, floating point samples
in the scale of whole numbers are brought to full scale 1, and of channels that cancel each other the louder one is
taken. What cannot be set right is refused with the name of the file. ``docs/formats.md`` lists all of it.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sap2.audio_blocks import (
    Source,
    UnreadableError,
    check_file,
    claimed_seconds,
    read_blocks,
    read_header,
)
from sap2.audio_samples import Recording, Sound, collect
from sap2.errors import InputError, one_line
from sap2.lengths import MIN_SECONDS

_FORMATS = (
    "wav flac mp3 ogg oga opus m4a m4b aac mp4 m4v mov mkv mka webm avi wma wmv amr 3gp aiff aif aifc au caf w64 sph "
    "mp2 ac3 ts mpg mpeg flv"
)
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
"""Names of audio and video files that are looked for in folders; what a file is, is found out by opening it."""

_ARCHIVE = re.compile(r"(.+\.ark):(\d+)", re.I)
_OVERSHOOT = 0.05  # seconds that a piece may reach past the end of its recording: times are published in tenths
_CLAIM_SLACK = 0.5  # seconds by which a header may be wrong about a recording that is all there
_OFFSET = 0.01  # of full scale: a mean above it is no sound
_FULL_SCALES = (1 << 15, 1 << 23, 1 << 31)
_FLOAT_PEAK = 16.0  # floating point samples above it (24 dB over full scale) are whole numbers
_SILENT = 1e-6


def unreadable_audio(name: str, reason: object) -> InputError:
    """The error for what no reader takes."""
    return InputError(
        f"audio {name} cannot be read ({one_line(reason):.200}); allowed: what libsndfile or ffmpeg reads (wav, flac, "
        f"mp3, m4a, mp4, …)"
    )


class SilentAudioError(InputError):
    """A recording without any sound."""


def load_samples(
    source: Source, sampling_rate: int, start: float = 0.0, end: float | None = None, name: str | None = None
) -> np.ndarray:
    """(samples,) float32 as :func:`open_recording` finds them, as one array.

    Of more than half an hour, it is mapped from a temporary file.

    Raises:
        InputError: as :func:`open_recording`.
    """
    return open_recording(source, sampling_rate, start, end, name).array()


def open_recording(
    source: Source, sampling_rate: int, start: float = 0.0, end: float | None = None, name: str | None = None
) -> Recording:
    """Samples at that rate, channels averaged, of the whole recording or of ``start`` to ``end`` seconds.

    Those of more than half an hour are held in a temporary file, from which slices are read.

    Args:
        source: a path, or the bytes of a file.
        name: for the messages; None takes the path.

    Raises:
        InputError: the file does not exist, is empty, cannot be read, is silent, holds numbers that are not finite, or
            ends before the piece does.
    """
    name = name or _name(source)
    source = _opened(source)
    try:
        scale = _float_scale(source)
        samples = collect(source, sampling_rate, (start, end), sound := Sound(), None, name)
        if sound.cancels():
            channel = sound.loudest()
            samples = collect(source, sampling_rate, (start, end), sound := Sound(), channel, name)
    except UnreadableError as error:
        raise unreadable_audio(name, error) from None
    if (start and not sound.frames) or (end is not None and start + sound.seconds < end - _OVERSHOOT):
        raise _outside(name, start, end, sum(_lengths(source)))
    offset = scale * sound.total / max(1, sound.frames)
    samples.adjust(scale, offset if abs(offset) > _OFFSET else 0.0)
    if not start and end is None and sound.seconds >= MIN_SECONDS and _is_silent(samples):
        raise SilentAudioError(f"audio {name} is silent: all of its {sound.seconds:.2f} s are one number")
    return samples


def _name(source: Source) -> str:
    return "(bytes)" if isinstance(source, io.IOBase) else os.fspath(source)


def load_piece(source: Source, sampling_rate: int, start: float, end: float, name: str | None = None) -> np.ndarray:
    """``start`` to ``end`` seconds of a recording, for callers that take many pieces of one after another.

    A compressed file has to be decoded from its beginning: the whole of the last one is kept.

    Args:
        source: a path, or a stream, which must be the same one for all pieces.
        name: for the messages; None takes the path.

    Raises:
        InputError: as :func:`load_samples`.
    """
    name = name or _name(source)
    opened = _opened(source)
    try:
        direct = read_header(opened).lossless
    except UnreadableError as error:
        raise unreadable_audio(name, error) from None
    if direct:
        return load_samples(opened, sampling_rate, start, end, name)
    if isinstance(source, io.IOBase):
        whole = _whole(source, sampling_rate, 0, name)
    else:
        whole = _whole(os.fspath(source), sampling_rate, Path(source).stat().st_mtime_ns, name)
    seconds = len(whole) / sampling_rate
    if start >= seconds or end > seconds + _OVERSHOOT:
        raise _outside(name, start, end, seconds)
    return np.array(whole[round(start * sampling_rate) : round(end * sampling_rate)])


@functools.lru_cache(maxsize=1)
def _whole(source: Any, sampling_rate: int, _mtime: int, name: str) -> Recording:
    return open_recording(source, sampling_rate, name=name)


def audio_exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file of that name, or the archive that it is an entry of (``wav.ark:1234``)."""
    return audio_file(path).is_file()


def audio_file(path: str | os.PathLike[str]) -> Path:
    """The file that holds the audio: the archive, where it is an entry of one."""
    entry = _ARCHIVE.fullmatch(os.fspath(path))
    return Path(entry[1] if entry and not Path(path).is_file() else path)


def _opened(source: Source) -> Source:
    """The source as the readers take it: a file that is there, or the bytes of an entry of a Kaldi archive."""
    if isinstance(source, io.IOBase):
        return source
    entry = _ARCHIVE.fullmatch(os.fspath(source))
    if entry is None or Path(source).is_file():
        check_file(source)
        return source
    check_file(entry[1])
    return _archive_entry(entry[1], int(entry[2]))


@functools.lru_cache(maxsize=1)
def _archive_entry(path: str, place: int) -> io.BytesIO:
    with Path(path).open("rb") as archive:
        return archive_entry(path, place, archive)


def archive_entry(path: str, place: int, archive: IO[bytes]) -> io.BytesIO:
    """An entry of a Kaldi archive as a wav file.

    Args:
        path: name of the archive, for the message.
        place: of the entry in it, in bytes.
        archive: the archive, open.

    Raises:
        InputError: there is no sound.
    """
    import kaldiio
    import soundfile

    try:
        found = kaldiio.load_mat(f"archive:{place}", fd_dict={"archive": archive})
        rate, samples = found
        content = io.BytesIO()
        wide = np.issubdtype(samples.dtype, np.floating)
        soundfile.write(content, samples, rate, format="WAV", subtype="FLOAT" if wide else "PCM_16")
    except Exception as error:  # kaldiio lets through what it comes upon
        raise unreadable_audio(f"{path}:{place}", f"no sound there: {one_line(error)}") from None
    return content


def probe_seconds(source: Source, name: str | None = None) -> float:
    """Length in seconds by the file's header, or by decoding where it has none.

    Args:
        source: a path, or a stream.
        name: for the messages; None takes the path.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    name = name or _name(source)
    source = _opened(source)
    try:
        seconds = read_header(source).seconds
        return sum(_lengths(source)) if seconds is None else seconds
    except UnreadableError as error:
        raise unreadable_audio(name, error) from None


def true_seconds(source: Source, name: str | None = None) -> float:
    """Length in seconds as decoding finds it, whatever the header says.

    Args:
        source: a path, or a stream.
        name: for the messages; None takes the path.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    name = name or _name(source)
    source = _opened(source)
    try:
        header = read_header(source)
        return header.seconds if header.exact and header.seconds is not None else sum(_lengths(source))
    except UnreadableError as error:
        raise unreadable_audio(name, error) from None


def missing_seconds(source: Source, seconds: float) -> float:
    """How much of what its header promises a file of that true length lacks (half a download); 0 where all is there."""
    try:
        claimed = claimed_seconds(_opened(source))
    except UnreadableError:
        return 0.0
    return claimed - seconds if claimed is not None and claimed - seconds > max(_CLAIM_SLACK, 0.02 * claimed) else 0.0


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


def _outside(name: str, start: float, end: float | None, seconds: float) -> InputError:
    piece = f"{start:g} s to its end" if end is None else f"{start:g} to {end:g} s"
    return InputError(f"audio {name}: the piece from {piece} lies outside the recording of {seconds:.2f} s")


def _is_silent(samples: Recording) -> bool:
    return all(np.abs(block).max() <= _SILENT for block in samples.blocks())


def _float_scale(source: Source) -> float:
    """What floating point samples are to be multiplied by; 1 unless they are whole numbers (±32768)."""
    if not read_header(source).floating:
        return 1.0
    if isinstance(source, io.IOBase):
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
