"""The report of :mod:`ablation`: raw counts, a table in Markdown, and a plot."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from ablation_arms import Arm, model_name

from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.lengths import pooled_length
from sap2.prompts import format_keywords
from sap2.rowfiles import read_rows
from sap2.scoring.definitions import DEFINITIONS, score
from sap2.scoring.figures import FIGURES, fractions, resample
from sap2.scoring.inputs import TestSet, Utterance

DRAWS = 2000
SHOWN = ("wer", "u_wer", "b_wer", "recall")
COLUMNS = (
    *("arm", "seeds", "context positions", "WER", "U-WER", "B-WER", "B-WER less that of mean", "recall"),
    *("s/step", "s/utterance"),
)
Counts = dict[str, Any]
"""What counts.json holds: the names of the figures, the arms (positions and speeds), and results."""


def write_counts(output: Path, arms: Mapping[str, Arm], slides: Sequence[int], model: str) -> Counts:
    """Count what was decoded so far: numerators and denominators of every figure by arm, seed, list and talk.

    Returns:
        What is written to OUTPUT/counts.json.

    Raises:
        InputError: nothing was decoded yet, or an utterance is missing.
    """
    results, known = [], {}
    for name, arm in arms.items():
        replies = dict(_decoded(output, name))
        if not replies:
            continue
        for seed, path in replies.items():
            decoded = {row["id"]: row["response"] for _, row in read_rows(path)}
            for count in slides:
                talks = _by_talk(_test_rows(output, count), decoded, path, f"@{count if arm.context else slides[0]}")
                results.append({"arm": name, "seed": seed, "slides": count, "talks": talks})
        known[name] = {"baseline": arm.baseline, **_speeds(output, arm, slides, list(replies.values()))}
    if not results:
        raise InputError(f"{output} holds nothing decoded yet")
    tokens = context_tokens(output, model, slides)
    for name, entry in known.items():
        arm = arms[name]
        entry["positions"] = {
            count: float(np.mean([pooled_length(n, arm.window, arm.min_positions) for n in tokens[count]]))
            if arm.context
            else 0.0
            for count in slides
        }
    counts = {"figures": list(FIGURES), "arms": known, "results": results}
    with atomic_write(output / "counts.json") as stream:
        json.dump(counts, stream)
    return read_counts(output / "counts.json")


def read_counts(path: Path) -> Counts:
    """What :func:`write_counts` wrote.

    Raises:
        InputError: it is not such a file, or of other figures.
    """
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
        figures = counts["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no counts of an ablation: {error!r}") from None
    if figures != list(FIGURES):
        raise InputError(f"{path} has the figures {figures}; allowed: {list(FIGURES)}")
    return counts


def _decoded(output: Path, arm: str) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(arm) + r"-s(\d+)\.done")
    found = [(match, path) for path in (output / "decoded").glob("*.done") if (match := pattern.fullmatch(path.name))]
    return sorted((int(match[1]), path.with_suffix(".jsonl")) for match, path in found)


def _test_rows(output: Path, slides: int) -> list[dict]:
    ending = f"@{slides}"
    return [row for _, row in read_rows(output / "data" / "test.jsonl") if row["id"].endswith(ending)]


def _by_talk(rows: list[dict], replies: Mapping[str, str], path: Path, ending: str) -> dict[str, list[list[float]]]:
    hyps = {row["id"]: replies.get(row["id"].rpartition("@")[0] + ending) for row in rows}
    missing = sorted(name for name, reply in hyps.items() if reply is None)
    if missing:
        raise InputError(f"{path} lacks {len(missing)} utterances, such as {missing[0]}")
    utterances = [Utterance(row["id"], row["text"], list(row["keywords"])) for row in rows]
    scores = score(TestSet(utterances, {"arm": hyps}), DEFINITIONS["slidespeech"])
    parts = fractions(scores.systems["arm"])
    talks: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        talks.setdefault(row["session"], []).append(index)
    return {talk: parts[members].sum(0).astype(int).tolist() for talk, members in talks.items()}


def _speeds(output: Path, arm: Arm, slides: Sequence[int], decoded: Sequence[Path]) -> dict[str, Any]:
    """Seconds of a training step (of the last task) and of an utterance with each list, both stages together.

    Of the fastest seed: what else the machine did only adds to them.
    """
    seeds = [int(path.stem.rpartition("-s")[2]) for path in decoded]
    trained = [output / "models" / model_name(arm, arm.tasks[-1], seed) / "done.json" for seed in seeds]
    steps = [json.loads(path.read_text(encoding="utf-8"))["seconds_per_step"] for path in trained]
    lists = {count: str(count) if arm.context else str(slides[0]) for count in slides}
    utterances = [
        {
            count: _mean_seconds(path, name) + _mean_seconds(path.with_suffix(".prune.jsonl"), name)
            for count, name in lists.items()
        }
        for path in decoded
    ]
    fastest = {count: min(seconds[count] for seconds in utterances) for count in slides}
    return {"seconds_per_step": min(steps), "seconds_per_utterance": fastest}


def _mean_seconds(path: Path, ending: str) -> float:
    if not path.exists():
        return 0.0
    rows = [row for _, row in read_rows(path) if row["id"].endswith(f"@{ending}")]
    return float(np.mean([sum(row["seconds"].values()) for row in rows]))


def context_tokens(output: Path, model: str, slides: Sequence[int]) -> dict[int, list[int]]:
    """Context tokens of each test utterance by the number of slides."""
    from transformers import AutoTokenizer

    from sap2.model.context import tokenize_context

    tokenizer = AutoTokenizer.from_pretrained(model)
    return {
        count: [
            len(tokenize_context(tokenizer, format_keywords(row["keywords"])).ids) for row in _test_rows(output, count)
        ]
        for count in slides
    }


def summarise(counts: Counts, seed: int = 0) -> dict[tuple[str, int], dict[str, tuple[float, float, float]]]:
    """Rate and 95 % interval (percent) of the figures shown, by arm and slides: seeds pooled, talks drawn."""
    summary = {}
    for name, slides in dict.fromkeys((entry["arm"], entry["slides"]) for entry in counts["results"]):
        parts = _pooled(counts, name, slides)[:, [FIGURES.index(figure) for figure in SHOWN]]
        low, high = np.nanpercentile(_rates(resample(parts, DRAWS, seed)), [2.5, 97.5], axis=0)
        summary[name, slides] = dict(zip(SHOWN, zip(_rates(parts.sum(0)), low, high, strict=True), strict=True))
    return summary


def difference(
    counts: Counts, base: str, other: str, slides: int, figure: str, seed: int = 0
) -> tuple[float, float, float] | None:
    """``other - base`` of a figure with its 95 % interval over talks (the same talks drawn for both).

    Of the seeds that both have; None where there is none.
    """
    seeds = [
        {entry["seed"] for entry in counts["results"] if entry["arm"] == arm and entry["slides"] == slides}
        for arm in (base, other)
    ]
    common = seeds[0] & seeds[1]
    if not common:
        return None
    column = FIGURES.index(figure)
    parts = np.stack([_pooled(counts, arm, slides, common)[:, column] for arm in (base, other)], axis=1)
    drawn = _rates(resample(parts, DRAWS, seed))
    low, high = np.nanpercentile(drawn[:, 1] - drawn[:, 0], [2.5, 97.5])
    whole = _rates(parts.sum(0))
    return float(whole[1] - whole[0]), float(low), float(high)


def _pooled(counts: Counts, arm: str, slides: int, seeds: set[int] | None = None) -> np.ndarray:
    """Numerators and denominators, (talks, figures, 2), summed over the seeds."""
    entries = [
        entry
        for entry in counts["results"]
        if entry["arm"] == arm and entry["slides"] == slides and (seeds is None or entry["seed"] in seeds)
    ]
    talks = sorted(entries[0]["talks"])
    return np.array([[entry["talks"][talk] for talk in talks] for entry in entries]).sum(0)


def _rates(parts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * parts[..., 0] / parts[..., 1]


def write_report(counts: Counts, output: Path) -> None:
    """Print the table, and write OUTPUT/table.md and plot.png."""
    summary = summarise(counts)
    text = table(counts, summary)
    with atomic_write(output / "table.md") as stream:
        stream.write(text)
    print(text)
    plot(counts, summary, output / "plot.png")


def table(counts: Counts, summary: Mapping[tuple[str, int], dict[str, tuple[float, float, float]]]) -> str:
    """The table in Markdown, one block for each number of slides."""
    lines = []
    for count in dict.fromkeys(entry["slides"] for entry in counts["results"]):
        lines += [f"### Lists of {count} slide{'s' if count > 1 else ''}", ""]
        lines.append(f"| {' | '.join(COLUMNS)} |")
        lines.append("|---" * len(COLUMNS) + "|")
        for name, arm in counts["arms"].items():
            seeds = len({entry["seed"] for entry in counts["results"] if entry["arm"] == name})
            gain = difference(counts, arm["baseline"], name, count, "b_wer") if arm["baseline"] else None
            wer, u_wer, b_wer, recall = (_cell(summary[name, count][figure]) for figure in SHOWN)
            cells = [name, seeds, f"{arm['positions'][str(count)]:.0f}", wer, u_wer, b_wer]
            cells += [_cell(gain, "+") if gain else "", recall, f"{arm['seconds_per_step']:.2f}"]
            cells.append(f"{arm['seconds_per_utterance'][str(count)]:.3f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    return "\n".join(lines)


def _cell(rate: tuple[float, float, float], sign: str = "") -> str:
    whole, low, high = (f"{number:{sign}.1f}" for number in rate)
    return f"{whole} ({low} to {high})"


_COMMON = {"none": "no list", "w1": "uncompressed"}
"""Arms that every window is compared with, in the words of the text."""


def families(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The panels of the plot: for each, its arms and what they are called there."""
    windows = sorted({int(match[1]) for name in names if (match := re.fullmatch(r".+-(\d+)", name))})
    common = {name: label for name, label in _COMMON.items() if name in names}
    panels = {
        f"w = {window}": common | {name: name.rpartition("-")[0] for name in names if name.endswith(f"-{window}")}
        for window in windows
    }
    ways = [name for name in names if name not in common and not re.fullmatch(r".+-\d+", name)]
    return panels | ({"ways to decode": {name: name for name in ways}} if ways else {})


def plot(counts: Counts, summary: Mapping[tuple[str, int], dict], path: Path) -> None:
    """B-WER over the number of slides: a panel for each family of arms, the names at the lines, with intervals."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    slides = list(dict.fromkeys(entry["slides"] for entry in counts["results"]))
    panels = families(list(counts["arms"]))
    columns = min(2, len(panels))
    shape = (-(-len(panels) // columns), columns)
    figure, grid = plt.subplots(*shape, figsize=(11, 3.6 * shape[0]), sharey=True, squeeze=False, layout="constrained")
    for axes, (title, arms) in zip(grid.flat, panels.items(), strict=False):
        for number, name in enumerate(arms):
            rates = np.array([summary[name, count]["b_wer"] for count in slides])
            places = np.arange(len(slides)) + 0.03 * number
            axes.errorbar(
                places, rates[:, 0], np.abs(rates[:, 1:].T - rates[:, 0]), capsize=2, marker="o", markersize=3
            )
        _label_lines(
            axes, [(summary[name, slides[-1]]["b_wer"][0], label) for name, label in arms.items()], len(slides)
        )
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xticks(range(len(slides)), [str(count) for count in slides])
        axes.set_xlim(-0.2, len(slides) + 0.3)
        axes.set(xlabel="slides in the list", ylabel="B-WER, %", ylim=(0, 112))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _label_lines(axes: Any, ends: Sequence[tuple[float, str]], count: int) -> None:
    """Write each name behind the end of its line, as far apart as the letters need."""
    top = max(80.0, max(end for end, _ in ends))
    place = -top
    for number, (end, label) in sorted(enumerate(ends), key=lambda item: item[1][0]):
        place = max(end, place + 0.055 * top)
        axes.text(count - 0.75, place, label, color=f"C{number}", va="center", fontsize=8)
