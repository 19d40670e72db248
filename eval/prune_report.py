"""The report of :mod:`prune`: figures of what was picked and of what was transcribed, a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sap2.files import atomic_write
from sap2.pruning.calibration import calibration_error, reliability
from sap2.rowfiles import read_rows
from sap2.rows import Row
from sap2.scoring.definitions import DEFINITIONS, score
from sap2.scoring.figures import FIGURES, fractions, resample
from sap2.scoring.inputs import TestSet, Utterance
from sap2.text import spoken_keywords

DRAWS = 2000
SHOWN = ("wer", "u_wer", "b_wer")
RANKS = (3, 5, 10, 20)
OWN = 40
"""The size that stands for an utterance's own list."""
RUN = 3
"""Words of the list, one after the other, that make a leak."""


class Arm(NamedTuple):
    """One way through the pipeline: the ``kind`` of list (none, whole, list, useless), its ``size``, and who prunes."""

    kind: str
    size: int
    pruner: str | None

    @property
    def name(self) -> str:
        """For files and tables."""
        return "-".join(
            map(str, (self.kind, *([self.size] if self.size else []), *([self.pruner] if self.pruner else [])))
        )

    def is_decoded(self, output: Path) -> bool:
        """Whether all its results are there."""
        path = output / f"result.{self.name}.jsonl"
        return path.exists() and {row["id"] for _, row in read_rows(path)} == {
            row["id"] for _, row in read_rows(output / f"{OWN}.jsonl")
        }


def read_results(output: Path, arm: Arm) -> dict[str, Row]:
    """Results of an arm by id."""
    return {row["id"]: row for _, row in read_rows(output / f"result.{arm.name}.jsonl")}


def picks(results: Sequence[Row], lists: Mapping[str, list[str]]) -> dict[str, float | None]:
    """How well stage one found what is said of the own lists: recall at k and of all picks, precision, calibration."""
    ranks, found, picked_count, right = [], 0, 0, 0
    probabilities, spoken_flags = [], []
    for row in results:
        said = {keyword.casefold() for keyword in spoken_keywords(lists[row["id"]], row["labels"] or "")}
        order = [keyword.casefold() for keyword in row["keyword_probabilities"]]
        ranks += [order.index(keyword) if keyword in order else len(order) + 1000 for keyword in sorted(said)]
        picked = {keyword.casefold() for keyword in row["picked_keywords"]}
        found, picked_count, right = found + len(said & picked), picked_count + len(picked), right + len(said & picked)
        probabilities += list(row["keyword_probabilities"].values())
        spoken_flags += [keyword in said for keyword in order]
    said_count = len(ranks)
    table = {f"recall at {k}": 100 * sum(rank < k for rank in ranks) / max(1, said_count) for k in RANKS}
    bins = reliability(np.array(probabilities), np.array(spoken_flags)) if probabilities else []
    return {
        **table,
        "recall": 100 * found / max(1, said_count),
        "precision": 100 * right / picked_count if picked_count else None,
        "picked": picked_count / len(results),
        "calibration error": calibration_error(bins),
    }


def inventions(results: Sequence[Row]) -> float:
    """Words of picked keywords that were written though nobody said them, in a hundred utterances."""
    count = 0
    for row in results:
        told = {word for keyword in row["picked_keywords"] for word in keyword.split()}
        said = set((row["labels"] or "").split())
        count += sum(word in told and word not in said for word in row["response"].split())
    return 100 * count / len(results)


def leaks(results: Sequence[Row]) -> float:
    """Replies, of a hundred, that hold a run of :data:`RUN` keywords that the model was told and nobody said: the list
    has come out as the transcript."""
    return 100 * sum(map(_leaks, results)) / len(results)


def _leaks(row: Row) -> bool:
    told = {word for keyword in row["picked_keywords"] for word in keyword.split()}
    told -= set((row["labels"] or "").split())
    run = 0
    for word in row["response"].split():
        run = run + 1 if word in told else 0
        if run == RUN:
            return True
    return False


def rates(
    results: Mapping[str, Row], utterances: Sequence[Row], seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """WER, U-WER and B-WER (of the own lists), each with its 95 % interval over talks."""
    hyps = {row["id"]: results[row["id"]]["response"] for row in utterances}
    test_set = TestSet([Utterance(row["id"], row["text"], list(row["keywords"])) for row in utterances], {"arm": hyps})
    parts = fractions(score(test_set, DEFINITIONS["slidespeech"]).systems["arm"])
    talks: dict[str, list[int]] = {}
    for index, row in enumerate(utterances):
        talks.setdefault(row["session"], []).append(index)
    by_talk = np.array([parts[members].sum(0) for members in talks.values()])
    by_talk = by_talk[:, [FIGURES.index(figure) for figure in SHOWN]]
    low, high = np.nanpercentile(_shares(resample(by_talk, DRAWS, seed)), [2.5, 97.5], axis=0)
    whole = _shares(by_talk.sum(0))
    return {name: (whole[i], low[i], high[i]) for i, name in enumerate(SHOWN)}


def _shares(parts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * parts[..., 0] / parts[..., 1]


def write_report(output: Path, arms: Sequence[Arm]) -> None:
    """Write OUTPUT/figures.json, table.md and plot.png."""
    utterances = [row for _, row in read_rows(output / f"{OWN}.jsonl")]
    lists = {row["id"]: row["keywords"] for row in utterances}
    found = {}
    for arm in arms:
        results = read_results(output, arm)
        rows = list(results.values())
        figures = {"rates": rates(results, utterances), "invented": inventions(rows), "leaks": leaks(rows)}
        if arm.pruner:
            figures["picks"] = picks(rows, lists)
            figures["seconds"] = float(np.mean([row["seconds"]["prune"] for row in rows]))
        found[arm.name] = figures
    with atomic_write(output / "figures.json") as stream:
        json.dump({"utterances": len(utterances), "arms": found}, stream, indent=1)
        stream.write("\n")
    with atomic_write(output / "table.md") as stream:
        stream.write("\n".join(table(arms, found)) + "\n")
    plot(arms, found, output / "plot.png")


def table(arms: Sequence[Arm], found: Mapping[str, dict]) -> list[str]:
    """The table in Markdown, a line an arm."""
    head = ["terms", "pruner", *(f"recall at {k}" for k in RANKS), "kept", "precision", "calibration error"]
    head += ["s/utterance", "WER", "U-WER", "B-WER", "invented in 100", "leaks in 100"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for arm in arms:
        one = found[arm.name]
        picked = one.get("picks")
        cells = [f"{arm.size:,}" if arm.size else "none", arm.pruner or "none"]
        cells[0] += " (useless)" if arm.kind == "useless" else ""
        if picked and arm.kind != "useless":
            cells += [f"{picked[f'recall at {k}']:.1f}" for k in RANKS]
            cells += [f"{picked['picked']:.1f}", _percent(picked["precision"])]
            cells += [f"{picked['calibration error']:.3f}" if arm.pruner == "spot" else ""]
        else:
            cells += [""] * len(RANKS) + [f"{picked['picked']:.1f}" if picked else "", "", ""]
        cells.append(f"{one['seconds']:.3f}" if picked else "")
        cells += [f"{whole:.1f} ({low:.1f}–{high:.1f})" for whole, low, high in (one["rates"][name] for name in SHOWN)]
        lines.append(f"| {' | '.join([*cells, f'''{one['invented']:.1f}''', f'''{one['leaks']:.1f}'''])} |")
    return lines


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def plot(arms: Sequence[Arm], found: Mapping[str, dict], path: Path) -> None:
    """B-WER and recall at 10 over the size of the list, a line a pruner."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for pruner in dict.fromkeys(arm.pruner for arm in arms if arm.kind in ("list", "whole")):
        own = [arm for arm in arms if arm.pruner == pruner and arm.kind in ("list", "whole")]
        sizes = [arm.size for arm in own]
        left.plot(sizes, [found[arm.name]["rates"]["b_wer"][0] for arm in own], marker="o", label=pruner or "one stage")
        if pruner:
            right.plot(sizes, [found[arm.name]["picks"]["recall at 10"] for arm in own], marker="o", label=pruner)
    left.set(xscale="log", xlabel="terms", ylabel="B-WER %", ylim=(0, None))
    right.set(xscale="log", xlabel="terms", ylabel="recall at 10, %")
    if left.get_legend_handles_labels()[0]:
        left.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
