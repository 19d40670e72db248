"""Words of a transcript with their times: the transcript is laid over what the spotter hears.

A word is what stands between spaces, and in scripts without spaces a letter with its marks. Notation: T frames, 40 ms.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sap2.lengths import FRAMES_PER_TOKEN, HOP_LENGTH, SAMPLING_RATE
from sap2.model.alignment import ANY, align, heard_symbols
from sap2.model.spotter import NO_SPACES, SPACE, spelling
from sap2.pipeline.asking import Hearing
from sap2.pipeline.stages import spelled_text
from sap2.pipeline.types import Word
from sap2.pipeline.utterances import Utterance
from sap2.spelling import find_keywords

FRAME_SECONDS = FRAMES_PER_TOKEN * HOP_LENGTH / SAMPLING_RATE
_SPELLABLE = 0.5
"""Share of a word's letters that the spotter must be able to write, for the word to be looked for by them."""


class Place(NamedTuple):
    """Where a word stands in a text: [start, end)."""

    start: int
    end: int


class Times(NamedTuple):
    """When a word is said, in seconds, and whether its own letters were found there."""

    start: float
    end: float
    aligned: bool


def find_words(text: str) -> list[Place]:
    """The words of a text; every character that is no space belongs to one.

    >>> [("emily  met 王小明。")[start:end] for start, end in find_words("emily  met 王小明。")]
    ['emily', 'met', '王', '小', '明。']
    """
    return [place for match in re.finditer(r"\S+", text) for place in _parts(text, match.start(), match.end())]


def _parts(text: str, start: int, end: int) -> Iterator[Place]:
    """A run without spaces: letters of scripts that put none between words stand for themselves."""
    first, said = start, False
    for position in range(start, end):
        letter = text[position].isalnum()
        alone = bool(NO_SPACES.match(text[position]) or (position > start and NO_SPACES.match(text[position - 1])))
        if letter and said and alone:
            yield Place(first, position)
            first = position
        said = said or letter
    yield Place(first, end)


def time_words(log_probs: np.ndarray, text: str, seconds: float) -> list[Times]:
    """When each word of a text is said; they are in order and do not overlap.

    Args:
        log_probs: (T, symbols) of the spotter.
        text: whose words are :func:`find_words`.
        seconds: length of the audio.
    """
    places = find_words(text)
    heard = heard_symbols(log_probs)
    symbols: list[int] = []
    spans, spelled = [], []
    for index, place in enumerate(places):
        if index and place.start > places[index - 1].end and heard[SPACE]:
            symbols.append(SPACE)
        own, known = _symbols(text[place.start : place.end], heard)
        spans.append((len(symbols), len(symbols) + len(own)))
        spelled.append(known)
        symbols += own
    frames = align(log_probs, symbols)
    if frames is None:
        return _evenly(text, places, seconds)
    return [
        Times(
            min(float(frames[first, 0]) * FRAME_SECONDS, seconds),
            min(float(frames[last - 1, 1]) * FRAME_SECONDS, seconds),
            known,
        )
        for (first, last), known in zip(spans, spelled, strict=True)
    ]


def _symbols(word: str, heard: np.ndarray) -> tuple[list[int], bool]:
    """What of a word is looked for, and whether it is the word's spelling."""
    whole = spelling(word)
    known = [symbol for symbol in whole if heard[symbol]]
    enough = bool(known) and len(known) >= _SPELLABLE * len(whole)
    return (known, True) if enough else ([ANY], False)


def _evenly(text: str, places: Sequence[Place], seconds: float) -> list[Times]:
    """Where the text does not fit into the frames: each word's share of the letters."""
    sums = np.cumsum([0, *(place.end - place.start for place in places)])
    times = (sums / max(1, sums[-1]) * seconds).tolist()
    return [Times(start, end, False) for start, end in itertools.pairwise(times)]


class WordTimer:
    """Times the words of utterances that ask for it.

    Args:
        stage: whose adapter listens.
    """

    def __init__(self, stage: str):
        self._stage = stage

    def add(self, hearing: Hearing, utterances: Sequence[tuple[int, Utterance]]) -> None:
        """Write the words into those utterances, each given with its row of the hearing, that ask for them.

        Raises:
            InputError: the spotter is not trained.
        """
        asked = [(row, utterance) for row, utterance in utterances if utterance.job.word_spelling is not None]
        if not asked:
            return
        start = time.perf_counter()
        log_probs, mask = hearing.take([row for row, _ in asked]).letters(self._stage)
        for heard, valid, (_, utterance) in zip(log_probs, mask, asked, strict=True):
            utterance.words = _words(heard[valid].cpu().numpy(), utterance)
        for _, utterance in asked:
            utterance.word_seconds = (time.perf_counter() - start) / len(asked)


def _words(log_probs: np.ndarray, utterance: Utterance) -> list[Word]:
    text = spelled_text(utterance.text, utterance.keywords, utterance.job.word_spelling)
    named = list(find_keywords(text, utterance.keywords))
    timed = zip(find_words(text), time_words(log_probs, text, utterance.heard.seconds), strict=True)
    return [
        Word(
            text[place.start : place.end],
            round(times.start, 3),
            round(times.end, 3),
            keyword=next((k.keyword for k in named if k.start < place.end and place.start < k.end), None),
            aligned=times.aligned,
        )
        for place, times in timed
    ]
