"""Audio files decoded in blocks, each at its own sampling rate: libsndfile for plain PCM, ffmpeg for everything else.

Both readers come in wheels (soundfile; PyAV, which carries ffmpeg). Lossless files are left to libsndfile, which finds
a place in them at once; a compressed or damaged file, and one whose header does not know its length, is decoded by
ffmpeg from its first packet to its last. Nothing but the file itself is opened: no playlist is followed, no address
fetched.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sap2.audio_parts import Range, Source, joined_flac, opened, walk_riff
from sap2.errors import InputError

_ESTIMATED = {"aac", "ac3", "eac3", "amr", "amrnb", "amrwb"}  # formats without a header: the length is guessed
_BLOCK = 1 << 18  # frames of one block
# libsndfile estimates the length of these, or stops after the first part
_COMPRESSED = (b"ID3", b"OggS", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa", b"\xff\xe3")
_RATES = (2_000, 768_000)  # samples a second of what people record
_MAX_CHANNELS = 64
_MAX_BAD_PACKETS = 0.02  # share of damaged packets with which a file is still heard


class Block(NamedTuple):
    """``samples`` (channels, frames) in float32, full scale is 1; ``rate`` per second."""

    rate: int
    samples: np.ndarray


class UnreadableError(Exception):
    """Neither reader can decode it; the text is the reason."""


class Header(NamedTuple):
    """What a file says of itself without being decoded.

    Attributes:
        seconds: the length, or None where the header does not know it.
        exact: whether that is what decoding will find; else it is a claim or an estimate.
        floating: whether samples are stored as floating point numbers.
        lossless: whether libsndfile reads it and can begin anywhere.
    """

    seconds: float | None
    exact: bool
    floating: bool
    lossless: bool


def read_header(source: Source) -> Header:
    """The :class:`Header` of an audio file.

    Raises:
        UnreadableError: it is not audio.
    """
    import soundfile

    with _parts(source) as parts:
        if parts:
            headers = [read_header(part) for part in parts]
            seconds = [header.seconds for header in headers]
            length = None if None in seconds else sum(seconds)
            return Header(length, False, any(header.floating for header in headers), False)
    with contextlib.suppress(soundfile.SoundFileError, TypeError, ValueError), _sound_file(source) as file:
        exact = file.format != "FLAC"
        return Header(file.frames / file.samplerate, exact, file.subtype in ("FLOAT", "DOUBLE"), True)
    with _container(source) as (container, stream):
        if container.format.name in _ESTIMATED:
            seconds = None
        elif stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = container.duration / 1e6 if container.duration else None
        floating = stream.codec_context.name.startswith("pcm_f")
        return Header(seconds if seconds and seconds > 0 else None, False, floating, False)


def claimed_seconds(source: Source) -> float | None:
    """The length that a header promises (wav, flac, mp4, mkv); None where it promises none or only estimates."""
    riff = walk_riff(source)
    if riff is not None:
        return riff.claimed
    header = read_header(source)
    if header.lossless:
        return header.seconds
    with _container(source) as (container, _):
        kinds = set(container.format.name.split(","))
    return header.seconds if kinds & {"mov", "matroska", "flac"} else None


def read_blocks(source: Source, start: float = 0.0) -> Iterator[Block]:
    """The blocks of an audio file from ``start`` seconds on.

    Raises:
        UnreadableError: it is not audio, or too much of it is damaged.
    """
    import soundfile

    with _parts(source) as parts:
        if parts:
            yield from _after((block for part in parts for block in read_blocks(part)), start, 0)
            return
    done = 0
    try:
        with _sound_file(source) as file:
            first = min(round(start * file.samplerate), file.frames)
            file.seek(first)
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                yield Block(file.samplerate, block.T)
                done += len(block)
            return
    except (soundfile.SoundFileError, TypeError, ValueError):
        pass  # a pipe's, a damaged or an unknown file: ffmpeg reads it, or says why not
    yield from _after(_decode(source), start, done)


@contextlib.contextmanager
def _parts(source: Source) -> Iterator[list[Range]]:
    """The wavs of a file that was joined of several, each as a stream; nothing for any other source."""
    riff = walk_riff(source)
    if riff is None or not riff.parts:
        yield []
        return
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(opened(source))
        yield [Range(stream, *part) for part in riff.parts]


def _after(blocks: Iterator[Block], start: float, done: int) -> Iterator[Block]:
    """What is left of the blocks from ``start`` seconds and ``done`` frames on."""
    skip = rate = 0
    for block in blocks:
        if not rate:
            skip = round(start * block.rate) + done
        elif rate != block.rate:  # a file that was joined of several
            skip = round(skip * block.rate / rate)
        rate = block.rate
        if skip < block.samples.shape[1]:
            yield Block(block.rate, block.samples[:, skip:])
        skip = max(0, skip - block.samples.shape[1])


@contextlib.contextmanager
def _sound_file(source: Source) -> Iterator[Any]:
    """The file as libsndfile opens it, where it can be trusted with it.

    Raises:
        ValueError: it is one for ffmpeg.
    """
    import soundfile

    head = _first_bytes(source)
    if head.startswith(_COMPRESSED):
        raise ValueError("compressed")
    riff = walk_riff(source)
    if riff is not None and (riff.to_the_end or riff.parts):
        raise ValueError("the header of this wav does not know its length")
    if head == b"fLaC" and joined_flac(source):
        raise ValueError("several flac files in one")
    if isinstance(source, io.IOBase):
        source.seek(0)
    with soundfile.SoundFile(source if isinstance(source, io.IOBase) else os.fspath(source)) as file:
        if file.format in ("MP3", "OGG", "MPEG") or file.subtype.startswith(("MPEG", "VORBIS", "OPUS")):
            raise ValueError("compressed")
        if not 0 < file.frames < 1 << 40:
            raise ValueError("the header does not know the length")
        _check_form(file.samplerate, file.channels)
        yield file


def _first_bytes(source: Source) -> bytes:
    with opened(source) as file:
        return file.read(4)


@contextlib.contextmanager
def _container(source: Source) -> Iterator[tuple[Any, Any]]:
    import av

    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(opened(source))
        # a playlist may name other files and addresses: no protocol that could open them
        options = {"protocol_whitelist": "crypto"}
        riff = walk_riff(source)
        options |= {"ignore_length": "1"} if riff is not None and riff.to_the_end else {}
        stream.seek(0)
        try:
            container = stack.enter_context(av.open(stream, metadata_errors="ignore", options=options))
            audio = container.streams.best("audio")
        except (av.FFmpegError, ValueError, OSError, IndexError) as error:
            raise UnreadableError(_reason(error)) from None
        if audio is None:
            raise UnreadableError("no audio track in it")
        if audio.codec_context is None:
            raise UnreadableError("nobody knows the codec of its sound")
        yield container, audio


def _decode(source: Source) -> Iterator[Block]:
    """Everything that ffmpeg finds in the file, from the beginning."""
    import av

    packets = bad = 0
    with _container(source) as (container, stream):
        stream.thread_type = "AUTO"
        held: list[Block] = []
        try:
            for packet in container.demux(stream):
                packets += 1
                try:
                    frames = packet.decode()
                except (av.FFmpegError, ValueError):
                    bad += 1
                    continue
                for frame in frames:
                    _check_form(frame.sample_rate, frame.layout.nb_channels)
                    block = Block(frame.sample_rate, _floats(frame))
                    if held and not _goes_on(held, block):
                        yield _joined(held)
                        held = []
                    held.append(block)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise UnreadableError(_reason(error)) from None
        if held:
            yield _joined(held)
    # the last packet only ends the stream
    if bad > 2 + _MAX_BAD_PACKETS * packets or 0 < packets - 1 <= bad:
        raise UnreadableError(f"{bad} of {packets - 1} packets are damaged")


def _check_form(rate: int, channels: int) -> None:
    """Refuse what only a damaged header says, before it becomes hours of samples."""
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UnreadableError(f"{rate} samples a second; allowed: {_RATES[0]} to {_RATES[1]}")
    if not 0 < channels <= _MAX_CHANNELS:
        raise UnreadableError(f"{channels} channels; allowed: 1 to {_MAX_CHANNELS}")


def _goes_on(held: list[Block], block: Block) -> bool:
    """Whether a block (ffmpeg's are short) may be joined to those before it."""
    last = held[-1]
    same = (last.rate, len(last.samples)) == (block.rate, len(block.samples))
    return same and len(held) * last.samples.shape[1] < _BLOCK


def _joined(held: list[Block]) -> Block:
    return Block(held[0].rate, np.concatenate([block.samples for block in held], axis=1))


def _floats(frame: Any) -> np.ndarray:
    """A frame of ffmpeg as (channels, samples) in float32."""
    data = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        data = data.reshape(-1, channels).T
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if np.issubdtype(data.dtype, np.integer):
        return data.astype(np.float32) / np.float32(-float(np.iinfo(data.dtype).min))
    return data.astype(np.float32)


def _reason(error: Exception) -> str:
    # ffmpeg's begins with its error number and ends with the name of the file, which our message has
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (text.partition("] ")[2] or text).partition(": '")[0]


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is no file, or an empty one.

    Raises:
        InputError: with the path.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"audio {path} does not exist; allowed: an audio file")
    if file.stat().st_size == 0:
        raise InputError(f"audio {path} is empty (0 bytes)")
