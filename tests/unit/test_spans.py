"""Where a spelling is found: held against the search itself, on parts of the frames."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sap2.model.search import UNREACHED, best_paths, build_trie
from sap2.model.spans import best_spans
from sap2.model.spotter import pad_spellings, spelled_frames, spelling


def best_score(scores: np.ndarray, word: list[int]) -> int:
    """Score of the best path of one spelling through all of the frames."""
    frames = torch.from_numpy(scores)[None]
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    return int(best_paths(frames, mask, build_trie(np.array([[word]]))))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 0), min_size=4, max_size=4), min_size=1, max_size=8),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_it_is_the_shortest_part_that_ends_first_with_the_best_score(frames, word):
    scores = np.array(frames, dtype=np.int32)
    ((first, last),) = best_spans(scores, np.array([[*word, 0]]))
    best = best_score(scores, word)
    if best == UNREACHED:
        assert (first, last) == (-1, -1)
        return
    ends = [end for end in range(len(scores)) if best_score(scores[: end + 1], word) == best]
    starts = [start for start in range(ends[0] + 1) if best_score(scores[start : ends[0] + 1], word) == best]
    assert (first, last) == (starts[-1], ends[0])


def test_words_of_a_sentence_follow_each_other():
    symbols = [symbol for letter in spelling("we met emily") for symbol in (letter, letter, 0)]
    log_probs = (torch.nn.functional.one_hot(torch.tensor(symbols), 257).float() * 6).log_softmax(-1)[None]
    frames = spelled_frames(log_probs, torch.ones(log_probs.shape[:2], dtype=torch.bool))
    spans = best_spans(frames.scores[0].numpy(), pad_spellings([["emily", "we", "met"]])[0].numpy())
    emily, we, met = spans.tolist()
    assert we[0] == 0 and we[1] - met[0] <= 3 and met[1] - emily[0] <= 3 and emily[1] == len(symbols) + 1


def test_nothing_to_look_for():
    assert best_spans(np.zeros((3, 5), dtype=np.int32), np.zeros((0, 1), dtype=np.int64)).shape == (0, 2)
    assert best_spans(np.zeros((3, 5), dtype=np.int32), np.zeros((1, 2), dtype=np.int64)).tolist() == [[-1, -1]]
