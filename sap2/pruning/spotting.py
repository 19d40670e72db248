"""The terms that the spotter finds in a speech, the likeliest first.

Notation: K terms, F forms of them (a term has one or more), T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from sap2.model.search import STEP, UNREACHED, best_paths
from sap2.model.spotter import LETTER_WORTH, Spelled
from sap2.pruning.bank import Term, TermBank
from sap2.pruning.calibration import Calibration

RANKED = 50
"""Terms of a ranking at most: what comes later is not said."""


class RankedKeyword(NamedTuple):
    """A keyword of the list, and the probability that it is spoken."""

    keyword: str
    probability: float


class Salience(NamedTuple):
    """What the spotter says of each term of a bank.

    Attributes:
        salience: (K,) of its best form; -inf where no form fits into the frames.
        letters: (K,) of that form.
    """

    salience: np.ndarray
    letters: np.ndarray


def term_salience(heard: Spelled, bank: TermBank) -> Salience:
    """Look for all terms of a bank in one speech; ``heard`` is of one audio."""
    best = best_paths(heard.scores, heard.mask, bank.trie)[0].cpu().numpy()
    forms = np.where(best == UNREACHED, -np.inf, best * STEP + LETTER_WORTH * bank.letters)
    if len(forms) == len(bank):  # one form each, in the order of the terms
        return Salience(forms, bank.letters)
    # the forms of a term follow each other
    starts = np.flatnonzero(np.diff(bank.owners, prepend=-1))
    salience = np.maximum.reduceat(forms, starts)
    first = np.flatnonzero(forms == salience[bank.owners])
    chosen = first[np.searchsorted(bank.owners[first], np.arange(len(bank)))]
    return Salience(salience, bank.letters[chosen])


def rank_spotted(heard: Spelled, banks: Sequence[TermBank], calibration: Calibration) -> list[RankedKeyword]:
    """The terms of all banks by how likely they are spoken in one speech, at most :data:`RANKED`.

    A term of several banks is ranked once, as the first of them writes it.
    """
    entries = sum(map(len, banks))
    return merge_rankings([_rank(heard, bank, entries, calibration) for bank in banks if len(bank)])


def _rank(heard: Spelled, bank: TermBank, entries: int, calibration: Calibration) -> list[RankedKeyword]:
    evidence = calibration.evidence(*term_salience(heard, bank), entries) + bank.log_weights
    count = min(RANKED, len(bank))
    top = np.argpartition(-evidence, count - 1)[:count]
    top = top[np.lexsort((top, -evidence[top]))]
    return [
        RankedKeyword(bank.terms[number], calibration.probability(evidence[number]))
        for number in top[np.isfinite(evidence[top])]
    ]


def heard_in(frames: Spelled, index: int) -> Spelled:
    """One audio of a batch."""
    return Spelled(frames.scores[index : index + 1], frames.mask[index : index + 1])


def list_bank(keywords: Sequence[str]) -> TermBank:
    """A row's own list as a bank."""
    with torch.no_grad():
        return TermBank(Term(keyword) for keyword in keywords)


def merge_rankings(rankings: Sequence[Sequence[RankedKeyword]]) -> list[RankedKeyword]:
    """One ranking of several: each keyword once, as it is written first, with the highest probability it has."""
    merged: dict[str, RankedKeyword] = {}
    for entry in (entry for ranking in rankings for entry in ranking):
        known = merged.get(entry.keyword.casefold())
        if known is None or known.probability < entry.probability:
            merged[entry.keyword.casefold()] = entry if known is None else known._replace(probability=entry.probability)
    return sorted(merged.values(), key=lambda entry: -entry.probability)[:RANKED]
