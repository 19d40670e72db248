"""The report of :mod:`prune`: figures of what was picked and of what was transcribed, a table and a plot."""

from __future__ import annotations

import functools
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
from sap2.tiny.plan import ACCENTS
from sap2.tiny.speech import phonemes

DRAWS = 2000
SHOWN = ("wer", "u_wer", "b_wer")
RANKS = (3, 5, 10, 20)
OWN = 40
"""The size that stands for an utterance's own list."""
RUN = 3
"""Words of the list, one after the other, that make a leak."""


class Arm(NamedTuple):
    """One way through the pipeline: the ``kind`` of list (none, whole, list, bank, beside, useless, alike), its
    ``size``, and who prunes."""

    kind: str
    size: int
    pruner: str | None

    @property
    def terms(self) -> str:
        """The list, for the table."""
        size = f"{self.size:,}"
        named = {"none": "none", "bank": f"bank of {size}", "beside": f"{OWN}, and a bank of {size}"}
        named |= {"useless": f"{size} (useless)", "alike": f"{size} (look-alikes)"}
        return named.get(self.kind, size)

    @property
    def name(self) -> str:
        """For files and figures."""
        return "-".join(
            map(str, (self.kind, *([self.size] if self.size else []), *([self.pruner] if self.pruner else [])))
        )

    def is_decoded(self, output: Path) -> bool:
        """Whether all its results are there."""
        path = output / f"result.{self.name}.jsonl"
        return path.exists() and {row["id"] for _, row in read_rows(path)} == {
            row["id"] for _, row in read_rows(output / f"{OWN}.jsonl")
        }


def read_results(folders: Sequence[Path], arm: Arm) -> dict[str, Row]:
    """Results of an arm by id."""
    return {row["id"]: row for folder in folders for _, row in read_rows(folder / f"result.{arm.name}.jsonl")}


def sounds_right(row: Row) -> Row:
    """The result with the words of its transcript in place of picked keywords that sound the same: which of two
    homophones was said is not to be heard."""
    said = {sound: word for word in row["labels"].split() for sound in _sounds(word)}
    told = {word for keyword in row["picked_keywords"] for word in keyword.split()} - set(row["labels"].split())
    words = [
        next((said[sound] for sound in _sounds(word) if sound in said), word) if word in told else word
        for word in row["response"].split()
    ]
    return {**row, "response": " ".join(words)}


@functools.cache
def _sounds(word: str) -> tuple[tuple[str, str], ...]:
    """How a word sounds in each accent of the talks."""
    return tuple((accent, phonemes(word, accent)) for accent in ACCENTS)


def guessed(utterances: Sequence[Row], bank: Sequence[str]) -> float:
    """The B-WER of somebody who hears all rightly and guesses between the terms of the bank that sound the same."""
    alike: dict[tuple[str, str], set[str]] = {}
    for term in bank:
        for sound in _sounds(term):
            alike.setdefault(sound, set()).add(term)
    said = [keyword for row in utterances for keyword in spoken_keywords(row["keywords"], row["text"])]
    choices = [len({keyword}.union(*(alike.get(sound, ()) for sound in _sounds(keyword)))) for keyword in said]
    return 100 * sum(1 - 1 / count for count in choices) / max(1, len(said))


def limits(folders: Sequence[Path], arms: Sequence[Arm]) -> list[str]:
    """For each bank that was searched alone, a line that says what :func:`guessed` gives over all seeds."""
    lines = []
    for arm in {arm.size: arm for arm in arms if arm.kind == "bank"}.values():
        of_seeds = [
            guessed(
                [row for _, row in read_rows(folder / f"{OWN}.jsonl")],
                (folder / f"bank.{arm.size}.txt").read_text(encoding="utf-8").splitlines(),
            )
            for folder in folders
        ]
        mean = np.mean(of_seeds)
        lines.append(
            f"{arm.terms}: a listener who has to guess between homophones only would have a B-WER of {mean:.1f}"
        )
    return lines


def picks(results: Sequence[Row], lists: Mapping[str, list[str]]) -> dict[str, float | None]:
    """How well stage one found what is said of the own lists: recall at k and of all picks, precision, calibration."""
    places, found, picked_count, right = [], 0, 0, 0
    probabilities, spoken_flags = [], []
    for row in results:
        said = {keyword.casefold() for keyword in spoken_keywords(lists[row["id"]], row["labels"] or "")}
        places += ranks(row, lists[row["id"]])
        picked = {keyword.casefold() for keyword in row["picked_keywords"]}
        found, picked_count, right = found + len(said & picked), picked_count + len(picked), right + len(said & picked)
        probabilities += list(row["keyword_probabilities"].values())
        spoken_flags += [keyword.casefold() in said for keyword in row["keyword_probabilities"]]
    said_count = len(places)
    table = {f"recall at {k}": 100 * sum(place < k for place in places) / max(1, said_count) for k in RANKS}
    bins = reliability(np.array(probabilities), np.array(spoken_flags)) if probabilities else []
    return {
        **table,
        "recall": 100 * found / max(1, said_count),
        "precision": 100 * right / picked_count if picked_count else None,
        "picked": picked_count / len(results),
        "calibration error": calibration_error(bins),
    }


def ranks(row: Row, keywords: Sequence[str]) -> list[int]:
    """Where those of an utterance's ``keywords`` that are said stand among the picks of its result, from 0; beyond all
    where one was not looked at."""
    said = {keyword.casefold() for keyword in spoken_keywords(keywords, row["labels"] or "")}
    order = [keyword.casefold() for keyword in row["keyword_probabilities"]]
    return [order.index(keyword) if keyword in order else len(order) + 1000 for keyword in sorted(said)]


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
    by_talk = counts_by_talk(results, utterances)
    low, high = np.nanpercentile(shares(resample(by_talk, DRAWS, seed)), [2.5, 97.5], axis=0)
    whole = shares(by_talk.sum(0))
    return {name: (whole[i], low[i], high[i]) for i, name in enumerate(SHOWN)}


def talks_of(utterances: Sequence[Row]) -> dict[str, list[int]]:
    """Places of the utterances of each talk."""
    talks: dict[str, list[int]] = {}
    for index, row in enumerate(utterances):
        talks.setdefault(row["session"], []).append(index)
    return talks


def counts_by_talk(results: Mapping[str, Row], utterances: Sequence[Row]) -> np.ndarray:
    """Errors and words of each talk, for each of :data:`SHOWN`: (talks, 3, 2)."""
    hyps = {row["id"]: results[row["id"]]["response"] for row in utterances}
    test_set = TestSet([Utterance(row["id"], row["text"], list(row["keywords"])) for row in utterances], {"arm": hyps})
    parts = fractions(score(test_set, DEFINITIONS["slidespeech"]).systems["arm"])
    by_talk = np.array([parts[members].sum(0) for members in talks_of(utterances).values()])
    return by_talk[:, [FIGURES.index(figure) for figure in SHOWN]]


def shares(parts: np.ndarray) -> np.ndarray:
    """Percent of (…, 2) numerators and denominators; NaN of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * parts[..., 0] / parts[..., 1]


def write_report(output: Path, folders: Sequence[Path], arms: Sequence[Arm]) -> None:
    """Write OUTPUT/figures.json, table.md and plot.png, of the results of all seeds, each in its folder."""
    of_seeds = [[row for _, row in read_rows(folder / f"{OWN}.jsonl")] for folder in folders]
    utterances = [row for of_seed in of_seeds for row in of_seed]
    found = {arm.name: _figures(read_results(folders, arm), utterances, arm) for arm in arms}
    for arm in arms:
        found[arm.name]["b_wer of each seed"] = [
            rates(read_results([folder], arm), of_seed)["b_wer"][0]
            for folder, of_seed in zip(folders, of_seeds, strict=True)
        ]
    with atomic_write(output / "figures.json") as stream:
        json.dump({"utterances": len(utterances), "arms": found}, stream, indent=1)
        stream.write("\n")
    with atomic_write(output / "table.md") as stream:
        stream.write("\n".join(table(arms, found)) + "\n")
    plot(arms, found, output / "plot.png")


def _figures(results: Mapping[str, Row], utterances: Sequence[Row], arm: Arm) -> dict:
    rows = list(results.values())
    right = {key: sounds_right(row) for key, row in results.items()}
    figures = {"rates": rates(results, utterances), "invented": inventions(rows), "leaks": leaks(rows)}
    figures["homophones right"] = {
        "b_wer": rates(right, utterances)["b_wer"],
        "invented": inventions(list(right.values())),
    }
    if arm.pruner:
        figures["picks"] = picks(rows, {row["id"]: row["keywords"] for row in utterances})
        figures["seconds"] = float(np.mean([row["seconds"]["prune"] for row in rows]))
    return figures


def table(arms: Sequence[Arm], found: Mapping[str, dict]) -> list[str]:
    """The table in Markdown, a line an arm."""
    head = ["terms", "pruner", *(f"recall at {k}" for k in RANKS), "kept", "precision", "calibration error"]
    head += ["s/utterance", "WER", "U-WER", "B-WER", "B-WER of each seed", "B-WER, homophones right", "invented in 100"]
    head += ["invented, homophones right", "leaks in 100"]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(_line(arm, found[arm.name]) for arm in arms)]


def _line(arm: Arm, one: Mapping) -> str:
    picked, right = one.get("picks"), one["homophones right"]
    cells = [arm.terms, arm.pruner or "none"]
    if picked and arm.kind not in ("useless", "alike"):
        cells += [f"{picked[f'recall at {k}']:.1f}" for k in RANKS]
        cells += [f"{picked['picked']:.1f}", _percent(picked["precision"])]
        cells += [f"{picked['calibration error']:.3f}" if arm.pruner == "spot" else ""]
    else:
        cells += [""] * len(RANKS) + [f"{picked['picked']:.1f}" if picked else "", "", ""]
    cells.append(f"{one['seconds']:.3f}" if picked else "")
    cells += [f"{whole:.1f} ({low:.1f}–{high:.1f})" for whole, low, high in (one["rates"][name] for name in SHOWN)]
    cells += [", ".join(f"{value:.1f}" for value in one["b_wer of each seed"])]
    cells += ["{:.1f} ({:.1f}–{:.1f})".format(*right["b_wer"]), f"{one['invented']:.1f}", f"{right['invented']:.1f}"]
    return f"| {' | '.join([*cells, _percent(one['leaks'])])} |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def plot(arms: Sequence[Arm], found: Mapping[str, dict], path: Path) -> None:
    """B-WER and recall at 10 over the size of the list, a line a pruner."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    kinds = ("list", "whole", "bank")
    for pruner in dict.fromkeys(arm.pruner for arm in arms if arm.kind in kinds):
        own = [arm for arm in arms if arm.pruner == pruner and arm.kind in kinds]
        sizes = [arm.size for arm in own]
        wrong = [found[arm.name]["rates"]["b_wer"][0] for arm in own]
        (line,) = left.plot(sizes, wrong, marker="o", label=pruner or "one stage")
        if pruner:
            recall = [found[arm.name]["picks"]["recall at 10"] for arm in own]
            right.plot(sizes, recall, marker="o", color=line.get_color())
    left.set(xscale="log", xlabel="terms", ylabel="B-WER %", ylim=(0, None))
    right.set(xscale="log", xlabel="terms", ylabel="recall at 10, %")
    if left.get_legend_handles_labels()[0]:
        left.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
