"""What a file is, by how it begins and never by its name. Standard library only."""

from __future__ import annotations

import re

HEAD = 4096
"""Bytes of a file that are looked at."""
AUDIO, SLIDES, TEXT = "audio", "slides", "text"

_STARTS: dict[bytes, str] = {
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"\x1a\x45\xdf\xa3": "webm",
    b"caff": "caf",
    b".snd": "au",
    b"#!AMR": "amr",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "wma",
    b"FLV\x01": "flv",
    b"NIST_1A": "sph",
    b"\x0b\x77": "ac3",
    b"riff\x2e\x91\xcf\x11": "w64",
    b"RF64": "wav",
    b"\x00\x00\x01\xba": "mpg",
    b"\x00\x00\x01\xb3": "mpg",
}
_PICTURES: dict[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\x00": "tif",
    b"MM\x00*": "tif",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "jp2",
}
_RIFF = {b"WAVE": (AUDIO, "wav"), b"AVI ": (AUDIO, "avi"), b"WEBP": (SLIDES, "webp")}
_PICTURE_BRANDS = {b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic", b"avif": "avif"}
_MPEG_AUDIO = re.compile(rb"\xff[\xe2-\xff]")
_TS_PACKET = 188
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def find_kind(head: bytes) -> tuple[str, str] | None:
    """Which of recordings, slides and texts begins like that, and its usual suffix; None: none of them.

    Args:
        head: the first :data:`HEAD` bytes, or all where there are fewer.
    """
    return _audio(head) or _slides(head) or _text(head)


def _audio(head: bytes) -> tuple[str, str] | None:
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AUDIO, "aiff"
    if head[4:8] == b"ftyp" and head[8:12] not in _PICTURE_BRANDS:
        return AUDIO, "mp4"
    for start, suffix in _STARTS.items():
        if head.startswith(start):
            return AUDIO, suffix
    if head[:1] == b"\x47" and head[_TS_PACKET : _TS_PACKET + 1] == b"\x47":
        return AUDIO, "ts"
    if _MPEG_AUDIO.match(head) and not head.startswith((b"\xff\xfe", b"\xff\xff")):
        return AUDIO, "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def _slides(head: bytes) -> tuple[str, str] | None:
    if b"%PDF-" in head[:1024]:
        return SLIDES, "pdf"
    if head.startswith(b"PK\x03\x04"):
        return SLIDES, "pptx"
    if head.startswith(_OLE):  # an old .ppt, or a protected .pptx: its reader says what to do
        return SLIDES, "pptx"
    if head[4:8] == b"ftyp":
        return SLIDES, _PICTURE_BRANDS[head[8:12]]
    for start, suffix in _PICTURES.items():
        if head.startswith(start):
            return SLIDES, suffix
    return None


def _text(head: bytes) -> tuple[str, str] | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TEXT, "txt"
    if b"\0" in head:
        return None
    for cut in range(4):  # a letter may be cut off at the end of the head
        try:
            head[: len(head) - cut].decode("utf-8")
            return TEXT, "txt"
        except UnicodeDecodeError:
            continue
    return None
