"""The report of :mod:`noise`: rates, recall and the spotter's errors by condition and adapter, a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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


def spelled_errors(model: str, adapter: str, rows: Sequence[Row], batch_size: int) -> float:
    """Letters of 100 that the spotter gets wrong: Levenshtein distance of its best path to the transcripts."""
    import torch
    from rapidfuzz.distance import Levenshtein

    from sap2.audio import load_samples
    from sap2.pipeline.asking import Hearing
    from sap2.pipeline.loading import LoadedModel
    from sap2.pipeline.prompting import Encoder
    from sap2.pruning.matching import greedy_text

    loaded = LoadedModel(model, {"asr": adapter})
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    wrong = letters = 0
    with torch.inference_mode():
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            heard = [encoder.hear(load_samples(row["audio"], encoder.sampling_rate), row["id"]) for row in batch]
            log_probs, mask = Hearing(loaded, heard).letters("asr")
            for probs, valid, row in zip(log_probs, mask, batch, strict=True):
                wrong += Levenshtein.distance(greedy_text(probs[valid]).strip(), row["text"])
                letters += len(row["text"])
    return 100 * wrong / max(1, letters)


def figures(output: Path, cell: Cell, rows: Sequence[Row]) -> dict[str, Any]:
    """Rates of a cell with their intervals, and what the spotter picked."""
    results = {row["id"]: row for _, row in read_rows(output / f"result.{cell.name}.jsonl")}
    found: dict[str, Any] = {"rates": rates(results, rows)}
    if cell.way != "whole":
        found["picks"] = picks(list(results.values()), {row["id"]: row["keywords"] for row in rows})
    return found


def write_report(output: Path, cells: Sequence[Cell], rows: Sequence[Row]) -> None:
    """Write OUTPUT/figures.json, table.md and plot.png."""
    found = {cell.name: figures(output, cell, rows) for cell in cells}
    for adapter in dict.fromkeys(cell.adapter for cell in cells):
        spelled = json.loads((output / f"spelled.{adapter}.json").read_text(encoding="utf-8"))
        for cell in cells:
            if cell.adapter == adapter:
                found[cell.name]["letters"] = spelled[cell.condition.name]
    with atomic_write(output / "figures.json") as stream:
        json.dump({"utterances": len(rows), "cells": found}, stream, indent=1)
        stream.write("\n")
    with atomic_write(output / "table.md") as stream:
        stream.write("\n".join(table(cells, found)) + "\n")
    plot(cells, found, output / "plot.png")


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


def plot(cells: Sequence[Cell], found: Mapping[str, dict], path: Path) -> None:
    """B-WER over the distance, a panel a sound and a line an adapter; clean speech on the left."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    way = cells[0].way
    shown = [cell for cell in cells if cell.way == way]
    rates_at = {(cell.condition, cell.adapter): found[cell.name]["rates"]["b_wer"] for cell in shown}
    conditions = list(dict.fromkeys(cell.condition for cell in shown))
    sounds = list(dict.fromkeys(condition.kind for condition in conditions if condition.distance is not None))
    figure, axes = plt.subplots(
        1, max(1, len(sounds)), figsize=(3.6 * max(1, len(sounds)), 3.4), sharey=True, squeeze=False
    )
    for panel, kind in zip(axes[0], sounds, strict=False):
        here = [condition for condition in conditions if condition.kind in (kind, CLEAN.kind)]
        names = [CLEAN.kind if condition == CLEAN else str(condition.distance) for condition in here]
        for adapter in dict.fromkeys(cell.adapter for cell in shown):
            # what was not measured interrupts a line
            points = np.array([rates_at.get((condition, adapter), [np.nan] * 3) for condition in here])
            spread = np.abs(points[:, 1:] - points[:, :1]).T
            panel.errorbar(names, points[:, 0], yerr=spread, marker="o", capsize=2, label=adapter)
        panel.set(title=kind, xlabel="dB")
    axes[0][0].set(ylabel="B-WER %", ylim=(0, None))  # of all panels, once all of them are drawn
    axes[0][0].legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
