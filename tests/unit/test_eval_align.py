"""The compiled alignment and both definitions against an independent, slow scorer written out here."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sap2.scoring.align import DELETION, INSERTION, MATCH, SUBSTITUTION, Vocabulary, align
from sap2.scoring.definitions import DEFINITIONS, score
from sap2.scoring.inputs import TestSet, Utterance

COSTS = {"slidespeech": (1, 1, 1), "librispeech": (4, 3, 3)}  # substitution, insertion, deletion
ORDER = {"slidespeech": "DIS", "librispeech": "SID"}  # which candidate is tried first
NAMES = {MATCH: "=", SUBSTITUTION: "S", INSERTION: "I", DELETION: "D"}

words = st.lists(st.sampled_from("abc"), max_size=9)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def slow_alignment(ref: list[str], hyp: list[str], definition: str) -> str:
    """Operations as text, by a table of (cost, way here) in which each cell keeps its whole path."""
    sub, ins, dele = COSTS[definition]
    table: dict[tuple[int, int], tuple[int, str]] = {}
    for i in range(len(ref) + 1):
        for j in range(len(hyp) + 1):
            ways: dict[str, tuple[int, str]] = {}
            if i:
                cost, path = table[i - 1, j]
                ways["D"] = (cost + dele, path + "D")
            if j:
                cost, path = table[i, j - 1]
                ways["I"] = (cost + ins, path + "I")
            if i and j:
                same = ref[i - 1] == hyp[j - 1]
                cost, path = table[i - 1, j - 1]
                ways["S"] = (cost + (0 if same else sub), path + ("=" if same else "S"))
            best = (0, "")
            for number, way in enumerate(way for way in ORDER[definition] if way in ways):
                if number == 0 or ways[way][0] < best[0]:
                    best = ways[way]
            table[i, j] = best
    return table[len(ref), len(hyp)][1]


def slow_counts(path: str, ref: list[str], hyp: list[str], biased: set[str]) -> list[list[int]]:
    """[unbiased, biased], each [reference words, substitutions, insertions, deletions]."""
    counts = [[0, 0, 0, 0], [0, 0, 0, 0]]
    ref, hyp = list(ref), list(hyp)
    for step in path:
        if step == "I":
            counts[hyp.pop(0) in biased][2] += 1
            continue
        word = ref.pop(0)
        counts[word in biased][0] += 1
        if step == "D":
            counts[word in biased][3] += 1
            continue
        hyp.pop(0)
        if step == "S":
            counts[word in biased][1] += 1
    assert not ref and not hyp
    return counts


def slow_keywords(listed: set[str], ref: list[str], hyp: list[str]) -> list[int]:
    """[tp, fp, fn, tn] of one utterance, entry by entry."""
    tp = fp = fn = tn = 0
    for entry in listed:
        spoken, written = ref.count(entry), hyp.count(entry)
        if not spoken and not written:
            tn += 1
        tp += min(spoken, written)
        fn += max(0, spoken - written)
        fp += max(0, written - spoken)
    return [tp, fp, fn, tn]


def fast_alignments(pairs: list[tuple[list[str], list[str]]], definition: str) -> list[str]:
    vocabulary = Vocabulary()
    refs = vocabulary.words([ref for ref, _ in pairs])
    hyps = vocabulary.words([hyp for _, hyp in pairs])
    found = align(refs, hyps, DEFINITIONS[definition].costs)
    return ["".join(NAMES[step] for step in found.of(index)) for index in range(len(pairs))]


@pytest.mark.parametrize("definition", COSTS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(pairs)
@example([([], []), (["a"], []), ([], ["a"]), (["a", "b"], ["b", "a"]), (["a"], ["b", "b"])])
def test_alignment_is_that_of_the_slow_reference(definition, pairs):
    assert fast_alignments(pairs, definition) == [slow_alignment(*pair, definition) for pair in pairs]


@pytest.mark.parametrize("definition", COSTS)
def test_alignment_of_thousands_of_random_pairs(definition):
    chance = random.Random(7)

    def draw() -> list[str]:
        return chance.choices("abcd"[: chance.randint(1, 4)], k=chance.randint(0, 14))

    pairs = [(draw(), draw()) for _ in range(3000)]
    found = fast_alignments(pairs, definition)
    wrong = [pair for pair, path in zip(pairs, found, strict=True) if path != slow_alignment(*pair, definition)]
    assert not wrong


def test_ties_differ_between_the_definitions():
    # two reference words, one hypothesis word that fits neither: which one is the deletion?
    assert fast_alignments([(["a", "b"], ["c"])], "slidespeech") == ["SD"]
    assert fast_alignments([(["a", "b"], ["c"])], "librispeech") == ["DS"]


@pytest.mark.parametrize("definition", COSTS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.tuples(words, words, st.sets(st.sampled_from("abcd"))), min_size=1, max_size=8))
def test_counts_are_those_of_the_slow_reference(definition, rows):
    utterances = [
        Utterance(str(index), " ".join(ref), sorted(listed), rare=sorted(listed & {"a", "d"}))
        for index, (ref, _, listed) in enumerate(rows)
    ]
    hyps = {str(index): " ".join(hyp) for index, (_, hyp, _) in enumerate(rows)}
    system = score(TestSet(utterances, {"x": hyps}), DEFINITIONS[definition]).systems["x"]
    for index, (ref, hyp, listed) in enumerate(rows):
        # a biasing list names the biased words itself; else they are the list words of the reference
        biased = listed & {"a", "d"} if definition == "librispeech" else listed & set(ref)
        expected = slow_counts(slow_alignment(ref, hyp, definition), ref, hyp, biased)
        assert system.errors[index].tolist() == expected
        assert system.keywords[index].tolist() == slow_keywords(listed, ref, hyp)


def test_long_pair_and_empty_sides():
    ref = [f"w{number}" for number in range(3000)]
    assert fast_alignments([(ref, []), ([], ref), (ref, ref)], "slidespeech") == ["D" * 3000, "I" * 3000, "=" * 3000]


def test_align_refuses_lists_of_different_length():
    vocabulary = Vocabulary()
    with pytest.raises(ValueError, match="1 references and 2 hypotheses"):
        align(vocabulary.words([["a"]]), vocabulary.words([["a"], ["b"]]), DEFINITIONS["slidespeech"].costs)


def test_words_keeps_lists_apart():
    words = Vocabulary().words([["a", "b"], [], ["b"]])
    assert [words.of(index).tolist() for index in range(3)] == [[0, 1], [], [1]]
    assert words.ids.dtype == np.int32
