"""Forced alignment: in which frames of a speech each symbol of a known text is heard (CTC, Viterbi's best path).

Unlike :mod:`sap2.model.search`, which asks whether a keyword is anywhere, the whole text is laid over the whole speech.
Source: Graves et al. 2006 for the states; Kürzinger et al. 2020 (CTC segmentation) for its use on transcripts.

Notation: T frames, S symbols (0 is the blank), n symbols of a text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

ANY = -1
"""A symbol that stands for whatever is said: a word that the spotter cannot spell."""
ANY_COST = -0.1
"""Nats that :data:`ANY` costs in a frame: it does not grow into the silence around it."""
UNHEARD = -16.0
"""Nats below the best symbol of its frame: a symbol that stays below this in all frames is none of those that the
spotter has learnt. (Of sap2-tiny, letters that are not said reach -11, digits, which it never saw, -20.)"""


def heard_symbols(log_probs: np.ndarray) -> np.ndarray:
    """Of log probabilities (T, S): which symbols the spotter can write at all, (S,) bool."""
    relative = log_probs - log_probs.max(axis=1, keepdims=True)
    return relative.max(axis=0, initial=-np.inf) > UNHEARD


def align(log_probs: np.ndarray, symbols: Sequence[int]) -> np.ndarray | None:
    """The frames of each symbol on the best path of the text through all frames.

    Args:
        log_probs: (T, S) of the spotter.
        symbols: n of them; no blanks, :data:`ANY` allowed.

    Returns:
        (n, 2) int64: the first frame of each symbol, and the one after its last. None where the text has more symbols
        than the frames can hold.
    """
    wanted = np.asarray(symbols, dtype=np.int64)
    repeated = int(np.count_nonzero(wanted[1:] == wanted[:-1]))
    if not len(wanted) or len(wanted) + repeated > len(log_probs):
        return None
    relative = (log_probs - log_probs.max(axis=1, keepdims=True)).astype(np.float32)
    # the last column, which ANY indexes
    scores = np.concatenate([relative, np.full((len(relative), 1), ANY_COST, np.float32)], axis=1)
    states = np.zeros(2 * len(wanted) + 1, dtype=np.int64)
    states[1::2] = np.where(wanted == ANY, scores.shape[1] - 1, wanted)
    return _kernel()(np.ascontiguousarray(scores[:, states]), states)


@functools.cache
def _kernel() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    from sap2.compiling import compiled

    return compiled(_best_path)


def _best_path(scores, states):
    """``scores`` (T, 2n + 1) of the states: blank, first symbol, blank, ..., blank. Each frame stays or moves on."""
    frames, count = scores.shape
    best = np.full(count, -np.inf, dtype=np.float32)
    best[0], best[1] = scores[0, 0], scores[0, 1]
    steps = np.zeros((frames, count), dtype=np.int8)
    for frame in range(1, frames):
        for state in range(count - 1, -1, -1):  # downwards: those before it are still of the frame before
            step, top = 0, best[state]
            if state > 0 and best[state - 1] > top:
                step, top = 1, best[state - 1]
            if state > 1 and state % 2 == 1 and states[state] != states[state - 2] and best[state - 2] > top:
                step, top = 2, best[state - 2]
            steps[frame, state] = step
            best[state] = top + scores[frame, state]
    spans = np.zeros((count // 2, 2), dtype=np.int64)
    state = count - 1 if best[count - 1] > best[count - 2] else count - 2
    for frame in range(frames - 1, -1, -1):
        if state % 2 == 1:
            spans[state // 2, 0] = frame
            if spans[state // 2, 1] == 0:
                spans[state // 2, 1] = frame + 1
        state -= steps[frame, state]
    return spans
