"""Segments to subtitles that can be read: short cues, cut between words.

With the times of words a cue is there while its words are said, and longer where it could not be read in that time.
Without them, a word's time is taken as its share of the segment's letters.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from sap2.pipeline.types import Segment, Word

_PIECE = 6
"""Characters of a piece of a word that is longer than a line: text without spaces is cut there."""
LETTERS_PER_SECOND = 17
"""That most people read; the rule of many broadcasters."""
LEAST_SECONDS = 1.0
"""That a cue is shown, where the next one leaves it the time."""
_PHRASE_END = re.compile(r"[.,;:!?…。，、；：！？][\"'”’)\]»]*$")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How subtitles look. The defaults are those of most broadcasters.

    Attributes:
        max_line_width: characters of a line.
        max_line_count: lines of a cue.
        max_seconds: that a cue is shown.
        mark_keywords: WebVTT has the keywords that were used between ``<b>`` and ``</b>``.
        highlight_words: each word is underlined while it is said; needs their times.
    """

    max_line_width: int = 42
    max_line_count: int = 2
    max_seconds: float = 7.0
    mark_keywords: bool = False
    highlight_words: bool = False


class Cue(NamedTuple):
    """A subtitle: from when to when (seconds), its lines, and its words where their times are known."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


class _Unit(NamedTuple):
    """What is not divided: a word with the space before it, or a piece of a long word. ``word`` where its time is
    known, at its last piece."""

    text: str
    start: float
    end: float
    word: Word | None = None


def cut_cues(segment: Segment, layout: Layout) -> list[Cue]:
    """The cues of a segment, in order; together they have all of its words."""
    units = _units(segment, layout.max_line_width)
    if not units:
        return []
    sums = [0, *itertools.accumulate(len(unit.text) for unit in units)]

    def fits(first: int, last: int) -> bool:
        within = units[last - 1].end - units[first].start <= layout.max_seconds
        return last == first + 1 or (within and len(_lines(units[first:last], layout)) <= layout.max_line_count)

    greedy = _divide(units, fits)
    share = sums[-1] / len(greedy)
    even = _divide(units, lambda first, last: fits(first, last) and sums[last - 1] - sums[first] < share - _PIECE / 2)
    return [_cue(units[first:last], layout) for first, last in (even if len(even) == len(greedy) else greedy)]


def readable(cues: Iterable[Cue], layout: Layout, seconds: float) -> Iterator[Cue]:
    """The cues of a recording of so many seconds; those with times of words stay until they can be read, where the
    next one leaves them the time."""
    for cue, after in itertools.pairwise([*cues, Cue(seconds, seconds, "")]):
        wanted = cue.start + min(layout.max_seconds, max(LEAST_SECONDS, len(cue.text) / LETTERS_PER_SECOND))
        yield cue._replace(end=max(cue.end, min(wanted, after.start))) if cue.words else cue


def _cue(units: Sequence[_Unit], layout: Layout) -> Cue:
    words = tuple(unit.word for unit in units if unit.word is not None)
    end = min(units[-1].end, units[0].start + layout.max_seconds)
    return Cue(units[0].start, end, "\n".join(_lines(units, layout)), words)


def _divide(units: Sequence[_Unit], fits: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Spans of units, each as long as it fits, or up to the end of a phrase in its second half."""
    spans, first = [], 0
    for last in range(1, len(units) + 1):
        if not fits(first, last):
            ends = [place for place in range((first + last) // 2 + 1, last - 1) if _ends_phrase(units[place - 1])]
            place = ends[-1] if ends else last - 1
            spans.append((first, place))
            first = place
    return [*spans, (first, len(units))]


def _ends_phrase(unit: _Unit) -> bool:
    return _PHRASE_END.search(unit.text) is not None


def _units(segment: Segment, width: int) -> list[_Unit]:
    text = one_line(segment.text)
    if segment.words:
        return [unit for part, word in _with_spaces(text, segment.words) for unit in _pieces(part, width, word)]
    pieces = [unit.text for match in re.finditer(r"\s*\S+", text) for unit in _pieces(match.group(), width, None)]
    sums = [0, *itertools.accumulate(map(len, pieces))]
    times = [segment.start + (segment.end - segment.start) * done / max(1, sums[-1]) for done in sums]
    return [_Unit(piece, *edges) for piece, edges in zip(pieces, itertools.pairwise(times), strict=True)]


def _with_spaces(text: str, words: Sequence[Word]) -> Iterator[tuple[str, Word]]:
    """The words of a text, each with the space before it."""
    position = 0
    for word in words:
        shown = one_line(word.text)
        place = text.index(shown, position)
        yield text[position:place] + shown, word
        position = place + len(shown)


def _pieces(text: str, width: int, word: Word | None) -> list[_Unit]:
    """One unit, or pieces of a word that is longer than a line, which share its time."""
    step = len(text) if len(text) <= width else min(_PIECE, width)
    starts = range(0, len(text), step)
    start, seconds = (word.start, word.end - word.start) if word else (0.0, 0.0)
    edges = [start + seconds * min(place, len(text)) / len(text) for place in [*starts, len(text)]]
    return [
        _Unit(text[place : place + step], *times, word if place + step >= len(text) else None)
        for place, times in zip(starts, itertools.pairwise(edges), strict=True)
    ]


def _lines(units: Sequence[_Unit], layout: Layout) -> list[str]:
    text = "".join(unit.text for unit in units).strip()
    return textwrap.wrap(text, layout.max_line_width, break_on_hyphens=False)


def one_line(text: str) -> str:
    """One line that ends no cue: a model's reply may hold line ends, and arrows as those between times."""
    return " ".join(text.split()).replace("-->", "->")
