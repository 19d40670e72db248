"""The terms that the retriever finds in a speech (:mod:`sap2.model.retriever`), the likeliest first.

Notation: K terms, F forms of them, N tokens of all forms one after the other, U distinct tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sap2.pruning.bank import TermBank
from sap2.pruning.calibration import Calibration
from sap2.pruning.spotting import RANKED, RankedKeyword


class AttendedBank:
    """A bank whose terms are ready for the retriever.

    Args:
        bank: the terms.
        tokenize: gives the token ids of each of several texts.

    Attributes:
        tokens: (U,) int64, the distinct tokens of all terms: what the retriever looks for.
    """

    def __init__(self, bank: TermBank, tokenize: Callable[[Sequence[str]], list[list[int]]]):
        self._bank = bank
        written = np.flatnonzero(~bank.by_ear)
        self._owners = bank.owners[written]
        ids = tokenize([bank.forms[number] for number in written])
        self._counts = np.array([len(of_form) for of_form in ids], dtype=np.int64)
        flat = np.array([token for of_form in ids for token in of_form], dtype=np.int64)
        self.tokens, self._places = np.unique(flat, return_inverse=True)
        self._starts = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        return len(self._bank)

    def evidence(self, token_odds: np.ndarray) -> np.ndarray:
        """Log odds (K,) that each term is spoken: those of its best form, and its weight.

        Args:
            token_odds: (U,) log odds that each token is.
        """
        of_forms = np.add.reduceat(token_odds[self._places], self._starts) / self._counts
        starts = np.flatnonzero(np.diff(self._owners, prepend=-1))  # the forms of a term follow each other
        return np.maximum.reduceat(of_forms, starts) + self._bank.log_weights

    def rank(self, token_odds: np.ndarray) -> list[RankedKeyword]:
        """The likeliest terms, at most :data:`sap2.pruning.spotting.RANKED`."""
        evidence = self.evidence(token_odds)
        top = np.argsort(-evidence, kind="stable")[:RANKED]
        return [RankedKeyword(self._bank.terms[n], Calibration.probability(evidence[n])) for n in top]
