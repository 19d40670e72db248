"""The opponent that costs nothing: what the spotter reads is text, and its words are looked up in the list.

Words that everybody knows are left out; the others, and pairs and triples of neighbours, are compared with the terms
that share most pairs of letters with them, and the terms that are nearly the same are taken, or else the 15 nearest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from sap2.pruning.bank import TermBank
from sap2.pruning.spotting import RankedKeyword

SAME = 0.9
"""Likeness from which a term counts as the word that was read."""
NEAREST = 15
"""Terms that are taken where none is the same."""
COMPARED = 200
"""Terms that are compared with a word letter by letter, at most."""
LONGEST_RUN = 3
"""Neighbouring words that are looked up as one term, at most."""


def greedy_text(log_probs: Tensor) -> str:
    """What the spotter reads: its best symbol of each frame (T, symbols), repeats and blanks left out."""
    symbols = log_probs.argmax(-1).unique_consecutive().tolist()
    return bytes(symbol - 1 for symbol in symbols if symbol).decode(errors="ignore")


class Matcher:
    """A bank that words are looked up in.

    Args:
        bank: the terms.
        common: words that are not looked up.
    """

    def __init__(self, bank: TermBank, common: Collection[str]):
        self._bank = bank
        self._common = common
        self._folded = [term.casefold() for term in bank.terms]
        places: dict[str, list[int]] = defaultdict(list)
        for number, term in enumerate(self._folded):
            for pair in _pairs(term):
                places[pair].append(number)
        self._places = {pair: np.array(numbers) for pair, numbers in places.items()}
        self._sizes = np.array([len(_pairs(term)) for term in self._folded])

    def rank(self, text: str) -> list[RankedKeyword]:
        """The terms that the words of a text may stand for, the most alike first.

        The number beside a term is its likeness to the word (0 to 1), not a probability.
        """
        alike: dict[int, float] = {}
        for query in self._queries(text.split()):
            for number in self._candidates(query):
                likeness = Levenshtein.normalized_similarity(query, self._folded[number])
                alike[number] = max(likeness, alike.get(number, 0.0))
        order = sorted(alike, key=lambda number: -alike[number])
        same = [number for number in order if alike[number] >= SAME]
        return [RankedKeyword(self._bank.terms[number], alike[number]) for number in same or order[:NEAREST]]

    def _queries(self, words: Sequence[str]) -> Iterator[str]:
        rare = [word not in self._common for word in words]
        for first in range(len(words)):
            for last in range(first + 1, min(first + LONGEST_RUN, len(words)) + 1):
                if all(rare[first:last]):
                    yield " ".join(words[first:last])

    def _candidates(self, query: str) -> Iterable[int]:
        """The terms with most pairs of letters in common, relative to what they have."""
        pairs = _pairs(query)
        places = [self._places[pair] for pair in pairs if pair in self._places]
        if not places:
            return []
        shared = np.bincount(np.concatenate(places), minlength=len(self._sizes))
        dice = 2 * shared / (self._sizes + len(pairs))
        top = np.argsort(-dice, kind="stable")[:COMPARED]
        return top[shared[top] > 0].tolist()


def _pairs(word: str) -> set[str]:
    """Pairs of neighbouring letters, with the edges of the word."""
    edged = f" {word} "
    return {edged[place : place + 2] for place in range(len(edged) - 1)}
