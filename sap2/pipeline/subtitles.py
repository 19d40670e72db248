"""A transcript as plain text, JSON, SRT or WebVTT."""

from __future__ import annotations

import json
from collections.abc import Callable

from sap2.pipeline.types import Segment, Transcript


def format_transcript(transcript: Transcript, format: str) -> str:
    """The transcript in one of :data:`FORMATS`, ending with a line end."""
    return _WRITERS[format](transcript)


def _txt(transcript: Transcript) -> str:
    return "".join(_line(segment.text) + "\n" for segment in _spoken(transcript))


def _json(transcript: Transcript) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def _srt(transcript: Transcript) -> str:
    """Source: the SubRip convention (hours:minutes:seconds,milliseconds; numbers from 1; a blank line between)."""
    return "\n".join(
        f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n{_cue(segment.text)}\n"
        for number, segment in enumerate(_spoken(transcript), 1)
    )


def _vtt(transcript: Transcript) -> str:
    """Source: https://www.w3.org/TR/webvtt1/ ("&", "<" and "-->" may not stand in a cue's text)."""
    cues = [
        f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n{_escape(_cue(segment.text))}\n"
        for segment in _spoken(transcript)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _spoken(transcript: Transcript) -> list[Segment]:
    return [segment for segment in transcript.segments if _line(segment.text)]


def _line(text: str) -> str:
    """One line: a model's reply may hold line ends, and a blank one would end a cue."""
    return " ".join(text.split())


def _cue(text: str) -> str:
    return _line(text).replace("-->", "->")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, separator: str) -> str:
    total = round(seconds * 1000)
    return f"{total // 3600000:02}:{total // 60000 % 60:02}:{total // 1000 % 60:02}{separator}{total % 1000:03}"


_WRITERS: dict[str, Callable[[Transcript], str]] = {"txt": _txt, "json": _json, "srt": _srt, "vtt": _vtt}
FORMATS = tuple(_WRITERS)
