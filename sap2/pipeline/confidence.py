"""How sure a transcript's words are: what the language model and the spotter say of each, as a probability; and by how
much their times are off.

The evidence is weighed by a logistic regression that is fitted on talks of known transcripts and kept with the adapter:
a language model that was trained until it makes few errors is surer of itself than it should be. A spotter's habit of
writing letters late or early is of its training too, and kept in the same place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sap2.pipeline.engines.base import Reply
from sap2.pipeline.types import Correction
from sap2.pruning.calibration import read_weights, sigmoid, write_weights

FILE_NAME = "words.json"
"""Beside the weights of the adapter that it was fitted for."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a token that is a part of a character is read as."""


class Evidence(NamedTuple):
    """What speaks for one word, in nats.

    Attributes:
        log_prob: of its tokens, given all before them.
        heard: of its letters as the spotter hears them, less that of the best ones in the same frames; mean over its
            letters, 0 where it cannot spell the word.
    """

    log_prob: float
    heard: float


class Offsets(NamedTuple):
    """What is added to the times at which the spotter writes the first letter of a word and the last: seconds.

    The defaults, for a checkpoint that says nothing of its own, were fitted on development talks with sap2-tiny.
    """

    start: float = -0.05
    end: float = 0.0


class WordCalibration(NamedTuple):
    """What is known of the words of an adapter: weights of the evidence, in nats of log odds, and offsets of times.

    Attributes:
        constant: of every word.
        log_prob, heard: for each nat of these (:class:`Evidence`).
        offsets: of the times.

    The defaults are those of sap2-tiny.
    """

    constant: float = 5.2
    log_prob: float = 5.8
    heard: float = 0.64
    offsets: Offsets = Offsets()

    def probability(self, evidence: Evidence) -> float:
        """That the word is right."""
        return sigmoid(self.constant + self.log_prob * evidence.log_prob + self.heard * evidence.heard)

    def save(self, folder: str | os.PathLike[str], **notes: Any) -> Path:
        """Write it beside an adapter; ``notes`` say what it was fitted on."""
        weights = {name: getattr(self, name) for name in _WEIGHTS}
        return write_weights(Path(folder) / FILE_NAME, weights | self.offsets._asdict(), notes)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> WordCalibration | None:
        """That of an adapter, or None where it has none. A file that says nothing of times is from before they were
        fitted, and leaves the default.

        Raises:
            InputError: the file is not one that :meth:`save` wrote.
        """
        found = read_weights(Path(folder) / FILE_NAME, "words", _WEIGHTS, Offsets._fields)
        if found is None:
            return None
        weights = {name: found.pop(name) for name in _WEIGHTS}
        return cls(**weights, offsets=Offsets(**found))


_WEIGHTS = tuple(name for name in WordCalibration._fields if name != "offsets")


def token_log_probs(
    reply: Reply,
    transcript: str,
    text: str,
    places: Sequence[tuple[int, int]],
    corrections: Sequence[Correction] = (),
) -> list[list[float]]:
    """The log probabilities of the tokens of each word; none where a word has no letter or cannot be found.

    Args:
        transcript: what was read in the reply.
        text: the same as it is given to people: other case, other marks between letters.
        places: the words of the text, [start, end).
        corrections: keywords that the text has in the place of parts of the transcript, in order; such a word has the
            tokens of what was replaced.
    """
    shift = reply.text.rfind(transcript)
    said = [(letter, at) for letter, at, _ in _origins(transcript, corrections)]
    given = list(_letters(text))
    if shift < 0 or [letter for letter, _ in said] != [letter for letter, _ in given]:
        return [[] for _ in places]
    spans = token_spans(reply)
    found = []
    for start, end in places:
        where = [shift + at for (_, at), (_, here) in zip(said, given, strict=True) if start <= here < end]
        first, last = (where[0], where[-1]) if where else (0, -1)
        found.append([p for p, (a, b) in zip(reply.log_probs, spans, strict=True) if a <= last and first < b])
    return found


def token_spans(reply: Reply) -> list[tuple[int, int]]:
    """Where each token of a reply stands in its text: [start, end); parts of a character share its place."""
    spans: list[tuple[int, int]] = []
    waiting, position = 0, 0
    for piece in reply.pieces:
        place = reply.text.find(piece, position) if piece and _BROKEN not in piece else -1
        if place < 0:
            waiting += 1
            continue
        spans += [(position, place)] * waiting
        spans.append((place, place + len(piece)))
        waiting, position = 0, place + len(piece)
    return spans + [(position, len(reply.text))] * waiting


def _letters(text: str) -> Iterator[tuple[str, int]]:
    """The letters and digits of a text, case folded, and where each stands."""
    for position, character in enumerate(text):
        if character.isalnum():
            for letter in character.casefold():
                yield letter, position


def corrected_words(
    text: str, places: Sequence[tuple[int, int]], transcript: str, corrections: Sequence[Correction]
) -> list[Correction | None]:
    """The correction that each word of a text comes from; None: it is the model's.

    Args:
        text, places, transcript, corrections: of :func:`token_log_probs`.
    """
    owners = [owner for *_, owner in _origins(transcript, corrections)]
    owned = {at: owner for (_, at), owner in zip(_letters(text), owners, strict=False) if owner is not None}
    return [next((owned[at] for at in range(*place) if at in owned), None) for place in places]


def _origins(transcript: str, corrections: Sequence[Correction]) -> Iterator[tuple[str, int, Correction | None]]:
    """The letters of a transcript with its corrections: where each comes from, and of which correction it is."""
    position = 0
    for one in corrections:
        yield from ((letter, position + at, None) for letter, at in _letters(transcript[position : one.start]))
        letters = [letter for letter, _ in _letters(one.keyword)]
        for number, letter in enumerate(letters, 1):  # the last letter is of the last token
            yield letter, one.end - 1 if number == len(letters) else min(one.start + number, one.end) - 1, one
        position = one.end
    yield from ((letter, position + at, None) for letter, at in _letters(transcript[position:]))


def heard_score(log_probs: np.ndarray, symbols: Sequence[int], frames: np.ndarray) -> float:
    """How well a word is heard: mean over its letters of the best log probability that a letter has in its frames, less
    that of the best symbol there.

    Args:
        log_probs: (T, symbols).
        symbols: n of the word.
        frames: (n, 2), the frames of each.
    """
    relative = log_probs - log_probs.max(axis=1, keepdims=True)
    scores = [relative[a:b, symbol].max() for symbol, (a, b) in zip(symbols, frames.tolist(), strict=True)]
    return float(np.mean(scores))
