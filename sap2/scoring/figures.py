"""From counts to figures: rates, keyword recall, relative changes and the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sap2.scoring.align import BIASED, DELS, INS, REF_WORDS, SUBS, UNBIASED
from sap2.scoring.definitions import FN, FP, TN, TP, Scores, SystemScore

WER_KINDS = ("wer", "u_wer", "b_wer")
FIGURES = (*WER_KINDS, "recall", "precision", "f1")
"""The figures that are compared; of the first three, less is better."""

LABELS = {"wer": "WER", "u_wer": "U-WER", "b_wer": "B-WER", "recall": "recall", "precision": "precision", "f1": "F1"}

_CHUNK = 1 << 22  # drawn utterances held at a time
CONFIDENCE = 95.0
MIN_UNITS = 5
"""With fewer utterances (or sessions) than this to draw from, there is no interval."""
FEW_UTTERANCES = 20
"""Below this number of utterances, intervals are given with a warning."""
FEW_SESSIONS = 10
"""Below this number of sessions, drawing whole sessions gives intervals that are too narrow, and none is given."""


class Totals(NamedTuple):
    """Counts of some utterances together: errors (2, 4) and keywords (4,), as in :class:`wer_definitions.SystemScore`,
    and the number of utterances."""

    errors: np.ndarray
    keywords: np.ndarray
    utterances: int


def totals(system: SystemScore, chosen: np.ndarray | slice = slice(None)) -> Totals:
    """Sum the counts of the chosen utterances (all of them if none are named)."""
    errors = system.errors[chosen]
    return Totals(errors.sum(axis=0), system.keywords[chosen].sum(axis=0), len(errors))


def percentage(part: float, whole: float) -> float | None:
    """``100 * part / whole``; None where it is undefined."""
    return 100.0 * part / whole if whole else None


def figures(total: Totals) -> dict[str, dict[str, Any]]:
    """The figures of one system, as they stand in the JSON report: rates in percent, None where undefined."""
    kinds = {
        "wer": total.errors[UNBIASED] + total.errors[BIASED],
        "u_wer": total.errors[UNBIASED],
        "b_wer": total.errors[BIASED],
    }
    result: dict[str, dict[str, Any]] = {}
    for kind, counts in kinds.items():
        words, subs, ins, dels = (int(counts[column]) for column in (REF_WORDS, SUBS, INS, DELS))
        rate = percentage(subs + ins + dels, words)
        result[kind] = {"error_rate": rate, "ref_words": words, "subs": subs, "ins": ins, "dels": dels}
    tp, fp, fn, tn = (int(total.keywords[column]) for column in (TP, FP, FN, TN))
    result["keywords"] = {
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
        "recall": percentage(tp, tp + fn),
        "precision": percentage(tp, tp + fp),
        "f1": percentage(2 * tp, 2 * tp + fp + fn),
    }
    return result


def value(result: dict[str, dict[str, Any]], figure: str) -> float | None:
    """One of :data:`FIGURES` out of :func:`figures`."""
    return result[figure]["error_rate"] if figure in WER_KINDS else result["keywords"][figure]


def sessions(scores: Scores) -> dict[str, np.ndarray]:
    """Utterance numbers of every session, in the order of the input; empty where no session is known."""
    groups: dict[str, list[int]] = {}
    for index, utterance in enumerate(scores.utterances):
        if utterance.session is not None:
            groups.setdefault(utterance.session, []).append(index)
    return {name: np.array(members) for name, members in groups.items()}


def fractions(system: SystemScore) -> np.ndarray:
    """Numerator and denominator of every figure for every utterance, shape (U, len(FIGURES), 2) float64."""
    errors = system.errors.astype(np.float64)
    wrong = errors[:, :, [SUBS, INS, DELS]].sum(axis=2)
    words = errors[:, :, REF_WORDS]
    tp, fp, fn = (system.keywords[:, column].astype(np.float64) for column in (TP, FP, FN))
    pairs = [
        (wrong.sum(axis=1), words.sum(axis=1)),
        *((wrong[:, group], words[:, group]) for group in (UNBIASED, BIASED)),
        (tp, tp + fn),
        (tp, tp + fp),
        (2 * tp, 2 * tp + fp + fn),
    ]
    return np.stack([np.stack(pair, axis=1) for pair in pairs], axis=1)


def resample(parts: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums over ``draws`` samples of U units drawn with replacement, shape (draws, ...) for parts (U, ...)."""
    units = len(parts)
    flat = parts.reshape(units, -1)
    random = np.random.default_rng(seed)
    sums = []
    step = max(1, _CHUNK // units)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = random.integers(0, units, size=(count, units))
        drawn += np.arange(count)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        sums.append(weights.astype(np.float64) @ flat)
    return np.concatenate([np.empty((0, flat.shape[1])), *sums]).reshape(draws, *parts.shape[1:])


def compare(
    base: SystemScore,
    other: SystemScore,
    chosen: np.ndarray | None = None,
    groups: list[np.ndarray] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Paired bootstrap (Bisani and Ney 2004) of ``other - base`` for every figure, over the chosen utterances.

    Both systems are measured on the same drawn utterances. With ``groups`` (utterance numbers of each session) whole
    sessions are drawn, as the utterances of one talk are not independent.

    Returns:
        For each of :data:`FIGURES`: ``base``, ``system`` (percent), ``difference`` (points), ``relative`` (percent of
        base), ``low`` and ``high`` (95 % confidence interval of the difference) and ``p`` (two-sided; how often the
        drawn difference is not on the side of zero where it was found, counted with one added draw). None where
        undefined.
    """
    parts = np.stack([fractions(base), fractions(other)], axis=1)
    if groups is not None:
        parts = np.stack([parts[members].sum(axis=0) for members in groups])
    elif chosen is not None:
        parts = parts[chosen]
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = _rates(parts.sum(axis=0))
        drawn = _rates(resample(parts, draws if len(parts) >= MIN_UNITS else 0, seed))
    result = {}
    for index, figure in enumerate(FIGURES):
        differences = drawn[:, 1, index] - drawn[:, 0, index]
        result[figure] = _comparison(observed[0, index], observed[1, index], differences[np.isfinite(differences)])
    return result


def _rates(parts: np.ndarray) -> np.ndarray:
    return 100.0 * parts[..., 0] / parts[..., 1]


def _comparison(base: float, system: float, differences: np.ndarray) -> dict[str, float | None]:
    found = {"base": _known(base), "system": _known(system), "difference": None, "relative": None}
    found |= {"low": None, "high": None, "p": None}
    if not (np.isfinite(base) and np.isfinite(system)):
        return found
    relative = 100.0 * (system - base) / base if base else None
    found |= {"difference": float(system - base), "relative": None if relative is None else float(relative)}
    if not len(differences):
        return found
    tail = (100.0 - CONFIDENCE) / 2
    low, high = np.percentile(differences, [tail, 100.0 - tail])
    sides = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2.0 * (sides + 1) / (len(differences) + 1))
    return found | {"low": float(low), "high": float(high), "p": float(p)}


def _known(rate: float) -> float | None:
    return float(rate) if np.isfinite(rate) else None


class Comparison(NamedTuple):
    """One system against the first: figures over all utterances, over whole sessions, and within each session."""

    base: str
    system: str
    figures: dict[str, dict[str, float | None]]
    whole_sessions: dict[str, dict[str, float | None]] | None
    sessions: dict[str, dict[str, dict[str, float | None]]]


def compare_systems(scores: Scores, draws: int, seed: int, progress: Callable[..., Any] = iter) -> list[Comparison]:
    """Every further system against the first one (:func:`compare`)."""
    names = list(scores.systems)
    groups = sessions(scores)
    complete = len(groups) >= FEW_SESSIONS and sum(map(len, groups.values())) == len(scores.utterances)
    base = scores.systems[names[0]]
    comparisons = []
    for name in names[1:]:
        other = scores.systems[name]
        overall = compare(base, other, draws=draws, seed=seed)
        whole = compare(base, other, groups=list(groups.values()), draws=draws, seed=seed) if complete else None
        within = {
            session: compare(base, other, members, draws=draws, seed=seed)
            for session, members in progress(groups.items())
        }
        comparisons.append(Comparison(names[0], name, overall, whole, within))
    return comparisons
