"""The report of :mod:`noise`: rates, recall and the spotter's errors by condition and adapter, a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from noise_arms import Spread, arm_of, arm_tables, arms_of, differences, parts_by_talk, spreads
from prune_report import SHOWN, picks, rates

from sap2.files import atomic_write
from sap2.rowfiles import read_rows
from sap2.rows import Row

RANK = "recall at 10"


class Condition(NamedTuple):
    """A kind of noise; ``distance`` in dB of a sound, None of an effect and of clean speech."""

    kind: str
    distance: int | None

    @property
    def name(self) -> str:
        """For files and tables."""
        return self.kind if self.distance is None else f"{self.kind}-{self.distance}"

    @property
    def title(self) -> str:
        """For people."""
        return self.kind if self.distance is None else f"{self.kind}, {self.distance} dB"


CLEAN = Condition("clean", None)


class Cell(NamedTuple):
    """What is decoded at once: a condition, with an adapter, in a ``way`` (spot, whole, long)."""

    condition: Condition
    adapter: str
    way: str

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.adapter}.{self.condition.name}.{self.way}"


def spelled_errors(
    model: str, adapter: str, conditions: Iterable[tuple[str, Sequence[Row]]], batch_size: int
) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """For each condition its name, and of each talk how many letters the spotter gets wrong (Levenshtein distance of
    its best path to the transcripts), of how many.

    Args:
        conditions: name, and utterances as they are heard.
    """
    import torch
    from rapidfuzz.distance import Levenshtein

    from sap2.audio import load_samples
    from sap2.pipeline.asking import Hearing
    from sap2.pipeline.loading import LoadedModel
    from sap2.pipeline.prompting import Encoder
    from sap2.pruning.matching import greedy_text

    loaded = LoadedModel(model, {"asr": adapter})
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    for name, rows in conditions:
        found: dict[str, list[int]] = {row["session"]: [0, 0] for row in rows}
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            heard = [encoder.hear(load_samples(row["audio"], encoder.sampling_rate), row["id"]) for row in batch]
            with torch.inference_mode():
                log_probs, mask = Hearing(loaded, heard).letters("asr")
            for probs, valid, row in zip(log_probs, mask, batch, strict=True):
                counts = found[row["session"]]
                counts[0] += Levenshtein.distance(greedy_text(probs[valid]).strip(), row["text"])
                counts[1] += len(row["text"])
        yield name, found


def read_results(output: Path, cell: Cell) -> dict[str, Row]:
    """Results of a cell by id."""
    return {row["id"]: row for _, row in read_rows(output / f"result.{cell.name}.jsonl")}


def figures(output: Path, cell: Cell, rows: Sequence[Row], letters: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Rates of a cell with their intervals, what the spotter picked, and its letters wrong, of those of each talk."""
    results = read_results(output, cell)
    wrong, count = np.sum(list(letters.values()), axis=0)
    found: dict[str, Any] = {"rates": rates(results, rows), "letters": 100 * float(wrong) / max(1.0, float(count))}
    if cell.way != "whole":
        found["picks"] = picks(list(results.values()), {row["id"]: row["keywords"] for row in rows})
    return found


def write_report(
    output: Path, cells: Sequence[Cell], rows: Sequence[Row], pairs: Sequence[tuple[str, str]] = ()
) -> None:
    """Write OUTPUT/figures.json, table.md and plot.png; with the differences between ``pairs`` of arms."""
    adapters = dict.fromkeys(cell.adapter for cell in cells)
    spelled = {name: json.loads((output / f"spelled.{name}.json").read_text(encoding="utf-8")) for name in adapters}
    letters = {cell: spelled[cell.adapter][cell.condition.name] for cell in cells}
    found = {cell.name: figures(output, cell, rows, letters[cell]) for cell in cells}
    parts = {cell: parts_by_talk(read_results(output, cell), rows, letters[cell]) for cell in cells}
    compared = compare_arms(parts, pairs)
    with atomic_write(output / "figures.json") as stream:
        json.dump({"utterances": len(rows), "cells": found, **_named(compared)}, stream, indent=1)
        stream.write("\n")
    lines = table(cells, found)
    if pairs or any(len(names) > 1 for names in arms_of(adapters).values()):
        lines += arm_tables(compared, {cell.condition: cell.condition.title for cell in cells})
    with atomic_write(output / "table.md") as stream:
        stream.write("\n".join(lines) + "\n")
    plot(cells, compared["arms"], output / "plot.png")


Compared = dict[str, dict[tuple[Condition, str], dict[str, dict[str, Spread]]]]
"""``arms`` and ``differences``, by condition and way, by arm or pair, by figure."""


def compare_arms(parts: Mapping[Cell, np.ndarray], pairs: Sequence[tuple[str, str]]) -> Compared:
    """Means over the seeds of each arm, and differences between arms, of :func:`noise_arms.parts_by_talk`."""
    seeds: dict[tuple[Condition, str], dict[str, list[np.ndarray]]] = {}
    for cell, one in parts.items():
        seeds.setdefault((cell.condition, cell.way), {}).setdefault(arm_of(cell.adapter), []).append(one)
    arms = {place: {arm: spreads(of_arm) for arm, of_arm in here.items()} for place, here in seeds.items()}
    less = {
        place: {f"{one} − {other}": differences(here[one], here[other]) for one, other in pairs}
        for place, here in seeds.items()
    }
    return {"arms": arms, "differences": less if pairs else {}}


def _named(compared: Compared) -> dict[str, Any]:
    """For JSON: ``noise-10.spot`` in place of a condition and a way."""
    return {
        part: {
            f"{condition.name}.{way}": {
                arm: {name: one.for_json() for name, one in figures.items()} for arm, figures in here.items()
            }
            for (condition, way), here in places.items()
        }
        for part, places in compared.items()
    }


def table(cells: Sequence[Cell], found: Mapping[str, dict]) -> list[str]:
    """The table in Markdown, a line a cell."""
    head = ["noise", "adapter", "list", "WER", "U-WER", "B-WER", RANK, "spotter's letters wrong"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for cell in cells:
        one = found[cell.name]
        shown = [f"{whole:.1f} ({low:.1f}–{high:.1f})" for whole, low, high in (one["rates"][name] for name in SHOWN)]
        recall = f"{one['picks'][RANK]:.1f}" if "picks" in one else ""
        shown += [recall, f"{one['letters']:.1f}"]
        lines.append(f"| {' | '.join([cell.condition.title, cell.adapter, cell.way, *shown])} |")
    return lines


def plot(cells: Sequence[Cell], arms: Mapping, path: Path) -> None:
    """B-WER over the distance, a panel a sound and a line an arm; clean speech on the left.

    Args:
        arms: figures by condition and way, and by arm.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    way = cells[0].way
    shown = [cell for cell in cells if cell.way == way]
    rates_at = {
        (condition, arm): figures["B-WER"][:3]
        for (condition, its_way), here in arms.items()
        for arm, figures in here.items()
        if its_way == way
    }
    conditions = list(dict.fromkeys(cell.condition for cell in shown))
    sounds = list(dict.fromkeys(condition.kind for condition in conditions if condition.distance is not None))
    figure, axes = plt.subplots(
        1, max(1, len(sounds)), figsize=(3.6 * max(1, len(sounds)), 3.4), sharey=True, squeeze=False
    )
    for panel, kind in zip(axes[0], sounds, strict=False):
        here = [condition for condition in conditions if condition.kind in (kind, CLEAN.kind)]
        names = [CLEAN.kind if condition == CLEAN else str(condition.distance) for condition in here]
        for arm in arms_of(cell.adapter for cell in shown):
            # what was not measured interrupts a line
            points = np.array([rates_at.get((condition, arm), [np.nan] * 3) for condition in here])
            spread = np.abs(points[:, 1:] - points[:, :1]).T
            panel.errorbar(names, points[:, 0], yerr=spread, marker="o", capsize=2, label=arm)
        panel.set(title=kind, xlabel="dB")
    axes[0][0].set(ylabel="B-WER %", ylim=(0, None))  # of all panels, once all of them are drawn
    if axes[0][0].get_legend_handles_labels()[0]:
        axes[0][0].legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
