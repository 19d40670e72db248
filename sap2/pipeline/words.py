"""Words of a transcript with their times: the transcript is laid over what the spotter hears.

A word is what stands between spaces, and in scripts without spaces a letter with its marks. Notation: T frames, 40 ms;
F mel frames, 10 ms.

The spotter writes a letter when it has heard it, and the first of an utterance from what follows, in the silence before
it. Therefore a word begins by a constant of the checkpoint (:class:`Offsets`) earlier than its first letter is written,
and never in a silence.
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
from sap2.pipeline.confidence import (
    Evidence,
    Offsets,
    WordCalibration,
    corrected_words,
    heard_score,
    token_log_probs,
)
from sap2.pipeline.stages import spelled_text
from sap2.pipeline.types import Correction, Word
from sap2.pipeline.utterances import Utterance
from sap2.spelling import find_keywords

FRAME_SECONDS = FRAMES_PER_TOKEN * HOP_LENGTH / SAMPLING_RATE
HOP_SECONDS = HOP_LENGTH / SAMPLING_RATE
LOUD, QUIET = 0.9, 0.05
"""Shares of the frames of an audio: what is louder than the first is speech, than the second not the noise alone."""
SILENCE_BELOW, NOISE_ABOVE = 25.0, 6.0
"""A frame is silent that is so many dB below the speech, or less than so many above the noise."""
_SPELLABLE = 0.5
"""Share of a word's letters that the spotter must be able to write, for the word to be looked for by them."""


class Place(NamedTuple):
    """Where a word stands in a text: [start, end)."""

    start: int
    end: int


class Times(NamedTuple):
    """When a word is said, in seconds, whether its own letters were found there, and how well (nats, at most 0)."""

    start: float
    end: float
    aligned: bool
    heard: float = 0.0


class Laid(NamedTuple):
    """The W words of a text as they lie over the frames of a spotter.

    Attributes:
        starts, ends: (W,) seconds at which the spotter begins to write the first letter of each, and ends the last.
        aligned: whether its own letters were found there.
        heard: how well, in nats, at most 0.
    """

    starts: np.ndarray
    ends: np.ndarray
    aligned: list[bool]
    heard: list[float]


DEFAULT = Offsets()


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


def loudness(features: np.ndarray) -> np.ndarray:
    """Log-mel features (mel bins, F) as Whisper scales them → power of each frame, (F,) in dB."""
    return 10 * np.log10(np.power(10.0, 4 * features - 4).mean(axis=0))


def time_words(
    log_probs: np.ndarray, text: str, seconds: float, loud: np.ndarray | None = None, offsets: Offsets = DEFAULT
) -> list[Times]:
    """When each word of a text is said; they are in order and do not overlap.

    Args:
        log_probs: (T, symbols) of the spotter.
        text: whose words are :func:`find_words`.
        seconds: length of the audio.
        loud: (F,) of :func:`loudness`; None: where it is silent is not known.
        offsets: what is added to the edges of the letters.
    """
    laid = lay_words(log_probs, text)
    if laid is None:
        return _evenly(text, find_words(text), seconds)
    starts, ends = place_words(laid, seconds, loud, offsets)
    return [Times(*times) for times in zip(starts.tolist(), ends.tolist(), laid.aligned, laid.heard, strict=True)]


def lay_words(log_probs: np.ndarray, text: str) -> Laid | None:
    """Lay the words of a text over (T, symbols) of the spotter; None: they do not fit into the frames."""
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
        return None
    starts = np.array([frames[first, 0] for first, _ in spans]) * FRAME_SECONDS
    ends = np.array([frames[last - 1, 1] for _, last in spans]) * FRAME_SECONDS
    scores = [
        heard_score(log_probs, symbols[first:last], frames[first:last]) if known else 0.0
        for (first, last), known in zip(spans, spelled, strict=True)
    ]
    return Laid(starts, ends, spelled, scores)


def place_words(laid: Laid, seconds: float, loud: np.ndarray | None, offsets: Offsets) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (W,) in seconds of what was laid over an audio of that length; see :func:`time_words`."""
    starts, ends = laid.starts + offsets.start, laid.ends + offsets.end
    if loud is not None:
        starts = _after_silence(starts, ends, loud)
    starts = np.maximum.accumulate(starts.clip(0, seconds))
    return starts, np.clip(ends, starts, np.append(starts[1:], seconds))


def _after_silence(starts: np.ndarray, ends: np.ndarray, loud: np.ndarray) -> np.ndarray:
    """Starts in a silence are moved to its end, where that is still before the word's."""
    heard = loud >= max(np.quantile(loud, LOUD) - SILENCE_BELOW, np.quantile(loud, QUIET) + NOISE_ABOVE)
    moved = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        first = max(0, round(start / HOP_SECONDS))
        found = np.flatnonzero(heard[first : max(first, int(end / HOP_SECONDS))])
        moved.append(max(start, (first + int(found[0])) * HOP_SECONDS) if len(found) and found[0] else start)
    return np.array(moved)


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
        calibration: makes probabilities, and says by how much times are off.
    """

    def __init__(self, stage: str, calibration: WordCalibration):
        self._stage, self._calibration = stage, calibration

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
            utterance.words, utterance.evidence = self._words(heard[valid].cpu().numpy(), utterance)
        for _, utterance in asked:
            utterance.word_seconds = (time.perf_counter() - start) / len(asked)

    def _words(self, log_probs: np.ndarray, utterance: Utterance) -> tuple[list[Word], list[Evidence | None]]:
        """The words with what speaks for each; None: it is not known."""
        text = spelled_text(utterance.text, utterance.keywords, utterance.job.word_spelling)
        named = list(find_keywords(text, utterance.keywords))
        places = find_words(text)
        loud = loudness(utterance.heard.features[:, utterance.heard.mask.bool()].numpy())
        timed = time_words(log_probs, text, utterance.heard.seconds, loud, self._calibration.offsets)
        corrected = corrected_words(text, places, utterance.written, utterance.corrections)
        evidence = [
            known if one is None else None
            for known, one in zip(_evidence(utterance, text, places, timed), corrected, strict=True)
        ]
        probabilities = [self._probability(known, one) for known, one in zip(evidence, corrected, strict=True)]
        words = [
            Word(
                text[place.start : place.end],
                round(times.start, 3),
                round(times.end, 3),
                probability,
                next((k.keyword for k in named if k.start < place.end and place.start < k.end), None),
                times.aligned,
            )
            for place, times, probability in zip(places, timed, probabilities, strict=True)
        ]
        return words, evidence

    def _probability(self, known: Evidence | None, correction: Correction | None) -> float | None:
        """That a word is right: of a keyword that was put right, that it was said."""
        if correction is not None:
            return round(correction.probability, 4)
        return None if known is None else round(self._calibration.probability(known), 4)


def _evidence(
    utterance: Utterance, text: str, places: Sequence[Place], timed: Sequence[Times]
) -> list[Evidence | None]:
    if utterance.reply is None:
        return [None] * len(places)
    tokens = token_log_probs(utterance.reply, utterance.written, text, places, utterance.corrections)
    return [
        Evidence(sum(log_probs), times.heard) if log_probs else None
        for log_probs, times in zip(tokens, timed, strict=True)
    ]
