"""A bank of terms: read and spelled once, searched in each utterance.

A line of a bank is a term, with other ways to say it and a weight where they are wanted::

    Wozniak|woz nee ack :2
    Kubernetes

The term is looked for as it is written, as it is said where it has digits, capitals or signs
(:mod:`sap2.pruning.spoken`), and in each of its other forms; each of these also without letters that are not heard
(doubled consonants, silent first letters). What is found is the term as it is written. A weight of 2 makes a term twice
as likely as one without (its odds), 0.5 half as likely.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sap2.errors import InputError
from sap2.model.search import Trie, build_trie
from sap2.model.spotter import LONGEST_KEYWORD, SPACE, keyword_symbols, pad_spellings, spelling
from sap2.pruning.spoken import as_heard, spoken_forms
from sap2.text import clean_keyword

_WEIGHT = re.compile(r"\s:(\S+)$")
_SHOWN = 10


class Term(NamedTuple):
    """One term: as it is ``written``, its other ``forms``, and its ``weight``."""

    written: str
    forms: tuple[str, ...] = ()
    weight: float = 1.0


class TermBank:
    """Terms that are ready to be searched.

    Args:
        terms: what may be spoken. Repeats (case is ignored) are taken once, with all their forms.

    Attributes:
        terms: (K) as they are written, clean.
        log_weights: (K,) float32.
        owners: (F,) int64, the term of each of the F forms.
        forms: (F) what is looked for: the terms themselves, their other forms, and these without letters that are not
            heard.
        by_ear: (F,) bool, True of the last of these: only who hears letters looks for them.
        letters: (F,) int64, letters of each form's spelling.
        trie: of the forms (:func:`sap2.model.search.build_trie`, one audio).
        repeated: how many terms were there before.
        unspelled: terms without a letter that could be heard, which are not looked for.
        long: terms that are longer than the search looks (:data:`sap2.model.spotter.LONGEST_KEYWORD`); their beginning
            is looked for.
    """

    def __init__(self, terms: Iterable[Term]):
        forms: dict[str, dict[tuple[int, ...], str]] = {}
        written: dict[str, Term] = {}
        self.unspelled: list[str] = []
        self.repeated = 0
        for term in terms:
            clean = clean_keyword(term.written)
            given = (clean, *map(clean_keyword, term.forms), *spoken_forms(clean))
            spoken = [form for form in given if keyword_symbols(form)]
            if not clean or not spoken:
                self.unspelled.append(term.written)
                continue
            key = clean.casefold()
            self.repeated += key in written
            written.setdefault(key, term._replace(written=clean))
            of_term = forms.setdefault(key, {})
            for form in spoken:
                of_term.setdefault(keyword_symbols(form), form)
        self._numbers = {key: number for number, key in enumerate(written)}
        self.terms = [term.written for term in written.values()]
        self.log_weights = np.log([term.weight for term in written.values()], dtype=np.float64)
        self.long = [form for of_term in forms.values() for form in of_term.values() if _is_long(form)]
        as_written = [len(of_term) for of_term in forms.values()]
        for of_term in forms.values():
            for form in [*of_term.values()]:
                heard = as_heard(form)
                of_term.setdefault(keyword_symbols(heard), heard)
        counts = [len(of_term) for of_term in forms.values()]
        flat = [form for of_term in forms.values() for form in of_term.values()]
        self.forms = flat
        self.owners = np.repeat(np.arange(len(forms)), counts)
        places = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.by_ear = places >= np.repeat(as_written, counts)
        table = pad_spellings([flat])[0].numpy() if flat else np.zeros((0, 1), dtype=np.int64)
        self.letters = ((table > 0) & (table != SPACE)).sum(-1)
        self.trie: Trie = build_trie(table[None])

    def __len__(self) -> int:
        return len(self.terms)

    def number(self, keyword: str) -> int | None:
        """Where a keyword stands among the terms (case is ignored), or None."""
        return self._numbers.get(clean_keyword(keyword).casefold())

    def __str__(self) -> str:
        parts = [f"{len(self.terms):,} terms, {len(self.owners):,} forms"]
        if self.repeated:
            parts.append(f"{self.repeated:,} repeated")
        parts.append(f"{len(self.unspelled):,} that cannot be spelled{_some(self.unspelled)}")
        if self.long:
            parts.append(f"{len(self.long):,} looked for by their first {LONGEST_KEYWORD} letters{_some(self.long)}")
        return "; ".join(parts)


def _is_long(form: str) -> bool:
    return len(spelling(form)) > LONGEST_KEYWORD


def _some(terms: Sequence[str]) -> str:
    if not terms:
        return ""
    more = f" and {len(terms) - _SHOWN} more" if len(terms) > _SHOWN else ""
    return f" ({', '.join(repr(term) for term in terms[:_SHOWN])}{more})"


def read_bank(path: str | os.PathLike[str]) -> TermBank:
    """The bank in a text file: a term a line; empty lines and lines that begin with ``#`` are left out.

    Raises:
        InputError: the file holds no term that can be spelled, is not text, or a weight is not a number above 0; it
            names the line.
        OSError: the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from None
    bank = TermBank(
        parse_term(line, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not len(bank):
        raise InputError(f"{path} has no term that can be spelled; allowed: one or more, a term a line")
    return bank


def parse_term(line: str, where: str = "term") -> Term:
    """``Wozniak|woz nee ack :2`` as a term.

    Raises:
        InputError: nothing is written before the first ``|``, or the weight is not a number above 0.
    """
    text, weight = line.strip(), 1.0
    found = _WEIGHT.search(text)
    if found:
        text, weight = text[: found.start()], _weight(found[1], where)
    written, *forms = [part.strip() for part in text.split("|")]
    if not written:
        raise InputError(f"{where}: {line.strip()!r} has no term before '|'; allowed: term|sounds like|… :weight")
    return Term(written, tuple(form for form in forms if form), weight)


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise InputError(f"{where}: weight {text!r}; allowed: a number above 0, such as :2 or :0.5")
    return weight
