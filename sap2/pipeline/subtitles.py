"""A transcript as plain text, JSON, SRT, WebVTT or CTM; how segments become subtitles: :mod:`sap2.pipeline.cues`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sap2.errors import InputError
from sap2.pipeline.cues import Cue, Layout, cut_cues, one_line, readable
from sap2.pipeline.types import Segment, Transcript, Word
from sap2.spelling import find_keywords


class _Shown(NamedTuple):
    """A cue, the keywords of its segment, and the word that is said meanwhile."""

    cue: Cue
    keywords: Sequence[str]
    word: Word | None = None


def format_transcript(transcript: Transcript, format: str, layout: Layout | None = None) -> str:
    """The transcript in one of :data:`FORMATS`, ending with a line end.

    Raises:
        InputError: words with their times are needed, and the transcript has none.
    """
    return _WRITERS[format](transcript, layout or Layout())


def _txt(transcript: Transcript, layout: Layout) -> str:
    return "".join(_line(segment.text) + "\n" for segment in transcript.segments if _line(segment.text))


def _json(transcript: Transcript, layout: Layout) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def _ctm(transcript: Transcript, layout: Layout) -> str:
    """Source: the time-marked conversation format of NIST's sclite (recording, channel, start, length, word, and how
    sure it is)."""
    name = re.sub(r"\s+", "_", Path(transcript.id).stem) or "audio"
    lines = []
    for word in (word for segment in transcript.segments for word in _words(segment)):
        sure = "" if word.probability is None else f" {word.probability:.4f}"
        lines.append(f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text}{sure}\n")
    return "".join(lines)


def _words(segment: Segment) -> list[Word]:
    if segment.words is None:
        raise InputError("the transcript has no times of words; allowed: one that was made with word_timestamps")
    return segment.words


def _srt(transcript: Transcript, layout: Layout) -> str:
    """Source: the SubRip convention (hours:minutes:seconds,milliseconds; numbers from 1; a blank line between)."""
    return "\n".join(
        f"{number}\n{_time(shown.cue.start, ',')} --> {_time(shown.cue.end, ',')}\n{_marked(shown, False, str)}\n"
        for number, shown in enumerate(_all_cues(transcript, layout), 1)
    )


def _vtt(transcript: Transcript, layout: Layout) -> str:
    """Source: https://www.w3.org/TR/webvtt1/ ("&", "<" and "-->" may not stand in a cue's text)."""
    cues = [
        f"{_time(shown.cue.start, '.')} --> {_time(shown.cue.end, '.')}\n"
        f"{_marked(shown, layout.mark_keywords, _escape)}\n"
        for shown in _all_cues(transcript, layout)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _all_cues(transcript: Transcript, layout: Layout) -> Iterator[_Shown]:
    cues = [(cue, segment) for segment in transcript.segments for cue in cut_cues(segment, layout)]
    kept = readable([cue for cue, _ in cues], layout, transcript.audio_seconds)
    for cue, (_, segment) in zip(kept, cues, strict=True):
        if layout.highlight_words and _words(segment):
            yield from (_Shown(part, segment.picked_keywords, word) for part, word in _by_words(cue))
        else:
            yield _Shown(cue, segment.picked_keywords)


def _by_words(cue: Cue) -> Iterator[tuple[Cue, Word | None]]:
    """The cue divided in time: a part for each word, and for the time between two."""
    now = cue.start
    for word in cue.words:
        start, end = max(now, word.start), min(max(now, word.end), cue.end)
        if _time(now, ".") < _time(start, "."):
            yield cue._replace(start=now, end=start), None
        if _time(start, ".") < _time(end, "."):
            yield cue._replace(start=start, end=end), word
        now = max(start, end)
    if _time(now, ".") < _time(cue.end, "."):
        yield cue._replace(start=now), None


def _marked(shown: _Shown, mark_keywords: bool, escape: Callable[[str], str]) -> str:
    """The text of a cue, with ``<u>`` around the word that is said and ``<b>`` around keywords."""
    text = shown.cue.text
    said = _place(shown)
    keywords = [(start, end) for start, end, _ in find_keywords(text, shown.keywords if mark_keywords else ())]
    edges = sorted({0, len(text), *said, *(edge for span in keywords for edge in span)})
    parts = []
    for start, end in itertools.pairwise(edges):
        part = escape(text[start:end])
        if any(first <= start < last for first, last in keywords):
            part = f"<b>{part}</b>"
        parts.append(
            ("<u>" if start == said[0] < said[1] else "") + part + ("</u>" if end == said[1] > said[0] else "")
        )
    return "".join(parts)


def _place(shown: _Shown) -> tuple[int, int]:
    """Where the word that is said stands in the cue's text; nowhere is (0, 0)."""
    position = 0
    for word in shown.cue.words if shown.word else ():
        start = shown.cue.text.find(one_line(word.text), position)
        if start < 0:  # it is longer than a line, and begins in the cue before or has a line end in it
            return 0, 0
        position = start + len(one_line(word.text))
        if word is shown.word:
            return start, position
    return 0, 0


def _line(text: str) -> str:
    """One line: a model's reply may hold line ends, and a blank one would end a cue."""
    return " ".join(text.split())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, separator: str) -> str:
    total = round(seconds * 1000)
    return f"{total // 3600000:02}:{total // 60000 % 60:02}:{total // 1000 % 60:02}{separator}{total % 1000:03}"


_WRITERS: dict[str, Callable[[Transcript, Layout], str]] = {
    "txt": _txt,
    "json": _json,
    "srt": _srt,
    "vtt": _vtt,
    "ctm": _ctm,
}
FORMATS = tuple(_WRITERS)
