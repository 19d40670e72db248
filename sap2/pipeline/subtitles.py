"""A transcript as plain text, JSON, SRT or WebVTT.

A segment is one line of text, and one or more cues of subtitles: short enough to be read, cut between words. When a
word is said is not known within a segment; its time is taken as its share of the segment's letters.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sap2.pipeline.types import Segment, Transcript
from sap2.spelling import find_keywords

_PIECE = 6
"""Characters of a piece of a word that is longer than a line: text without spaces is cut there."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How subtitles look. The defaults are those of most broadcasters.

    Attributes:
        max_line_width: characters of a line.
        max_line_count: lines of a cue.
        max_seconds: that a cue is shown.
        mark_keywords: WebVTT has the keywords that were used between ``<b>`` and ``</b>``.
    """

    max_line_width: int = 42
    max_line_count: int = 2
    max_seconds: float = 7.0
    mark_keywords: bool = False


class Cue(NamedTuple):
    """A subtitle: from when to when (seconds), and its lines."""

    start: float
    end: float
    text: str


def format_transcript(transcript: Transcript, format: str, layout: Layout | None = None) -> str:
    """The transcript in one of :data:`FORMATS`, ending with a line end."""
    return _WRITERS[format](transcript, layout or Layout())


def cut_cues(segment: Segment, layout: Layout) -> list[Cue]:
    """The cues of a segment, in order; together they have all of its words and the same number of letters each."""
    units = _units(_cue(segment.text), layout.max_line_width)
    if not units:
        return []
    sums = [0, *itertools.accumulate(map(len, units))]
    times = [segment.start + (segment.end - segment.start) * done / sums[-1] for done in sums]

    def fits(first: int, last: int) -> bool:
        lines = _lines(units[first:last], layout)
        within = times[last] - times[first] <= layout.max_seconds
        return last == first + 1 or (within and len(lines) <= layout.max_line_count)

    greedy = _divide(len(units), fits)
    share = sums[-1] / len(greedy)
    even = _divide(
        len(units), lambda first, last: fits(first, last) and sums[last - 1] - sums[first] < share - _PIECE / 2
    )
    spans = even if len(even) == len(greedy) else greedy
    return [
        Cue(
            times[first],
            min(times[last], times[first] + layout.max_seconds),
            "\n".join(_lines(units[first:last], layout)),
        )
        for first, last in spans
    ]


def _divide(length: int, fits: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Spans of units, each as long as it fits."""
    spans, first = [], 0
    for last in range(1, length + 1):
        if not fits(first, last):
            spans.append((first, last - 1))
            first = last - 1
    return [*spans, (first, length)]


def _units(text: str, width: int) -> list[str]:
    """Words with the space before them; pieces of words that are longer than a line."""
    units = []
    for word in re.findall(r"\s*\S+", text):
        step = len(word) if len(word) <= width else min(_PIECE, width)
        units += [word[start : start + step] for start in range(0, len(word), step)]
    return units


def _lines(units: Sequence[str], layout: Layout) -> list[str]:
    return textwrap.wrap("".join(units).strip(), layout.max_line_width, break_on_hyphens=False)


def _txt(transcript: Transcript, layout: Layout) -> str:
    return "".join(_line(segment.text) + "\n" for segment in transcript.segments if _line(segment.text))


def _json(transcript: Transcript, layout: Layout) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def _srt(transcript: Transcript, layout: Layout) -> str:
    """Source: the SubRip convention (hours:minutes:seconds,milliseconds; numbers from 1; a blank line between)."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{cue.text}\n"
        for number, (_, cue) in enumerate(_all_cues(transcript, layout), 1)
    )


def _vtt(transcript: Transcript, layout: Layout) -> str:
    """Source: https://www.w3.org/TR/webvtt1/ ("&", "<" and "-->" may not stand in a cue's text)."""
    cues = []
    for segment, cue in _all_cues(transcript, layout):
        text = _marked(cue.text, segment.picked_keywords) if layout.mark_keywords else _escape(cue.text)
        cues.append(f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{text}\n")
    return "\n".join(["WEBVTT\n", *cues])


def _all_cues(transcript: Transcript, layout: Layout) -> Iterator[tuple[Segment, Cue]]:
    for segment in transcript.segments:
        for cue in cut_cues(segment, layout):
            yield segment, cue


def _marked(text: str, keywords: Sequence[str]) -> str:
    parts, position = [], 0
    for start, end, _ in find_keywords(text, keywords):
        parts += [_escape(text[position:start]), "<b>", _escape(text[start:end]), "</b>"]
        position = end
    return "".join([*parts, _escape(text[position:])])


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


_WRITERS: dict[str, Callable[[Transcript, Layout], str]] = {"txt": _txt, "json": _json, "srt": _srt, "vtt": _vtt}
FORMATS = tuple(_WRITERS)
