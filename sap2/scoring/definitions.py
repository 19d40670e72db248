"""The two definitions of WER, U-WER, B-WER and keyword recall that published numbers use, and the scoring itself.

Common to both: WER counts all words, B-WER the biased ones, U-WER the others, so that every count of WER is the sum of
the two. A reference word belongs to one of them, with its match, substitution or deletion; an inserted word belongs to
B-WER if it is biased. The rate is ``100 * (subs + ins + dels) / ref_words``.

``slidespeech``
    The SlideSpeech corpus (Wang et al. 2023, arXiv:2309.05396), as the scorer of its authors counts: the biased words
    of an utterance are the words of its keyword list that occur in its reference (entries split at ``$`` and spaces).
    Substitution, insertion and deletion cost 1 each. Where alignments tie, deletion is tried first, then insertion,
    then match or substitution, each later one taken only if strictly cheaper. Case is ignored: all words are compared
    in upper case.

``librispeech``
    Le et al. 2021 (arXiv:2104.02194), as the scorer of facebookresearch/fbai-speech (is21_deep_bias) counts: the
    biased words are those of the third column of the biasing list (where the input has no such column, the words of
    the keyword list that occur in the reference). Insertion and deletion cost 3 each, substitution 4. Where alignments
    tie, match or substitution is tried first, then insertion, then deletion, each later one taken only if strictly
    cheaper. Words are compared as they are written.

Keyword counts, for both: over the distinct words of the utterance's list. A word absent from the reference adds 1 to
tn if the hypothesis lacks it too, else its occurrences in the hypothesis to fp. A word of the reference adds
min(occurrences in reference, in hypothesis) to tp, what is missing to fn, what is too many to fp. Recall is
tp / (tp + fn), precision tp / (tp + fp), F1 2 tp / (2 tp + fp + fn), in percent. (The list of ``librispeech`` is the
fourth column and the third together; its authors publish no keyword counts.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from sap2.errors import InputError
from sap2.progress import progress
from sap2.scoring.align import Alignments, Costs, Vocabulary, Words, align, count_errors
from sap2.scoring.inputs import TestSet, Utterance
from sap2.text import get_normalizer, split_words

TP, FP, FN, TN = range(4)
"""Columns of the keyword counts."""


class Definition(NamedTuple):
    """Costs and tie order of the alignment, whether upper and lower case are the same, and whether the biased words
    are those that the reference file names, where it names them."""

    name: str
    costs: Costs
    ignore_case: bool
    named_words: bool


DEFINITIONS = {
    "slidespeech": Definition("slidespeech", Costs(1, 1, 1, deletion_first=True), ignore_case=True, named_words=False),
    "librispeech": Definition("librispeech", Costs(4, 3, 3, deletion_first=False), ignore_case=False, named_words=True),
}


class Tokenizer:
    """Text to the words that are compared: normalise, fold case if the definition does, split.

    Args:
        normalize: one of :data:`sap2.text.NORMALIZERS`.
        char: split scripts without spaces into characters (:func:`sap2.text.split_words`).
    """

    def __init__(self, definition: Definition, normalize: str = "none", char: bool = False):
        self._normalize: Callable[[str], str] = get_normalizer(normalize)
        self._ignore_case = definition.ignore_case
        self._char = char
        self._normalizes = normalize != "none"
        self._entries = _Entries(self.words)

    def words(self, text: str) -> list[str]:
        """The words of a transcript."""
        words = split_words(self._normalize(text), self._char)
        return [word.upper() for word in words] if self._ignore_case else words

    def entry_words(self, keywords: Iterable[str]) -> set[str]:
        """The distinct words of a keyword list; entries are split at ``$`` and spaces, and normalised one by one."""
        if self._normalizes:
            return set(chain.from_iterable(map(self._entries.__getitem__, keywords)))
        return set(self.words(" ".join(keywords).replace("$", " ")))


class _Entries(dict[str, list[str]]):
    """Words of list entries, each worked out once: lists repeat, and the English normaliser is slow."""

    def __init__(self, words: Callable[[str], list[str]]):
        super().__init__()
        self._words = words

    def __missing__(self, entry: str) -> list[str]:
        self[entry] = found = [word for part in entry.split("$") for word in self._words(part)]
        return found


def count_keywords(listed: set[str], ref: Sequence[str], hyp: Sequence[str]) -> tuple[int, int, int, int]:
    """Keyword counts (tp, fp, fn, tn) of one utterance, as the module's text defines them.

    >>> count_keywords({"HAO", "MEN", "OTHER"}, "NI HAO WO MEN NI HAO".split(), "NI HAO WO MEN WO".split())
    (2, 0, 1, 1)
    """
    in_ref = Counter(word for word in ref if word in listed)
    in_hyp = Counter(word for word in hyp if word in listed)
    tp = sum(min(count, in_hyp[word]) for word, count in in_ref.items())
    fp = sum((in_hyp - in_ref).values())
    tn = len(listed) - len(in_ref.keys() | in_hyp.keys())
    return tp, fp, sum(in_ref.values()) - tp, tn


@dataclass
class SystemScore:
    """Alignments and counts of one system over U utterances.

    Shapes: errors (U, 2, 4) as :func:`wer_align.count_errors`; keywords (U, 4) with the columns tp, fp, fn, tn;
    hyp_listed: one flag for every hypothesis word, whether the utterance's list has it.
    """

    hyps: Words
    alignments: Alignments
    errors: np.ndarray
    keywords: np.ndarray
    hyp_listed: np.ndarray


@dataclass
class Scores:
    """Everything that was scored. ``vocabulary[i]`` is the text of word number i.

    Shapes: ref_biased and ref_listed: one flag for every reference word, biased by the definition, and in the list.
    """

    definition: Definition
    utterances: list[Utterance]
    vocabulary: list[str]
    refs: Words
    ref_biased: np.ndarray
    ref_listed: np.ndarray
    systems: dict[str, SystemScore]


class Reference(NamedTuple):
    """The reference side of U utterances: words as text and as numbers, one flag for each whether it is biased, and the
    words of every list, all of them and the biased ones."""

    texts: list[list[str]]
    words: Words
    flags: np.ndarray
    listed: list[set[str]]
    biased: list[set[str]]


def score(test_set: TestSet, definition: Definition, normalize: str = "none", char: bool = False) -> Scores:
    """Align and count every system. Utterances whose reference has no word are added to the problems of the test set.

    Raises:
        InputError: there is nothing to score.
    """
    utterances = test_set.utterances
    if not utterances:
        raise InputError("nothing to score: " + ("; ".join(test_set.problems.lines()) or "the input has no utterance"))
    tokenizer = Tokenizer(definition, normalize, char)
    texts = [tokenizer.words(utterance.ref) for utterance in _progress(utterances, "references", normalize)]
    empty = [utterance.id for utterance, ref in zip(utterances, texts, strict=True) if not ref]
    test_set.problems.add("empty reference", empty)
    listed = [tokenizer.entry_words(utterance.keywords) for utterance in _progress(utterances, "keywords", normalize)]
    biased = [words.intersection(ref) for words, ref in zip(listed, texts, strict=True)]
    if definition.named_words:
        for index, utterance in enumerate(utterances):
            if utterance.rare is not None:
                biased[index] = tokenizer.entry_words(utterance.rare)
    vocabulary = Vocabulary()
    refs = vocabulary.words(texts)
    reference = Reference(texts, refs, _flags(texts, biased), listed, biased)
    systems = {}
    for name, hyps in test_set.hyps.items():
        replies = [tokenizer.words(hyps[utterance.id]) for utterance in _progress(utterances, name, normalize)]
        systems[name] = _score_system(reference, replies, vocabulary.words(replies), definition.costs)
    return Scores(definition, utterances, list(vocabulary), refs, reference.flags, _flags(texts, listed), systems)


def _score_system(reference: Reference, texts: list[list[str]], hyps: Words, costs: Costs) -> SystemScore:
    alignments = align(reference.words, hyps, costs)
    errors = count_errors(alignments, reference.words, hyps, reference.flags, _flags(texts, reference.biased))
    keywords = [count_keywords(*item) for item in zip(reference.listed, reference.texts, texts, strict=True)]
    return SystemScore(hyps, alignments, errors, np.array(keywords), _flags(texts, reference.listed))


def _flags(lists: Iterable[Sequence[str]], sets: Iterable[set[str]]) -> np.ndarray:
    """One flag for every word of the lists: whether the set of its utterance has it."""
    return np.array([word in chosen for words, chosen in zip(lists, sets, strict=True) for word in words], dtype=bool)


def _progress(utterances: list[Utterance], what: str, normalize: str) -> Iterable[Utterance]:
    # only a normaliser takes long enough to watch
    return utterances if normalize == "none" else progress(utterances, what, unit="utterance")
