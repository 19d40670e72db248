"""What the spotter put right in results of ``sap2 pipeline --pruner spot``, and what it is worth.

    python eval/corrections.py clean.jsonl noise-10.jsonl babble-10.jsonl

For each file: names that are said and that the model's own reply lacks, how many of these stage one was sure of
(``sap2.pruning.SURE``); how many keywords were put right, how many of these are said, in how many
utterances more words are right or fewer; the names that are lacking in the end; and their share relative to the first
file's, with its 95 % interval over talks (bootstrap). Names are the words of the row's own list, the
transcripts are ``labels``.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import numpy as np
from rapidfuzz.distance import Levenshtein

from sap2.commands.shared import Parser, run_parser
from sap2.errors import InputError
from sap2.prompts import ASR
from sap2.pruning import SURE
from sap2.rowfiles import read_rows

DRAWS = 10_000


class Counts(NamedTuple):
    """Of one file: names that the reply lacks, those of them that stage one was sure of, corrections, right ones,
    utterances with more and with fewer words right, and by talk the names that are said and lack in the end."""

    utterances: int
    lacking: int
    sure: int
    corrections: int
    right: int
    better: int
    worse: int
    said: Counter[str]
    left: Counter[str]


def count(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Add up the results of one file.

    Raises:
        InputError: a row has no reply of stage two, or no transcript.
    """
    sums: Counter[str] = Counter()
    said, left = Counter[str](), Counter[str]()
    for row in rows:
        if ASR not in row.get("replies", {}) or row.get("labels") is None:
            raise InputError(f"{row.get('id')}: no reply of stage two, or no labels; allowed: results of sap2 pipeline")
        probabilities = {word: p for name, p in row["keyword_probabilities"].items() for word in name.lower().split()}
        names = {word for keyword in row["keywords"] for word in keyword.lower().split()}
        labels, before, after = (text.lower().split() for text in (row["labels"], row["replies"][ASR], row["response"]))
        spoken = [word for word in labels if word in names]
        talk = str(row.get("session"))
        said[talk] += len(spoken)
        left[talk] += sum(word not in after for word in spoken)
        sums["lacking"] += sum(word not in before for word in spoken)
        sums["sure"] += sum(word not in before and probabilities.get(word, 0.0) >= SURE for word in spoken)
        corrected = [one["keyword"].lower().split() for one in row.get("corrections", ())]
        sums["corrections"] += len(corrected)
        sums["right"] += sum(set(words) <= set(labels) for words in corrected)
        gain = Levenshtein.distance(before, labels) - Levenshtein.distance(after, labels)
        sums["better"] += gain > 0
        sums["worse"] += gain < 0
    figures = {name: sums[name] for name in ("lacking", "sure", "corrections", "right", "better", "worse")}
    return Counts(len(rows), **figures, said=said, left=left)


def relative(counts: Counts, to: Counts, seed: int = 0) -> tuple[float, float, float] | None:
    """The share of names that are lacking, relative to that of other results of the same talks, with its interval; None
    where it is not known: no name is said, or in some draws of talks none is lacking."""
    talks = sorted(to.said)
    ours, theirs = (np.array([[c.left[talk], c.said[talk]] for talk in talks], dtype=float) for c in (counts, to))
    drawn = np.random.default_rng(seed).integers(0, len(talks), (DRAWS, len(talks)))
    one, other = ours[drawn].sum(1), theirs[drawn].sum(1)
    if not (one[:, 1].all() and other.all()):
        return None
    low, high = np.quantile(one[:, 0] / one[:, 1] / (other[:, 0] / other[:, 1]), [0.025, 0.975])
    (left, said), (other_left, other_said) = ours.sum(0), theirs.sum(0)
    return float(left / said / (other_left / other_said)), float(low), float(high)


def run(args: argparse.Namespace) -> None:
    """Print a line for each file."""
    head = ("utterances", "names", "lacking", "sure", "put right", "said", "better", "worse", "left", "of the first")
    counts = [count([row for _, row in read_rows(path)]) for path in args.results]
    wide = max(len(Path(path).name) for path in args.results)
    print(" " * wide, *(f"{name:>12}" for name in head))
    for path, one in zip(args.results, counts, strict=True):
        ratio = relative(one, counts[0])
        figures = (one.utterances, one.said.total(), *one[1:7], one.left.total())
        shown = "-" if ratio is None else "{:.2f} ({:.2f}–{:.2f})".format(*ratio)
        print(f"{Path(path).name:{wide}}", *(f"{figure:12}" for figure in figures), f"{shown:>20}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser(prog="python eval/corrections.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "results", nargs="+", metavar="RESULT", help="results of sap2 pipeline; the first is compared with"
    )
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
