"""The alignment of hypotheses with references: one exact dynamic programme, compiled, for both definitions.

Among the alignments of least cost, the one that is counted decides the numbers, so that the order in which ties are
resolved is a parameter (:class:`Costs`) like the costs themselves.

Notation: U utterances, n and m the words of one reference and one hypothesis, K operations of one alignment. Words are
integers (:class:`Vocabulary`); a list of word lists is stored flat, with U + 1 offsets (:class:`Words`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

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


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, and keep the machine code on disk where there is a place for it (beside this file or in the home)."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(function)


@_compiled
def _fill_table(ref, hyp, costs, steps, distance):
    """Prefix table of one pair: ``steps[i, j]`` is the operation by which cell (i, j) is reached at least cost."""
    sub_cost, ins_cost, del_cost, deletion_first = costs
    distance[0] = 0
    for j in range(1, hyp.size + 1):
        distance[j] = distance[j - 1] + ins_cost
        steps[0, j] = INSERTION
    for i in range(1, ref.size + 1):
        diagonal = distance[0]
        distance[0] += del_cost
        steps[i, 0] = DELETION
        for j in range(1, hyp.size + 1):
            same = ref[i - 1] == hyp[j - 1]
            paired = diagonal if same else diagonal + sub_cost
            pair_step = MATCH if same else SUBSTITUTION
            deleted = distance[j] + del_cost
            inserted = distance[j - 1] + ins_cost
            best, step = (deleted, DELETION) if deletion_first else (paired, pair_step)
            if inserted < best:
                best, step = inserted, INSERTION
            if deletion_first:
                if paired < best:
                    best, step = paired, pair_step
            elif deleted < best:
                best, step = deleted, DELETION
            diagonal = distance[j]
            distance[j] = best
            steps[i, j] = step


@_compiled
def _trace_back(steps, n, m, operations, end):
    """Write the operations of the path to cell (n, m) backwards, so that they end at ``end``; returns their start."""
    i, j = n, m
    while i > 0 or j > 0:
        step = steps[i, j]
        end -= 1
        operations[end] = step
        if step != INSERTION:
            i -= 1
        if step != DELETION:
            j -= 1
    return end


@_compiled
def _align_all(ref_ids, ref_offsets, hyp_ids, hyp_offsets, costs):
    """Operations of all pairs, flat, and their offsets."""
    utterances = ref_offsets.size - 1
    cells = 1
    longest = 0
    for u in range(utterances):
        n = ref_offsets[u + 1] - ref_offsets[u]
        m = hyp_offsets[u + 1] - hyp_offsets[u]
        cells = max(cells, (n + 1) * (m + 1))
        longest = max(longest, m)
    table = np.empty(cells, dtype=np.uint8)
    distance = np.empty(longest + 1, dtype=np.int64)
    scratch = np.empty(ref_ids.size + hyp_ids.size, dtype=np.uint8)
    operations = np.empty(ref_ids.size + hyp_ids.size, dtype=np.uint8)
    offsets = np.zeros(utterances + 1, dtype=np.int64)
    for u in range(utterances):
        ref = ref_ids[ref_offsets[u] : ref_offsets[u + 1]]
        hyp = hyp_ids[hyp_offsets[u] : hyp_offsets[u + 1]]
        steps = table[: (ref.size + 1) * (hyp.size + 1)].reshape((ref.size + 1, hyp.size + 1))
        _fill_table(ref, hyp, costs, steps, distance)
        start = _trace_back(steps, ref.size, hyp.size, scratch, scratch.size)
        offsets[u + 1] = offsets[u] + scratch.size - start
        operations[offsets[u] : offsets[u + 1]] = scratch[start:]
    return operations[: offsets[-1]].copy(), offsets


@_compiled
def _count_all(operations, op_offsets, ref_biased, ref_offsets, hyp_biased, hyp_offsets):
    """Reference words, substitutions, insertions and deletions of every utterance, unbiased and biased."""
    utterances = op_offsets.size - 1
    counts = np.zeros((utterances, 2, 4), dtype=np.int64)
    for u in range(utterances):
        i, j = ref_offsets[u], hyp_offsets[u]
        for k in range(op_offsets[u], op_offsets[u + 1]):
            operation = operations[k]
            if operation == INSERTION:
                counts[u, int(hyp_biased[j]), INS] += 1
                j += 1
                continue
            biased = int(ref_biased[i])
            counts[u, biased, REF_WORDS] += 1
            i += 1
            if operation == DELETION:
                counts[u, biased, DELS] += 1
                continue
            j += 1
            if operation == SUBSTITUTION:
                counts[u, biased, SUBS] += 1
    return counts


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
        ValueError: the numbers of references and hypotheses differ.
    """
    if len(refs.offsets) != len(hyps.offsets):
        raise ValueError(f"{len(refs.offsets) - 1} references and {len(hyps.offsets) - 1} hypotheses")
    return Alignments(*_align_all(*refs, *hyps, tuple(costs)))


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
    return _count_all(alignments.operations, alignments.offsets, ref_biased, refs.offsets, hyp_biased, hyps.offsets)
