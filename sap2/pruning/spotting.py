"""The terms that the spotter finds in a speech, the likeliest first.

Notation: K terms, F forms of them (a term has one or more), T frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sap2.model.search import STEP, UNREACHED, best_paths
from sap2.model.spans import best_spans
from sap2.model.spotter import LETTER_WORTH, LONGEST_KEYWORD, Spelled, pad_spellings
from sap2.pruning.bank import Term, TermBank
from sap2.pruning.calibration import Calibration
from sap2.text import keep_list_results

RANKED = 50
"""Terms of a ranking at most: what comes later is not said."""
BY_EAR = 2.0
"""What a form costs that lacks letters of the term that are not heard, in nats: of two terms that differ in these
alone, the one is likelier that is written as it is heard."""


class RankedKeyword(NamedTuple):
    """A keyword of the list, and the probability that it is spoken."""

    keyword: str
    probability: float


class Salience(NamedTuple):
    """What the spotter says of each term of a bank.

    Attributes:
        salience: (K,) of its best form; -inf where no form fits into the frames.
        letters: (K,) of that form.
        forms: (K,) its number among the forms.
    """

    salience: np.ndarray
    letters: np.ndarray
    forms: np.ndarray


class Candidate(NamedTuple):
    """A term that may be spoken: as it is written, the ``form`` that was found, and its ``evidence`` (log odds)."""

    keyword: str
    form: str
    evidence: float


def term_salience(heard: Spelled, bank: TermBank) -> Salience:
    """Look for all terms of a bank in one speech; ``heard`` is of one audio."""
    best = best_paths(heard.scores, heard.mask, bank.trie)[0].cpu().numpy()
    forms = np.where(best == UNREACHED, -np.inf, best * STEP + LETTER_WORTH * bank.letters - BY_EAR * bank.by_ear)
    if len(forms) == len(bank):  # one form each, in the order of the terms
        return Salience(forms, bank.letters, np.arange(len(bank)))
    # the forms of a term follow each other
    starts = np.flatnonzero(np.diff(bank.owners, prepend=-1))
    salience = np.maximum.reduceat(forms, starts)
    first = np.flatnonzero(forms == salience[bank.owners])
    chosen = first[np.searchsorted(bank.owners[first], np.arange(len(bank)))]
    return Salience(salience, bank.letters[chosen], chosen)


def rank_spotted(heard: Spelled, banks: Sequence[TermBank], calibration: Calibration) -> list[RankedKeyword]:
    """The terms of all banks by how likely they are spoken in one speech, at most :data:`RANKED`.

    Banks that come first are likelier: a term counts as one of those of its own bank and of the banks before it. A
    term of several banks is ranked once, as the first of them writes it. Of terms that are found in the same frames
    no more than one is spoken.
    """
    candidates = find_candidates(heard, banks, calibration)
    evidence = np.array([one.evidence for one in candidates])
    odds = calibration.contested(evidence, rival_evidence(heard, [one.form for one in candidates], evidence))
    order = np.argsort(-odds, kind="stable")
    return [RankedKeyword(candidates[number].keyword, calibration.probability(odds[number])) for number in order]


def find_candidates(heard: Spelled, banks: Sequence[TermBank], calibration: Calibration) -> list[Candidate]:
    """The terms with most evidence, each by itself: at most :data:`RANKED`, most evidence first."""
    found: dict[str, Candidate] = {}
    entries = 0
    for bank in banks:
        entries += len(bank)
        for one in _first_of(heard, bank, entries, calibration) if len(bank) else ():
            known = found.setdefault(one.keyword.casefold(), one)
            if known.evidence < one.evidence:
                found[one.keyword.casefold()] = one._replace(keyword=known.keyword)
    return sorted(found.values(), key=lambda one: -one.evidence)[:RANKED]


def _first_of(heard: Spelled, bank: TermBank, entries: int, calibration: Calibration) -> list[Candidate]:
    salience, letters, forms = term_salience(heard, bank)
    evidence = calibration.evidence(salience, letters, entries) + bank.log_weights
    count = min(RANKED, len(bank))
    top = np.argpartition(-evidence, count - 1)[:count]
    top = top[np.lexsort((top, -evidence[top]))]
    return [
        Candidate(bank.terms[number], bank.forms[forms[number]], float(evidence[number]))
        for number in top[np.isfinite(evidence[top])]
    ]


def rival_evidence(heard: Spelled, forms: Sequence[str], evidence: np.ndarray) -> np.ndarray:
    """What stands against each of a few terms: log of 1 (none of them is spoken there) and of the odds of all others
    that are found in the same frames.

    Two terms are rivals where they share half of the shorter one's frames.

    Args:
        heard: of one audio.
        forms: (N) that were found, all of which fit into the frames.
        evidence: (N,) of each.
    """
    if not len(forms):
        return np.zeros(0)
    scores = heard.scores[0, : int(heard.mask.sum())].cpu().numpy()
    spans = best_spans(scores, pad_spellings([forms])[0].numpy())
    first, last = spans.T
    shared = np.minimum(last[:, None], last) - np.maximum(first[:, None], first) + 1
    lengths = last - first + 1
    rivals = 2 * shared >= np.minimum(lengths[:, None], lengths)
    np.fill_diagonal(rivals, False)
    return np.logaddexp(0.0, np.logaddexp.reduce(np.where(rivals, evidence, -np.inf), axis=1))


def heard_in(frames: Spelled, index: int) -> Spelled:
    """One audio of a batch."""
    return Spelled(frames.scores[index : index + 1], frames.mask[index : index + 1])


def list_bank(keywords: Sequence[str]) -> TermBank:
    """A row's own list as a bank; a warning names each keyword that is not looked for as it is written."""
    bank = _bank(tuple(keywords))
    for keyword in bank.unspelled:
        warnings.warn(f"keyword {keyword!r} has no letter and no digit, and is not looked for", stacklevel=2)
    for keyword in bank.long:
        warnings.warn(f"keyword {keyword!r} is looked for by its first {LONGEST_KEYWORD} letters", stacklevel=2)
    return bank


@keep_list_results
def _bank(keywords: tuple[str, ...]) -> TermBank:
    return TermBank(Term(keyword) for keyword in keywords)


def merge_rankings(rankings: Sequence[Sequence[RankedKeyword]]) -> list[RankedKeyword]:
    """One ranking of several: each keyword once, as it is written first, with the highest probability it has."""
    merged: dict[str, RankedKeyword] = {}
    for entry in (entry for ranking in rankings for entry in ranking):
        known = merged.get(entry.keyword.casefold())
        if known is None or known.probability < entry.probability:
            merged[entry.keyword.casefold()] = entry if known is None else known._replace(probability=entry.probability)
    return sorted(merged.values(), key=lambda entry: -entry.probability)[:RANKED]
