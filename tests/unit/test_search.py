"""The search for many spellings equals a loop over frames that knows no trie, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_search import loop_over_frames, make_terms
from hypothesis import given, settings
from hypothesis import strategies as st

from sap2.model import search
from sap2.model.search import LOWEST, STEP, UNREACHED, best_paths, build_trie, frame_scores
from sap2.model.spotter import LETTER_WORTH, SYMBOLS, keyword_salience, pad_spellings, spelled_frames

LETTERS = 4
"""Few, so that spellings share beginnings and repeat letters."""


def random_speech(audios: int, frames: int, seed: int) -> torch.Tensor:
    """(A, T, S) log probabilities, some of them far below :data:`LOWEST`."""
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn((audios, frames, LETTERS + 1), generator=numbers).mul(12).log_softmax(-1)


def padded(rows: list[list[list[int]]]) -> torch.Tensor:
    longest = max([1, *(len(spelling) for row in rows for spelling in row)])
    most = max(map(len, rows))
    table = torch.zeros((len(rows), most, longest), dtype=torch.int64)
    for index, row in enumerate(rows):
        for number, spelling in enumerate(row):
            table[index, number, : len(spelling)] = torch.tensor(spelling, dtype=torch.int64)
    return table


def loop_scores(scores, mask, spellings) -> torch.Tensor:
    found = loop_over_frames(scores, mask, spellings)
    return found.masked_fill(found.isneginf(), UNREACHED).int()


SPELLINGS = st.lists(st.lists(st.lists(st.integers(1, LETTERS), max_size=6), max_size=8), min_size=1, max_size=3)


@settings(deadline=None, max_examples=200)
@given(SPELLINGS, st.integers(0, 14), st.integers(0, 999), st.data())
def test_the_search_equals_the_loop_over_frames(rows, frames, seed, data):
    rows = [row or [[]] for row in rows]
    valid = data.draw(st.lists(st.integers(0, frames), min_size=len(rows), max_size=len(rows)))
    mask = torch.arange(frames)[None] < torch.tensor(valid)[:, None]
    scores, spellings = frame_scores(random_speech(len(rows), frames, seed)), padded(rows)
    trie = build_trie(spellings.numpy())
    found = best_paths(scores, mask, trie)
    expected = loop_scores(scores, mask, spellings)
    assert torch.equal(found, expected)
    if frames and len(trie.symbols):
        assert torch.equal(on_levels(scores, mask, trie), expected)


def on_levels(scores, mask, trie) -> torch.Tensor:
    """What the search on a GPU finds, here on the CPU."""
    best, ends = search._by_levels(scores, mask, trie), torch.from_numpy(trie.ends)
    found = best[ends.clamp(min=0)].masked_fill(ends < 0, UNREACHED)
    return found.masked_fill(found < UNREACHED // 2, UNREACHED)


def test_parts_of_a_large_trie_give_the_same(monkeypatch):
    terms = make_terms(300)
    trie = build_trie(pad_spellings([terms]).numpy())
    noise = torch.randn((1, 40, SYMBOLS), generator=torch.Generator().manual_seed(1)).mul(3).log_softmax(-1)
    scores, mask = frame_scores(noise), torch.ones((1, 40), dtype=torch.bool)
    whole = on_levels(scores, mask, trie)
    monkeypatch.setattr(search, "CELLS", 40 * 100)
    assert len(list(search._parts(trie, 100))) > 3
    assert torch.equal(on_levels(scores, mask, trie), whole)
    assert torch.equal(best_paths(scores, mask, trie), whole)


def test_ranks_are_those_of_the_loop():
    terms = make_terms(400)
    spellings = pad_spellings([terms])
    noise = torch.randn((1, 60, SYMBOLS), generator=torch.Generator().manual_seed(2)).mul(3).log_softmax(-1)
    mask = torch.ones((1, 60), dtype=torch.bool)
    letters = (spellings > 0).sum(-1) - 2  # without the spaces around
    expected = loop_scores(*spelled_frames(noise, mask), spellings) * STEP + LETTER_WORTH * letters
    found = keyword_salience(noise, mask, spellings)
    assert torch.equal(found.argsort(descending=True, stable=True), expected.argsort(descending=True, stable=True))


def test_common_beginnings_are_one_node():
    trie = build_trie(padded([[[1, 2, 3], [1, 2], [1, 2, 3], [], [2]], [[1]]]).numpy())
    assert trie.symbols.tolist() == [1, 2, 3, 2, 1]
    assert trie.depths.tolist() == [0, 1, 2, 0, 0]
    assert trie.owners.tolist() == [0, 0, 0, 0, 1]
    assert trie.ends.tolist() == [[2, 1, 2, -1, 3], [4, -1, -1, -1, -1]]


def test_every_symbol_finds_its_place():
    """All 256, of which the first must not be taken for padding, nor the last for more than one byte."""
    table = np.arange(1, SYMBOLS)[None, :, None]
    trie = build_trie(table)
    assert trie.symbols[trie.ends[0]].tolist() == list(range(1, SYMBOLS))


def test_scores_are_whole_steps_with_a_floor():
    scores = frame_scores(torch.tensor([[[-0.5, -1.5, -99.0, -torch.inf]]]))
    assert scores.dtype == torch.int32 and scores[0, 0].tolist() == [0, -1 / STEP, LOWEST / STEP, LOWEST / STEP]


@pytest.mark.gpu
def test_a_gpu_finds_the_same():
    terms = make_terms(5000)
    trie = build_trie(pad_spellings([terms]).numpy())
    noise = torch.randn((1, 75, SYMBOLS), generator=torch.Generator().manual_seed(0)).mul(3).log_softmax(-1)
    scores, mask = frame_scores(noise), torch.ones((1, 75), dtype=torch.bool)
    found = best_paths(scores.cuda(), mask.cuda(), trie).cpu()
    assert torch.equal(found, best_paths(scores, mask, trie))
