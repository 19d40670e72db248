"""What :mod:`explain` measures of one utterance: how alike two maps are, and how fast a word dies.

Notation: T tokens of the audio (40 ms each), W words, R tokens of the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from sap2.scoring.figures import resample

FRACTIONS = (0.025, 0.05, 0.1, 0.2, 0.3)
"""Of the audio's tokens, the first of an order, that are silenced."""


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's correlation of two maps; None where one of them is flat."""
    first, second = first.ravel() - first.mean(), second.ravel() - second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 1e-12 else None


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation of two maps; None where one of them is flat."""
    return pearson(rankdata(first), rankdata(second))


def covered(attention: np.ndarray, saliency: np.ndarray) -> float | None:
    """The share of a word's saliency, as far as it is for the word, that lies under its attention: the sum of the
    smaller of both, each made to sum to 1. None where nothing is for the word."""
    saliency = saliency.clip(min=0)
    if saliency.sum() <= 0 or attention.sum() <= 0:
        return None
    return float(np.minimum(attention / attention.sum(), saliency / saliency.sum()).sum())


def whole_of_halves(half: float | None) -> float | None:
    """The reliability of a map of which two halves correlate so (Spearman-Brown): no other map can correlate with it
    better than the root of that."""
    return None if half is None or half <= 0 else 2 * half / (1 + half)


def around(start: float, end: float, tokens: int, token_seconds: float) -> np.ndarray:
    """The map (T,) of a word that is said from start to end: 1 in its middle, and falling off by its length."""
    middle, half = (start + end) / 2, max(end - start, token_seconds) / 2
    times = (np.arange(tokens) + 0.5) * token_seconds
    return np.exp(-np.abs(times - middle) / half)


def deletions(order_by: np.ndarray, bands: int) -> np.ndarray:
    """Masks (fractions, bands, T) that silence the first of the audio's tokens by a map (T,)."""
    order = np.argsort(-order_by, kind="stable")
    kept = np.ones((len(FRACTIONS), bands, len(order_by)), dtype=bool)
    for row, fraction in zip(kept, FRACTIONS, strict=True):
        row[:, order[: max(1, round(fraction * len(order)))]] = False
    return kept


def died(curve: Sequence[float], full: float) -> float:
    """How much of a word's probability is lost, in per cent, mean over all shares of silenced sound up to the last."""
    shares, left = np.array([0, *FRACTIONS]), np.array([full, *curve]) / full
    return float(100 * (1 - np.trapezoid(left.clip(max=1), shares) / FRACTIONS[-1]))


def interval(by_talk: Mapping[str, Sequence[float]], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of all values, and its 95 % interval over talks (bootstrap)."""
    sums = np.array([[sum(values), len(values)] for values in by_talk.values()], np.float64)
    drawn = resample(sums, draws, seed)
    low, high = np.percentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1), [2.5, 97.5])
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)
