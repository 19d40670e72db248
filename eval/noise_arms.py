"""Arms of :mod:`noise`: adapters of one name that were trained with several seeds, and the differences between arms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from prune_report import DRAWS, counts_by_talk, ranks, shares, talks_of

from sap2.errors import InputError
from sap2.rows import Row
from sap2.scoring.figures import resample

FIGURES = ("WER", "U-WER", "B-WER", "recall at 10", "letters wrong")
"""Those of an arm, in percent."""
FIRST = 10
"""Picks that the recall is of."""
_SEED = re.compile(r"(.+)\.\d+")


class Spread(NamedTuple):
    """A figure of an arm, or a difference: its mean over the seeds, the 95 % interval of it over talks, and its value
    with each seed (none of a difference)."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    def __str__(self) -> str:
        each = f" [{', '.join(f'{value:.1f}' for value in self.seeds)}]" if len(self.seeds) > 1 else ""
        return f"{self.mean:.1f} ({self.low:.1f}–{self.high:.1f}){each}"

    def for_json(self) -> dict[str, Any]:
        """None for what is unknown."""
        known = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: None if np.isnan(value) else value for name, value in known.items()} | {
            "seeds": [None if np.isnan(value) else value for value in self.seeds]
        }

    @property
    def signed(self) -> str:
        """For a difference."""
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def arm_of(adapter: str) -> str:
    """``noisy`` of the adapter ``noisy.2``; other names are arms of their own."""
    found = _SEED.fullmatch(adapter)
    return found[1] if found else adapter


def arms_of(adapters: Iterable[str]) -> dict[str, list[str]]:
    """The adapters of each arm."""
    arms: dict[str, list[str]] = {}
    for adapter in adapters:
        arms.setdefault(arm_of(adapter), []).append(adapter)
    return arms


def parse_differences(given: Sequence[str], adapters: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """``A:B`` of the command line to pairs of arms.

    Raises:
        InputError: not two arms that are compared.
    """
    arms = arms_of(adapters)
    pairs = [tuple(text.split(":")) for text in given]
    for text, pair in zip(given, pairs, strict=True):
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(arms):
            raise InputError(f"--differences {text!r}; allowed: A:B, two of {', '.join(arms)}")
    return tuple((pair[0], pair[1]) for pair in pairs)


def parts_by_talk(
    results: Mapping[str, Row], utterances: Sequence[Row], letters: Mapping[str, Sequence[int]]
) -> np.ndarray:
    """What the figures of one adapter are made of: (talks, len(FIGURES), 2), numerator and denominator.

    The recall is 0 of 0 where nothing was picked.

    Args:
        results: by id.
        letters: of each talk, how many the spotter got wrong, of how many.
    """
    talks = talks_of(utterances)
    found = np.zeros((len(talks), 2))
    for talk, members in enumerate(talks.values()):
        for row in (utterances[index] for index in members):
            result = results[row["id"]]
            if "keyword_probabilities" in result:
                places = ranks(result, row["keywords"])
                found[talk] += sum(place < FIRST for place in places), len(places)
    spelled = np.array([letters[talk] for talk in talks], dtype=np.float64)
    return np.concatenate([counts_by_talk(results, utterances), found[:, None], spelled[:, None]], axis=1)


def spreads(of_seeds: Sequence[np.ndarray]) -> dict[str, Spread]:
    """Each figure of an arm, of :func:`parts_by_talk` with each seed. The interval is that of the mean over the seeds,
    all of them on the same drawn talks; it does not hold what other seeds would give."""
    parts = np.stack(of_seeds, axis=1)  # (talks, seeds, figures, 2)
    each = shares(parts.sum(0))
    low, high = _interval(_drawn_means(parts))
    return {
        name: Spread(float(each[:, i].mean()), float(low[i]), float(high[i]), tuple(map(float, each[:, i])))
        for i, name in enumerate(FIGURES)
    }


def differences(of_seeds: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> dict[str, Spread]:
    """Each figure of an arm less that of another one, on the same drawn talks."""
    parts, other = np.stack(of_seeds, axis=1), np.stack(others, axis=1)
    whole = shares(parts.sum(0)).mean(0) - shares(other.sum(0)).mean(0)
    low, high = _interval(_drawn_means(parts) - _drawn_means(other))
    return {name: Spread(float(whole[i]), float(low[i]), float(high[i])) for i, name in enumerate(FIGURES)}


def _drawn_means(parts: np.ndarray) -> np.ndarray:
    """(talks, seeds, figures, 2) → (draws, figures); the same talks are drawn for every arm."""
    return shares(resample(parts, DRAWS, seed=0)).mean(1)


def _interval(drawn: np.ndarray) -> np.ndarray:
    unknown = np.isnan(drawn).all(0)
    return np.where(unknown, np.nan, np.nanpercentile(np.where(unknown, 0, drawn), [2.5, 97.5], axis=0))


def arm_tables(found: Mapping[str, Mapping], titles: Mapping[Any, str]) -> list[str]:
    """The means over seeds, and the differences, in Markdown.

    Args:
        found: ``arms`` and ``differences``: by condition and way, by arm or pair, by figure.
        titles: of conditions, for people.
    """
    lines = []
    for part, head in (("arms", "mean over the seeds (95 % over talks) [each seed]"), ("differences", "difference")):
        if not found[part]:
            continue
        lines += ["", f"| noise | list | {head} | {' | '.join(FIGURES)} |", "|" + " --- |" * (3 + len(FIGURES))]
        for (condition, way), arms in found[part].items():
            for arm, figures in arms.items():
                shown = [one.signed if part == "differences" else str(one) for one in figures.values()]
                shown = ["" if "nan" in text else text for text in shown]
                lines.append(f"| {' | '.join([titles[condition], way, arm, *shown])} |")
    return lines
