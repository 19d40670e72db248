"""The report of :mod:`ablation`: raw counts, a table in Markdown, and a plot."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from wer_definitions import DEFINITIONS, score
from wer_figures import FIGURES, fractions, resample
from wer_inputs import TestSet, Utterance

from sap2.model.pooling import pooled_length
from sap2.prompts import format_keywords
from sap2.records import atomic_write, read_rows

DRAWS = 2000
SHOWN = ("wer", "u_wer", "b_wer", "recall")
Counts = dict[str, Any]


def collect(output: Path, names: Sequence[str], slides: Sequence[int]) -> list[Counts]:
    """Numerators and denominators of every figure by arm, seed, number of slides and talk, of what was decoded."""
    found = []
    for name in names:
        for folder in sorted((output / "decoded").glob(f"{name}-s*")):
            for count in slides:
                # without a context there is one decoding; it is scored against each list
                decoded = next(
                    (p for p in (folder / f"{count}.jsonl", folder / f"{slides[0]}.jsonl") if p.exists()), None
                )
                if decoded is None or not decoded.with_suffix(".done").exists():
                    continue
                if decoded.stem != str(count) and not (folder / "rows.jsonl").exists():
                    continue
                test = output / "data" / f"test-{count}.jsonl"
                found.append(
                    {
                        "arm": name,
                        "seed": int(folder.name.rpartition("-s")[2]),
                        "slides": count,
                        "talks": _by_talk(test, decoded),
                    }
                )
    return found


def _by_talk(test: Path, decoded: Path) -> dict[str, list[list[float]]]:
    rows = {row["id"]: row for _, row in read_rows(test)}
    hyps = {row["id"]: row["response"] for _, row in read_rows(decoded)}
    missing = sorted(set(rows) - set(hyps))
    if missing:
        raise ValueError(f"{decoded} lacks {len(missing)} utterances, such as {missing[0]}")
    utterances = [Utterance(name, row["text"], list(row["keywords"])) for name, row in rows.items()]
    scores = score(TestSet(utterances, {"arm": hyps}), DEFINITIONS["slidespeech"])
    parts = fractions(scores.systems["arm"])
    talks: dict[str, list[int]] = {}
    for index, row in enumerate(rows.values()):
        talks.setdefault(row["session"], []).append(index)
    return {talk: parts[members].sum(0).tolist() for talk, members in talks.items()}


def summarise(counts: Sequence[Counts], seed: int = 0) -> dict[tuple[str, int], dict[str, tuple[float, float, float]]]:
    """Rate and 95 % interval (percent) of every figure by arm and slides: seeds pooled, talks drawn."""
    groups: dict[tuple[str, int], list[Counts]] = {}
    for entry in counts:
        groups.setdefault((entry["arm"], entry["slides"]), []).append(entry)
    summary = {}
    for key, entries in groups.items():
        talks = sorted(entries[0]["talks"])
        parts = np.array([[entry["talks"][talk] for talk in talks] for entry in entries]).sum(0)
        drawn = _rates(resample(parts, DRAWS, seed))
        low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
        summary[key] = dict(zip(FIGURES, zip(_rates(parts.sum(0)), low, high, strict=True), strict=True))
    return summary


def differences(
    counts: Sequence[Counts], base: str, other: str, slides: int, figure: str, seed: int = 0
) -> tuple[float, float, float] | None:
    """``other - base`` of a figure with its 95 % interval over talks (the same talks drawn for both), or None."""
    sides = []
    for arm in (base, other):
        entries = [entry for entry in counts if entry["arm"] == arm and entry["slides"] == slides]
        if not entries:
            return None
        talks = sorted(entries[0]["talks"])
        sides.append(np.array([[entry["talks"][talk] for talk in talks] for entry in entries]).sum(0))
    column = FIGURES.index(figure)
    parts = np.stack(sides, axis=1)[:, :, column]
    drawn = _rates(resample(parts, DRAWS, seed))
    low, high = np.nanpercentile(drawn[:, 1] - drawn[:, 0], [2.5, 97.5])
    whole = _rates(parts.sum(0))
    return float(whole[1] - whole[0]), float(low), float(high)


def _rates(parts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * parts[..., 0] / parts[..., 1]


def context_positions(output: Path, model: str, slides: Sequence[int]) -> dict[int, list[int]]:
    """Context tokens of each test utterance by the number of slides."""
    from transformers import AutoTokenizer

    from sap2.model.context import tokenize_context

    tokenizer = AutoTokenizer.from_pretrained(model)
    return {
        count: [
            len(tokenize_context(tokenizer, format_keywords(row["keywords"])).ids)
            for _, row in read_rows(output / "data" / f"test-{count}.jsonl")
        ]
        for count in slides
    }


def write_report(output: Path, arms: Mapping[str, Any], slides: Sequence[int], model: str) -> None:
    """Write counts.json, table.md and plot.png of what was decoded so far."""
    counts = collect(output, list(arms), slides)
    if not counts:
        raise ValueError(f"{output} holds nothing decoded yet")
    with atomic_write(output / "counts.json") as stream:
        json.dump({"figures": list(FIGURES), "results": counts}, stream)
    summary = summarise(counts)
    tokens = context_positions(output, model, slides)
    text = table(summary, counts, arms, slides, tokens, _speeds(output, arms))
    with atomic_write(output / "table.md") as stream:
        stream.write(text)
    print(text)
    plot(summary, arms, slides, output / "plot.png")


def _speeds(output: Path, arms: Mapping[str, Any]) -> dict[str, str]:
    """Seconds a training step and a decoded utterance, of each arm that was trained."""
    found = {}
    for name, arm in arms.items():
        steps = [
            json.loads(path.read_text(encoding="utf-8"))["seconds_per_step"]
            for path in (output / "models").glob(f"{arm.pooling}-{arm.window}-{arm.tasks[-1]}-s*/done.json")
        ]
        rows = [
            sum(row["seconds"].values())
            for path in (output / "decoded").glob(f"{name}-s*/*.jsonl")
            if path.stem in {"5", "1"} and path.with_suffix(".done").exists()
            for _, row in read_rows(path)
        ]
        if steps and rows:
            found[name] = f"{np.mean(steps):.2f} | {np.mean(rows):.3f}"
    return found


def table(summary, counts, arms, slides, tokens, speeds) -> str:
    """The table in Markdown, one block for each number of slides."""
    lines = []
    for count in slides:
        lines += [f"### Lists of {count} slide{'s' if count > 1 else ''}", ""]
        lines.append("| arm | seeds | context positions | WER | U-WER | B-WER | recall | s/step | s/utterance |")
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for name, arm in arms.items():
            if (name, count) not in summary:
                continue
            seeds = len({entry["seed"] for entry in counts if entry["arm"] == name and entry["slides"] == count})
            positions = np.mean([pooled_length(n, arm.window) for n in tokens[count]]) if arm.context else 0
            cells = [_cell(summary[name, count][figure]) for figure in SHOWN]
            lines.append(f"| {name} | {seeds} | {positions:.0f} | {' | '.join(cells)} | {speeds.get(name, ' | ')} |")
        lines.append("")
    return "\n".join(lines)


def _cell(rate: tuple[float, float, float]) -> str:
    return f"{rate[0]:.1f} ({rate[1]:.1f}–{rate[2]:.1f})"


def plot(summary, arms, slides, path: Path) -> None:
    """B-WER over the number of slides, one line an arm, with intervals."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, name in enumerate(arms):
        known = [count for count in slides if (name, count) in summary]
        if not known:
            continue
        rates = np.array([summary[name, count]["b_wer"] for count in known])
        places = np.arange(len(known)) + 0.02 * number
        errors = np.abs(rates[:, 1:].T - rates[:, 0])
        axes.errorbar(places, rates[:, 0], errors, label=name, capsize=2, marker="o", markersize=3, linewidth=1)
    axes.set_xticks(range(len(slides)), [str(count) for count in slides])
    axes.set_xlabel("slides in the list")
    axes.set_ylabel("B-WER, %")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)
