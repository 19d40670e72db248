"""What a server allows. Standard library only."""

from __future__ import annotations

import dataclasses

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may hold; more is refused with 413, and 429 where it is too many requests.

    Attributes:
        upload_bytes: of the whole request.
        field_bytes: of the texts of its form together.
        audio_seconds: of the recording.
        files: of slides.
        pages: of one deck.
        pixels: of one picture.
        unpacked_bytes: of a PPTX file, unpacked.
        requests: that are served or wait at a time.
        idle_seconds: between two parts of a request that comes in.
        decode_seconds: that a worker may take for one file.
        worker_bytes: of memory that a worker may take.
    """

    upload_bytes: int = 1024 * MIB
    field_bytes: int = 4 * MIB
    audio_seconds: float = 4 * 3600.0
    files: int = 20
    pages: int = 1000
    pixels: int = 50_000_000
    unpacked_bytes: int = 1024 * MIB
    requests: int = 64
    idle_seconds: float = 30.0
    decode_seconds: float = 600.0
    worker_bytes: int = 6144 * MIB


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        names: by which its model may be asked for; the first is its own.
        banks: files of term banks by name.
        api_key: that callers must show; None: anyone may ask.
        limits: of one request.
        batch_size: segments decoded together at most.
        max_batch_tokens: limit of a batch's size times its longest prompt.
        workers: processes that decode uploads.
        vad: what finds the speech.
        hosts: names under which a browser may ask; None: any.
    """

    names: tuple[str, ...]
    banks: dict[str, str] = dataclasses.field(default_factory=dict)
    api_key: str | None = None
    limits: Limits = Limits()
    batch_size: int = 16
    max_batch_tokens: int | None = None
    workers: int = 2
    vad: str | None = None
    hosts: frozenset[str] | None = None
