"""Forced alignment: every symbol in its frames, as the slow search over all paths finds it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sap2.model.alignment import ANY, ANY_COST, align, heard_symbols


def collapse(path, symbols):
    """The spans of the symbols along a path of states 0..2n, or None where it is no path of the text."""
    moves = [(0 if path[0] in (0, 1) else 9), *np.diff(path)]
    if max(moves) > 2 or min(moves) < 0 or path[-1] < 2 * len(symbols) - 1:
        return None
    for before, after in itertools.pairwise(path):
        if after - before == 2 and (after % 2 == 0 or symbols[after // 2] == symbols[before // 2]):
            return None
    return [(path.index(2 * i + 1), len(path) - path[::-1].index(2 * i + 1)) for i in range(len(symbols))]


def slowly(log_probs, symbols):
    """The best of all paths, each written out."""
    relative = log_probs - log_probs.max(1, keepdims=True)
    best, spans = -np.inf, None
    for path in itertools.product(range(2 * len(symbols) + 1), repeat=len(log_probs)):
        if (found := collapse(path, symbols)) is None:
            continue
        said = [0 if state % 2 == 0 else symbols[state // 2] for state in path]
        score = sum(ANY_COST if s == ANY else relative[t, s] for t, s in enumerate(said))
        if score > best:
            best, spans = score, found
    return spans


@pytest.mark.parametrize("symbols", [[1], [1, 2], [2, 2], [1, ANY], [1, 3, 1], [ANY]])
@pytest.mark.parametrize("seed", range(2))
def test_the_best_of_all_paths_is_found(symbols, seed):
    log_probs = np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)
    assert align(log_probs, symbols).tolist() == [list(span) for span in slowly(log_probs, symbols)]


def test_a_text_that_does_not_fit_has_no_path():
    log_probs = np.zeros((3, 4), np.float32)
    assert align(log_probs, [1, 2, 3]).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert align(log_probs, [1, 1, 2]) is None  # a blank is needed between the equal ones
    assert align(log_probs, [1, 2, 3, 1]) is None
    assert align(log_probs, []) is None and align(log_probs[:0], [1]) is None


def test_symbols_that_were_never_learnt_are_told_from_unsaid_ones():
    log_probs = np.array([[0.0, -11.0, -20.0], [-3.0, -12.0, 0.0 - 21.0]])
    assert heard_symbols(log_probs).tolist() == [True, True, False]
    assert heard_symbols(np.zeros((0, 3))).tolist() == [False] * 3
