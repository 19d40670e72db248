"""The report of :mod:`explain`: tables and a plot of what was measured of each utterance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from explain_measures import FRACTIONS, died, interval, spearman, whole_of_halves

from sap2.files import atomic_write
from sap2.rowfiles import read_rows

Measured = dict[str, Any]
"""One utterance, or one of its words."""
Figure = Callable[[Measured], float | None]
SURE = 0.5
"""Least probability of a word in the test of deletion: one that is not there cannot die."""
NAMES = {
    "attention": "attention, all layers and heads",
    "gradients": "integrated gradients",
    "spotter": "where the spotter hears the word",
    "pooling": "attention of the paper's pooling (keywords only)",
    "silenced": "silenced regions (the saliency above)",
    "random": "random",
}


def write_report(output: Path) -> str:
    """Write OUTPUT/table.md and plot.png; returns the tables."""
    utterances = [row for _, row in read_rows(output / "figures.jsonl")]
    heads = best_heads(utterances)
    parts = [_about(utterances), *correlations(utterances, heads), "", *deaths(utterances), "", *lists(utterances)]
    text = "\n".join(parts) + "\n"
    with atomic_write(output / "table.md") as stream:
        stream.write(text)
    plot(utterances, output / "plot.png")
    return text


def _about(utterances: Sequence[Measured]) -> str:
    words = [word for one in utterances for word in one["words"]]
    talks, names = {one["session"] for one in utterances}, sum(word["keyword"] is not None for word in words)
    return f"{len(utterances)} utterances of {len(talks)} talks, {len(words)} words, {names} of them of the list\n"


def over_talks(utterances: Sequence[Measured], values: Callable[[Measured], Iterable[float | None]]) -> str:
    """Mean and 95 % interval over talks of what each utterance gives; empty where none gives anything."""
    by_talk: dict[str, list[float]] = {}
    for one in utterances:
        by_talk.setdefault(one["session"], []).extend(value for value in values(one) if value is not None)
    by_talk = {talk: found for talk, found in by_talk.items() if found}
    if not by_talk:
        return ""
    mean, low, high = interval(by_talk)
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"


def of_words(figure: Figure, keep: Figure = lambda word: True) -> Callable[[Measured], Iterator[float | None]]:
    """That figure of each word of an utterance that is to be kept."""
    return lambda one: (figure(word) for word in one["words"] if keep(word))


def best_heads(utterances: Sequence[Measured]) -> dict[str, tuple[int, int]]:
    """For each talk, the head that correlates best with saliency in all other talks: it is not chosen by what it is
    judged by."""
    table: dict[str, list[np.ndarray]] = {}
    for one in utterances:
        rows = [np.array(word["heads"], dtype=float) for word in one["words"]]
        table.setdefault(one["session"], []).extend(rows)
    chosen = {}
    for talk in table:
        others = np.nanmean([row for other, rows in table.items() if other != talk for row in rows], axis=0)
        layer, head = np.unravel_index(np.nanargmax(others), others.shape)
        chosen[talk] = (int(layer), int(head))
    return chosen


def correlations(utterances: Sequence[Measured], heads: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Lines of the table of correlations and covered saliency."""
    head = ("map of a word over the audio", "Pearson", "Spearman", "covered", "Pearson, names", "Pearson, other words")
    yield f"| {' | '.join(head)} |"
    yield "|---|---|---|---|---|---|"
    first = next(one for one in utterances if one["words"])["words"][0]
    layers = [name for name in first["pearson"] if name.startswith("layer")]
    for name in ("attention", *layers, "gradients", "spotter", "pooling"):
        columns = [over_talks(utterances, of_words(_figure(kind, name))) for kind in ("pearson", "spearman", "covered")]
        columns += [over_talks(utterances, of_words(_figure("pearson", name), keep)) for keep in (_is_name, _is_other)]
        yield f"| {NAMES.get(name, f'attention, {name}')} | {' | '.join(columns)} |"
    best = over_talks(utterances, lambda one: _of_head(one, heads[one["session"]]))
    yield f"| attention, the best head of the other talks | {best} | | | | |"
    yield f"| the saliency itself, half of the masks against the other | {_reliability(utterances)} | | | | |"
    yield ""
    yield "| attention, all layers and heads, against silenced regions | |"
    yield "|---|---|"
    yield f"| by token (a letter), Pearson | {over_talks(utterances, lambda one: one.get('tokens', []))} |"
    yield f"| by token, Spearman | {over_talks(utterances, lambda one: one.get('tokens spearman', []))} |"
    flat = over_talks(utterances, lambda one: [one.get("flat")])
    yield f"| map of all tokens of an utterance, flattened, Pearson | {flat} |"
    gradients = over_talks(utterances, of_words(lambda word: word["with gradients"]))
    yield f"| against integrated gradients, by word, Pearson | {gradients} |"


def _figure(kind: str, name: str) -> Figure:
    return lambda word: word[kind].get(name)


def _is_name(word: Measured) -> bool:
    return word["keyword"] is not None


def _is_other(word: Measured) -> bool:
    return word["keyword"] is None


def _of_head(one: Measured, head: tuple[int, int]) -> Iterator[float | None]:
    return (word["heads"][head[0]][head[1]] for word in one["words"])


def _reliability(utterances: Sequence[Measured]) -> str:
    halves = over_talks(utterances, of_words(lambda word: word["reliability"]))
    mean = whole_of_halves(float(halves.split()[0])) if halves else None
    return halves if mean is None else f"{halves}; all masks {mean:.2f}"


def deaths(utterances: Sequence[Measured]) -> Iterator[str]:
    """Lines of the table of the deletion test."""
    shares = " | ".join(f"{100 * fraction:g} % gone" for fraction in FRACTIONS)
    yield f"| what is silenced first | lost % | lost %, names | {shares} |"
    yield "|---|---|---|" + "---|" * len(FRACTIONS)
    for name in ("silenced", "gradients", "attention", "spotter", "pooling", "random"):
        cells = [
            over_talks(utterances, of_words(*_lost(name, False))),
            over_talks(utterances, of_words(*_lost(name, True))),
        ]
        for index in range(len(FRACTIONS)):
            left = [
                100 * word["died"][name][index] / word["full"]
                for one in utterances
                for word in one["words"]
                if name in word["died"] and word["full"] >= SURE
            ]
            cells.append(f"{np.mean(left):.0f} %" if left else "")
        yield f"| {NAMES[name]} | {' | '.join(cells)} |"


def _lost(name: str, names_only: bool) -> tuple[Figure, Callable[[Measured], bool]]:
    def keep(word: Measured) -> bool:
        return name in word["died"] and word["full"] >= SURE and (not names_only or word["keyword"] is not None)

    return lambda word: died(word["died"][name], word["full"]), keep


def lists(utterances: Sequence[Measured]) -> Iterator[str]:
    """Lines on attention to a keyword beside what the word loses without it."""
    pairs = [pair for one in utterances for pair in one.get("lists", {"pairs": []})["pairs"]]
    if not pairs:
        return
    own, looked, effect = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    yield "| attention to a keyword, and what the word loses without it | |"
    yield "|---|---|"
    yield f"| pairs of a word and a keyword that was told; of those, the word itself | {len(pairs)}; {int(own.sum())} |"
    yield f"| Spearman over all pairs | {_or_none(spearman(looked, effect))} |"
    for title, chosen in (("the keyword is the word", own == 1), ("it is not", own == 0)):
        if chosen.any():
            added = f"{effect[chosen].mean():.2f} ({np.median(effect[chosen]):.2f}) nats"
            yield f"| {title}: attention to the keyword, mean | {100 * looked[chosen].mean():.1f} % |"
            yield f"| {title}: log probability that the keyword adds, mean (median) | {added} |"
            yield f"| {title}: Spearman of the two | {_or_none(spearman(looked[chosen], effect[chosen]))} |"
    strong = effect > np.log(2)
    if strong.any() and not strong.all():
        order = np.argsort(np.argsort(looked))
        area = (order[strong].mean() - (strong.sum() - 1) / 2) / (~strong).sum()
        yield f"| pairs where the keyword doubles the word's probability | {int(strong.sum())} |"
        yield f"| attention tells such a pair from any other (area under ROC) | {100 * area:.0f} % |"


def _or_none(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def plot(utterances: Sequence[Measured], path: Path) -> None:
    """Correlation by layer and head, and what is left of a word over the share that is silenced."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    words = [word for one in utterances for word in one["words"]]
    table = np.nanmean([np.array(word["heads"], dtype=float) for word in words], axis=0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1, 1.5), layout="constrained")
    shown = left.imshow(table, cmap="viridis")
    left.set(xlabel="head", ylabel="layer", title="Pearson of attention with saliency")
    left.set_xticks(range(table.shape[1]), range(1, table.shape[1] + 1))
    left.set_yticks(range(table.shape[0]), range(1, table.shape[0] + 1))
    for layer, head in np.ndindex(*table.shape):
        left.text(head, layer, f"{table[layer, head]:.2f}", ha="center", va="center", color="white", fontsize=8)
    figure.colorbar(shown, ax=left, fraction=0.046)
    for name in ("random", "spotter", "attention", "gradients", "silenced"):
        sure = [np.array(word["died"][name]) / word["full"] for word in words if _lost(name, False)[1](word)]
        if not sure:
            continue
        curve = 100 * np.array([1, *np.clip(sure, None, 1).mean(0)])
        right.plot([0, *(100 * fraction for fraction in FRACTIONS)], curve, marker="o", label=NAMES[name])
    right.set(xlabel="% of the audio silenced", ylabel="% of the word's probability left", ylim=(0, 103))
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
