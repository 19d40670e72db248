"""When espeak-ng says each word: from the events that it reports while it speaks.

It reports where a word begins, and each phoneme. Words that its dictionary joins ("in the") have one event together;
the second begins at the phoneme that follows those of the first.
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sap2.tables import TimedWord

# Values of espeak-ng's public header (speak_lib.h)
_END_OF_LIST, _WORD, _PHONEME = 0, 1, 7
INITIALIZE_PHONEME_EVENTS = 0x01
_PAUSE = "_"
"""Names of pauses among the phonemes begin so."""


class _Event(ctypes.Structure):
    """``espeak_EVENT``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


EVENTS = ctypes.POINTER(_Event)
"""What a callback of the library gets."""


class Event(NamedTuple):
    """``seconds`` into the speech: a phoneme's ``name``, or None where a word begins at that ``character`` (from 0)."""

    seconds: float
    character: int
    name: str | None


def read_events(events: Any) -> Iterator[Event]:
    """The words and phonemes of a list of events as the library hands it to a callback."""
    for index in itertools.count():
        event = events[index]
        if event.type == _END_OF_LIST:
            return
        if event.type in (_WORD, _PHONEME):
            name = event.name.decode(errors="replace") if event.type == _PHONEME else None
            yield Event(event.audio_position / 1000, event.text_position - 1, name)


def time_words(
    text: str, events: Sequence[Event], seconds: float, count_phonemes: Callable[[str], int]
) -> list[TimedWord]:
    """The words of a text that was spoken in so many seconds.

    Args:
        count_phonemes: of a word alone.
    """
    found = list(re.finditer(r"\S+", text))
    firsts = [match.start() for match in found]
    groups: dict[int, list[Event]] = {}
    for event in events:
        if event.name is None:
            word = bisect.bisect_right(firsts, event.character) - 1 if groups else 0
            groups.setdefault(max([word, *groups]), [event])
        elif groups:
            groups[max(groups)].append(event)
    words: list[TimedWord] = []
    for first, after in itertools.pairwise([*groups, len(found)]):
        texts = [match.group() for match in found[first:after]]
        end = groups[after][0].seconds if after in groups else seconds
        words += _divide(texts, groups[first], end, count_phonemes)
    return words


def _divide(
    texts: Sequence[str], events: Sequence[Event], end: float, count_phonemes: Callable[[str], int]
) -> list[TimedWord]:
    """The words of one word event (the first of the events), which ends where its last pause begins."""
    phonemes = list(events[1:])
    while phonemes and (phonemes[-1].name or "").startswith(_PAUSE):
        end = phonemes.pop().seconds
    counts = [count_phonemes(text) for text in texts[:-1]]
    said = phonemes or events[:1]
    begins = [said[min(done, len(said) - 1)].seconds for done in itertools.accumulate(counts)]
    edges = [events[0].seconds, *begins, end]
    return [TimedWord(text, *edge) for text, edge in zip(texts, itertools.pairwise(edges), strict=True)]
