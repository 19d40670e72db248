"""The list must never come out as the transcript: replies that look so are decoded again without the list.

A reply is suspected of two things:

- ``list``: it holds three or more entries of the list one after the other, in the list's order and with nothing between
  them, or it is the list, of two entries or more;
- ``short``: it has fewer than 1.5 letters for a second of audio, an eighth of what people say.

Speakers do read lists aloud, and silence is silent. So the reply without the list decides, which has heard the same
audio: the suspected one was a leak, and is replaced, where the other has nothing alike for most of the entries, or
where it is at least twice as long. Else it stays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from sap2.text import keep_results, split_words

RUN = 3
"""Entries of the list, one after the other, that are suspect."""
LETTERS_A_SECOND = 1.5
"""Fewer are suspect: people say 12 in English and 4 in Chinese."""
SHORTEST_SECONDS = 2.0
"""Of audio; shorter ones are not suspected of being short."""
ALIKE = 0.5
"""Likeness from which a word that was heard may be an entry."""
_BETWEEN_WORDS = re.compile(r"[^\w']+|_")


class Suspicion(NamedTuple):
    """Why a reply looks like a leak.

    Attributes:
        reason: ``list`` or ``short``.
        entries: of the list that follow each other in the reply, as words.
    """

    reason: str
    entries: tuple[tuple[str, ...], ...] = ()


class Leak(NamedTuple):
    """A reply that was decoded again without the list.

    Attributes:
        reason: see :class:`Suspicion`.
        reply: the suspected one.
        replaced: whether it was a leak, and the reply without the list is the result.
    """

    reason: str
    reply: str
    replaced: bool


def suspect(text: str, told: Sequence[str], seconds: float) -> Suspicion | None:
    """Why a transcript looks like a leak of the keywords that the model was told; None where it does not.

    Args:
        told: in the order of the prompt.
        seconds: of the audio.
    """
    if not told:
        return None
    words, entries = _words(text), [entry for entry in map(_words, told) if entry]
    run = _longest_run(words, entries)
    if len(run) >= RUN or (len(run) >= 2 and len(run) == len(entries) and sum(map(len, run)) == len(words)):
        return Suspicion("list", tuple(run))
    if seconds >= SHORTEST_SECONDS and _letters(text) < LETTERS_A_SECOND * seconds:
        return Suspicion("short")
    return None


def is_leak(suspicion: Suspicion, text: str, without_list: str) -> bool:
    """Whether the reply without the list shows that the suspected one was a leak."""
    if suspicion.reason == "short":
        return _letters(without_list) >= 2 * max(1, _letters(text))
    heard = _words(without_list)
    found = sum(_is_alike(entry, heard) for entry in suspicion.entries)
    return 2 * found < len(suspicion.entries)


@keep_results
def _words(text: str) -> tuple[str, ...]:
    """Words without case and punctuation; a character of Chinese is a word."""
    text = unicodedata.normalize("NFKC", text).translate({ord("’"): "'"}).casefold()
    return tuple(split_words(_BETWEEN_WORDS.sub(" ", text), char=True))


def _letters(text: str) -> int:
    return sum(c.isalnum() for c in text)


def _longest_run(words: Sequence[str], entries: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The longest run of neighbouring entries, in their order, that the words hold without anything between them."""
    starts: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        starts.setdefault(entry[0], []).append(number)
    longest: list[tuple[str, ...]] = []
    for place, word in enumerate(words):
        for number in starts.get(word, ()):
            end, last = place, number
            while last < len(entries) and tuple(words[end : end + len(entries[last])]) == entries[last]:
                end, last = end + len(entries[last]), last + 1
            if last - number > len(longest):
                longest = list(entries[number:last])
    return longest


def _is_alike(entry: Sequence[str], heard: Sequence[str]) -> bool:
    """Whether some neighbouring words, as many as the entry has or one more or less, may be the entry."""
    written = "".join(entry)
    for length in {max(1, len(entry) - 1), len(entry), len(entry) + 1}:
        for first in range(len(heard) - length + 1):
            if Levenshtein.normalized_similarity(written, "".join(heard[first : first + length])) >= ALIKE:
                return True
    return False
