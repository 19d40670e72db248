"""Where in the speech a spelling is found: the frames of its best path.

The search of :mod:`sap2.model.search` says how well each of many spellings is found; this says of a few of them where,
with the same scores and the same states.

Notation: K spellings, T frames, S symbols (0 is the blank), n symbols of a spelling.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from sap2.model.search import UNREACHED


def best_spans(scores: np.ndarray, spellings: np.ndarray) -> np.ndarray:
    """First and last frame of the best path of each spelling.

    Of equal paths it is the one that ends first, and of those the one that begins last: silence around a word belongs
    to no word.

    Args:
        scores: (T, S) int32 of :func:`sap2.model.search.frame_scores`, the valid frames of one audio.
        spellings: (K, n) symbols, 0 = padding.

    Returns:
        (K, 2) int64; -1 where a spelling has no symbol or does not fit into the frames.
    """
    spans = np.full((len(spellings), 2), -1, dtype=np.int64)
    if spellings.size:
        _kernel()(np.ascontiguousarray(scores), np.ascontiguousarray(spellings), spans, UNREACHED)
    return spans


@functools.cache
def _kernel() -> Callable[..., None]:
    """The loop, compiled when it is first needed."""
    from sap2.compiling import compiled

    return compiled(_trace)


def _trace(scores, spellings, spans, unreached):
    """Fill ``spans``. A path that enters the first state carries the frame of its entry along."""
    longest = 2 * spellings.shape[1] - 1
    paths, starts = np.empty(longest, dtype=np.int32), np.empty(longest, dtype=np.int64)
    for row in range(spellings.shape[0]):
        length = 0
        while length < spellings.shape[1] and spellings[row, length] > 0:
            length += 1
        states = 2 * length - 1
        paths[:], starts[:] = unreached, 0
        best = unreached // 2
        for frame in range(scores.shape[0]):
            for state in range(states - 1, -1, -1):  # from the last: what stands before it is of the frame before
                path, start = paths[state], starts[state]
                if state == 0 and path <= 0:
                    path, start = np.int32(0), frame
                if state > 0 and (paths[state - 1], starts[state - 1]) > (path, start):
                    path, start = paths[state - 1], starts[state - 1]
                symbol = spellings[row, state // 2] if state % 2 == 0 else 0
                skips = state > 1 and symbol > 0 and symbol != spellings[row, state // 2 - 1]
                if skips and (paths[state - 2], starts[state - 2]) > (path, start):
                    path, start = paths[state - 2], starts[state - 2]
                if path > unreached:
                    path = max(path + scores[frame, symbol], unreached)
                paths[state], starts[state] = path, start
            if states > 0 and paths[states - 1] > best:
                best = paths[states - 1]
                spans[row, 0], spans[row, 1] = starts[states - 1], frame
