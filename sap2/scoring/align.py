"""The alignment of hypotheses with references: one exact dynamic programme, compiled, for both definitions.

Among the alignments of least cost, the one that is counted decides the numbers, so that the order in which ties are
resolved is a parameter (:class:`Costs`) like the costs themselves.

Notation: U utterances, n and m the words of one reference and one hypothesis, K operations of one alignment. Words are
integers (:class:`Vocabulary`); a list of word lists is stored flat, with U + 1 offsets (:class:`Words`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sap2.compiling import compiled
from sap2.errors import InputError

MATCH, SUBSTITUTION, INSERTION, DELETION = range(4)

REF_WORDS, SUBS, INS, DELS = range(4)
"""Columns of the counts of :func:`count_errors`."""

UNBIASED, BIASED = range(2)
"""Rows of the counts of :func:`count_errors`."""


class Costs(NamedTuple):
    """Costs of the operations, and which of them is tried first where alignments tie.

    In every cell of the prefix table three candidates are compared, and a later one is taken only where it is strictly
    cheaper: deletion, insertion, match or substitution if ``deletion_first``; else match or substitution, insertion,
    deletion. The operations are those on the chosen path from the last cell back to the first.
    """

    substitution: int
    insertion: int
    deletion: int
    deletion_first: bool


class Words(NamedTuple):
    """Word lists of U utterances: ``ids[offsets[u]:offsets[u + 1]]`` are the words of utterance u.

    Shapes: ids (total,) int32; offsets (U + 1,) int64.
    """

    ids: np.ndarray
    offsets: np.ndarray

    def of(self, utterance: int) -> np.ndarray:
        """The word ids of one utterance, shape (n,)."""
        return self.ids[self.offsets[utterance] : self.offsets[utterance + 1]]


class Vocabulary(dict[str, int]):
    """Numbers words in the order in which they are first seen."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number

    def words(self, lists: Iterable[Sequence[str]]) -> Words:
        """The numbers of the words of every list."""
        lists = list(lists)
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(words) for words in lists], out=offsets[1:])
        ids = np.fromiter((self[word] for words in lists for word in words), dtype=np.int32, count=offsets[-1])
        return Words(ids, offsets)


# The compiled functions take flat arrays that are made outside: that compiles in a third of the time.


@compiled
def _fill_table(ref, first_ref, n, hyp, first_hyp, m, costs, steps, distance):
    """Prefix table of one pair: ``steps[i * (m + 1) + j]`` is the operation that reaches cell (i, j) at least cost."""
    sub_cost, ins_cost, del_cost, deletion_first = costs
    distance[0] = 0
    for j in range(1, m + 1):
        distance[j] = distance[j - 1] + ins_cost
        steps[j] = INSERTION
    for i in range(1, n + 1):
        row = i * (m + 1)
        word = ref[first_ref + i - 1]
        diagonal = distance[0]
        distance[0] += del_cost
        steps[row] = DELETION
        for j in range(1, m + 1):
            paired, pair_step = diagonal, MATCH
            if word != hyp[first_hyp + j - 1]:
                paired, pair_step = diagonal + sub_cost, SUBSTITUTION
            deleted = distance[j] + del_cost
            inserted = distance[j - 1] + ins_cost
            if deletion_first:
                best, step = deleted, DELETION
                if inserted < best:
                    best, step = inserted, INSERTION
                if paired < best:
                    best, step = paired, pair_step
            else:
                best, step = paired, pair_step
                if inserted < best:
                    best, step = inserted, INSERTION
                if deleted < best:
                    best, step = deleted, DELETION
            diagonal = distance[j]
            distance[j] = best
            steps[row + j] = step


@compiled
def _trace_back(steps, n, m, operations, end):
    """Write the operations of the path to cell (n, m) backwards, so that they end at ``end``; returns their start."""
    i, j = n, m
    while i > 0 or j > 0:
        step = steps[i * (m + 1) + j]
        end -= 1
        operations[end] = step
        if step != INSERTION:
            i -= 1
        if step != DELETION:
            j -= 1
    return end


@compiled
def _align_all(refs, ref_offsets, hyps, hyp_offsets, costs, steps, distance, operations, offsets):
    """Fill ``operations`` from its end, last utterance first, so that utterance u has [offsets[u], offsets[u + 1])."""
    utterances = offsets.size - 1
    offsets[utterances] = operations.size
    for u in range(utterances - 1, -1, -1):
        n = ref_offsets[u + 1] - ref_offsets[u]
        m = hyp_offsets[u + 1] - hyp_offsets[u]
        _fill_table(refs, ref_offsets[u], n, hyps, hyp_offsets[u], m, costs, steps, distance)
        offsets[u] = _trace_back(steps, n, m, operations, offsets[u + 1])


@compiled
def _count_all(operations, op_offsets, ref_biased, ref_offsets, hyp_biased, hyp_offsets, counts):
    """Add up ``counts[u, 4 * biased + column]``."""
    for u in range(op_offsets.size - 1):
        i, j = ref_offsets[u], hyp_offsets[u]
        for k in range(op_offsets[u], op_offsets[u + 1]):
            operation = operations[k]
            if operation == INSERTION:
                counts[u, 4 * hyp_biased[j] + INS] += 1
                j += 1
                continue
            group = 4 * ref_biased[i]
            counts[u, group + REF_WORDS] += 1
            i += 1
            if operation == DELETION:
                counts[u, group + DELS] += 1
                continue
            j += 1
            if operation == SUBSTITUTION:
                counts[u, group + SUBS] += 1


class Alignments(NamedTuple):
    """Operations of U alignments: those of utterance u are ``operations[offsets[u]:offsets[u + 1]]``, first word first.

    Shapes: operations (total K,) uint8 (``MATCH``, ``SUBSTITUTION``, ``INSERTION``, ``DELETION``); offsets (U + 1,).
    """

    operations: np.ndarray
    offsets: np.ndarray

    def of(self, utterance: int) -> np.ndarray:
        """The operations of one utterance, shape (K,)."""
        return self.operations[self.offsets[utterance] : self.offsets[utterance + 1]]


def align(refs: Words, hyps: Words, costs: Costs) -> Alignments:
    """Align every hypothesis with its reference at least cost, ties resolved as :class:`Costs` says.

    Raises:
        InputError: the numbers of references and hypotheses differ.
    """
    if len(refs.offsets) != len(hyps.offsets):
        raise InputError(f"{len(refs.offsets) - 1} references and {len(hyps.offsets) - 1} hypotheses")
    ref_lengths, hyp_lengths = np.diff(refs.offsets), np.diff(hyps.offsets)
    steps = np.empty(((ref_lengths + 1) * (hyp_lengths + 1)).max(initial=1), dtype=np.uint8)
    distance = np.empty(hyp_lengths.max(initial=0) + 1, dtype=np.int64)
    operations = np.empty(refs.ids.size + hyps.ids.size, dtype=np.uint8)
    offsets = np.empty(len(refs.offsets), dtype=np.int64)
    _align_all(*refs, *hyps, tuple(costs), steps, distance, operations, offsets)
    # what matches takes one operation for two words, so that the front stays unused
    return Alignments(operations[offsets[0] :].copy(), offsets - offsets[0])


def count_errors(
    alignments: Alignments, refs: Words, hyps: Words, ref_biased: np.ndarray, hyp_biased: np.ndarray
) -> np.ndarray:
    """Counts of every utterance, shape (U, 2, 4) int64: ``UNBIASED`` and ``BIASED``, each with the columns
    ``REF_WORDS``, ``SUBS``, ``INS``, ``DELS``.

    A substitution or deletion belongs to the group of its reference word, an insertion to that of the inserted word.

    Args:
        ref_biased: one flag for every reference word, shape of ``refs.ids``, bool.
        hyp_biased: one flag for every hypothesis word (is it biased if it is inserted?), shape of ``hyps.ids``, bool.
    """
    counts = np.zeros((len(refs.offsets) - 1, 8), dtype=np.int64)
    flags = ref_biased.astype(np.int64), hyp_biased.astype(np.int64)
    _count_all(*alignments, flags[0], refs.offsets, flags[1], hyps.offsets, counts)
    return counts.reshape(-1, 2, 4)
