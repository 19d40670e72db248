"""From a score to the probability that the keyword was spoken: logistic regression on terms spoken and unspoken.

The probability depends on what the spotter heard and on how many terms it was asked for: among 100,000 terms some sound
like what is said, whatever that is. It also depends on what else is heard in the same frames: of terms that sound alike
one is said.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sap2.errors import InputError
from sap2.files import atomic_write

FILE_NAME = "pruner.json"
"""Beside the weights of the adapter that it was fitted for."""
FEATURES = ("constant", "salience", "letters", "log_entries")
CONTEST = ("rivals", "sharpness", "offset")


def write_weights(path: Path, weights: Mapping[str, float], notes: Mapping[str, Any]) -> Path:
    """Write the weights of a calibration, whole or not at all; ``notes`` say what it was fitted on."""
    with atomic_write(path) as stream:
        json.dump({"calibration": dict(weights), **notes}, stream, indent=1)
        stream.write("\n")
    return path


def read_weights(path: Path, what: str, needed: Sequence[str], allowed: Sequence[str] = ()) -> dict[str, float] | None:
    """The weights in a file of :func:`write_weights`, or None where there is no file.

    Args:
        what: is calibrated, for the message.
        needed: names that must be there.
        allowed: names that may be there.

    Raises:
        InputError: the file is not one that :func:`write_weights` wrote.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["calibration"]
        return {name: float(values[name]) for name in [*needed, *(name for name in allowed if name in values)]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a calibration of {what}: {error!r}; sap2 calibrate writes one") from None


def sigmoid(odds: float) -> float:
    """The probability of log odds."""
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


class Calibration(NamedTuple):
    """Weights of the evidence, in nats of log odds.

    Attributes:
        constant: of every term.
        salience: for each nat of salience (:func:`sap2.model.spotter.keyword_salience`).
        letters: for each letter of the form that was found.
        log_entries: for each nat of the number of terms that were looked for.
        rivals: for each nat of what stands against a term in the same frames; 0: terms do not contest each other.
        sharpness: for each nat of what is left then.
        offset: of every term, beside it.

    The defaults are those of sap2-tiny.
    """

    constant: float = -2.0
    salience: float = 0.5
    letters: float = 0.0
    log_entries: float = -0.5
    rivals: float = 1.0
    sharpness: float = 1.0
    offset: float = 0.0

    def evidence(self, salience: np.ndarray, letters: np.ndarray, entries: int) -> np.ndarray:
        """Log odds that each term was spoken; -inf where it does not fit into the speech."""
        fixed = self.constant + self.log_entries * math.log(max(1, entries))
        return fixed + self.salience * salience + self.letters * letters

    def contested(self, evidence: np.ndarray, rivals: np.ndarray) -> np.ndarray:
        """Log odds of terms that contest each other; ``rivals`` of :func:`sap2.pruning.spotting.rival_evidence`."""
        return self.offset + self.sharpness * (evidence - self.rivals * rivals)

    @staticmethod
    def probability(evidence: float) -> float:
        """The probability of log odds."""
        return sigmoid(evidence)

    def save(self, folder: str | os.PathLike[str], **notes: Any) -> Path:
        """Write it beside an adapter; ``notes`` say what it was fitted on."""
        return write_weights(Path(folder) / FILE_NAME, self._asdict(), notes)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Calibration | None:
        """That of an adapter, or None where it has none.

        Where the file says nothing of rivals, it was fitted to terms that do not contest each other.

        Raises:
            InputError: the file is not one that :meth:`save` wrote.
        """
        weights = read_weights(Path(folder) / FILE_NAME, "a pruner", FEATURES, CONTEST)
        return None if weights is None else cls(**{"rivals": 0.0, **weights})


def fit_calibration(
    salience: np.ndarray, letters: np.ndarray, entries: np.ndarray, spoken: np.ndarray, weights: np.ndarray
) -> Calibration:
    """Fit by Newton's method, with a little shrinkage so that separable examples have an end.

    Args:
        salience, letters, entries: (N,) of each example: a term that was looked for in a speech among that many.
        spoken: (N,) boolean.
        weights: (N,) how many examples each stands for.

    Raises:
        InputError: no example was spoken, or all were.
    """
    if not 0 < spoken.sum() < len(spoken):
        raise InputError(f"{int(spoken.sum())} of {len(spoken)} keywords are spoken; allowed: some, and not all")
    values = fit_logistic(np.stack([np.ones(len(salience)), salience, letters, np.log(entries)], 1), spoken, weights)
    return Calibration(*map(float, values))


def fit_contest(calibration: Calibration, evidence: np.ndarray, rivals: np.ndarray, spoken: np.ndarray) -> Calibration:
    """Fit what is made of the evidence of terms that contest each other.

    Args:
        calibration: that gave the evidence.
        evidence: (N,) of each ranked term.
        rivals: (N,) what stands against it.
        spoken: (N,) boolean, some and not all.
    """
    inputs = np.stack([np.ones(len(evidence)), evidence, -rivals], 1)
    offset, sharpness, contest = map(float, fit_logistic(inputs, spoken, np.ones(len(evidence))))
    return calibration._replace(rivals=contest / sharpness, sharpness=sharpness, offset=offset)


def fit_logistic(inputs: np.ndarray, spoken: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logistic regression: (F,) weights of the features of ``inputs`` (N, F) for outcomes (N,); each counts ``weights``
    (N,) times."""
    scale = inputs.std(0).clip(1.0)
    inputs = inputs / scale
    values, shrinkage = np.zeros(len(scale)), 1e-3 * np.eye(len(scale))
    for _ in range(100):
        probabilities = 1 / (1 + np.exp(-np.clip(inputs @ values, -500, 500)))
        slope = inputs.T @ (weights * (spoken - probabilities)) - shrinkage @ values
        curvature = (inputs * (weights * probabilities * (1 - probabilities))[:, None]).T @ inputs + shrinkage
        step = np.linalg.solve(curvature, slope)
        values += step * min(1.0, 5.0 / np.abs(step).max().clip(1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return values / scale


class Bin(NamedTuple):
    """Terms of like probability: the ``mean`` of it, the ``share`` that was spoken, and how many ``terms`` they are."""

    mean: float
    share: float
    terms: int


def reliability(probabilities: np.ndarray, spoken: np.ndarray, bins: int = 10) -> list[Bin]:
    """How often what was called likely was spoken, in bins of equal width; empty bins are left out."""
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        Bin(float(probabilities[here].mean()), float(spoken[here].mean()), int(here.sum()))
        for here in (places == place for place in range(bins))
        if here.any()
    ]


def calibration_error(found: list[Bin]) -> float:
    """Expected calibration error: the mean distance of probability and share, over the terms (Guo et al. 2017)."""
    total = sum(one.terms for one in found)
    return sum(abs(one.mean - one.share) * one.terms for one in found) / total if total else 0.0
