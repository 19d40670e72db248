"""How true the probabilities of words are, and how well they find the wrong ones, on synthetic talks.

    python eval/confidence.py talks --split test --plot docs/images/confidence.png

Three probabilities are compared: that of the language model for the word's tokens, how well the spotter hears the
word's letters (with weights that are fitted to the same words, so that it has the best chance), and both together, as
they are given with each word. ``ECE`` is the expected calibration error; ``AUC`` the chance that a wrong word is less
sure than a right one; ``PR`` the area under precision and recall of the wrong words, which a guess brings to the share
of wrong words. Intervals (95 %) are over talks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import numpy as np
from word_truth import SEGMENT_SECONDS, Talk, interval, match_words, read_talks

from sap2 import Transcriber, Transcript
from sap2.commands.shared import Parser, run_parser
from sap2.progress import progress
from sap2.pruning.calibration import calibration_error, fit_logistic, reliability

KINDS = ("language model", "spotter", "given")


def look(transcriber: Transcriber, talk: Talk) -> np.ndarray:
    """For each word of a talk: the three of :data:`KINDS` (the second in nats), and 1 where it is right; (words, 4)."""
    decoded = transcriber.decode(talk.request, word_timestamps=True)
    transcript = Transcript.from_segments("", [one.segment for one in decoded], 0.0)
    evidence = [found for one in decoded for found in one.outcome.evidence]
    return np.array(
        [
            (np.exp(found.log_prob), found.heard, match.word.probability, match.said is not None)
            for match, found in zip(match_words(transcript, talk.words), evidence, strict=True)
            if found is not None
        ]
    )


def ece(words: np.ndarray) -> float:
    """Expected calibration error in points, of (words, 2): probability, and 1 where right."""
    return 100 * calibration_error(reliability(words[:, 0], words[:, 1] > 0))


def auc(words: np.ndarray) -> float:
    """The chance, in percent, that a wrong word is less sure than a right one; ties count half."""
    wrong, right = np.sort(words[words[:, 1] == 0, 0]), words[words[:, 1] == 1, 0]
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(100 * below.mean() / 2 / len(wrong)) if len(wrong) and len(right) else float("nan")


def precision_recall(words: np.ndarray) -> float:
    """Average precision of the wrong words in percent, the least sure word first."""
    wrong = words[np.argsort(words[:, 0], kind="stable"), 1] == 0
    precision = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    return float(100 * precision[wrong].mean()) if wrong.any() else float("nan")


MEASURES: dict[str, Callable[[np.ndarray], float]] = {"ECE": ece, "AUC": auc, "PR": precision_recall}


def by_kind(talks: Sequence[np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """For each of :data:`KINDS`, the (words, 2) of each talk: probability, and 1 where right."""
    together = np.concatenate(talks)
    inputs = np.column_stack([np.ones(len(together)), together[:, 1]])
    constant, weight = fit_logistic(inputs, together[:, 3] > 0, np.ones(len(together)))
    for column, kind in enumerate(KINDS):
        values = [talk[:, column] for talk in talks]
        if kind == "spotter":
            values = [1 / (1 + np.exp(-constant - weight * heard)) for heard in values]
        yield kind, [np.column_stack([one, talk[:, 3]]) for one, talk in zip(values, talks, strict=True)]


def table(talks: Sequence[np.ndarray]) -> Iterator[str]:
    """The lines of the report."""
    yield f"{'':16}" + "".join(f"{name:>24}" for name in MEASURES)
    for kind, words in by_kind(talks):
        cells = []
        for measure in MEASURES.values():
            low, high = interval(words, measure)
            cells.append(f"{measure(np.concatenate(words)):.1f} ({low:.1f} to {high:.1f})")
        yield f"{kind:16}" + "".join(f"{cell:>24}" for cell in cells)
    yield "given, in tenths:    said   right   words"
    given = np.concatenate(talks)
    for one in reliability(given[:, 2], given[:, 3] > 0):
        yield f"{'':17}{one.mean:8.3f} {one.share:7.3f} {one.terms:7d}"


def plot(talks: Sequence[np.ndarray], path: Path) -> None:
    """Probability against the share of right words; the size of a point is that of its bin."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(4 * len(KINDS), 4), sharey=True)
    for axis, (kind, words) in zip(axes, by_kind(talks), strict=True):
        together = np.concatenate(words)
        bins = reliability(together[:, 0], together[:, 1] > 0)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        sizes = [20 + 180 * (one.terms / len(together)) ** 0.5 for one in bins]
        axis.scatter([one.mean for one in bins], [one.share for one in bins], s=sizes)
        axis.set(xlabel="probability", title=f"{kind}: ECE {ece(together):.1f}")
    axes[0].set_ylabel("share of right words")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("talks", type=Path, help="folder of sap2 make-talks")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test", help="(default: %(default)s)")
    parser.add_argument("--model", default="sap2-tiny", help="(default: %(default)s)")
    parser.add_argument("--asr-adapter", default="sap2-tiny-asr", help="(default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="reliability plot, .png or .svg")


def run(args: argparse.Namespace) -> None:
    """Transcribe, compare, print."""
    talks = read_talks(args.talks, args.split)
    transcriber = Transcriber(args.model, asr_adapter=args.asr_adapter, max_segment_seconds=SEGMENT_SECONDS)
    found = [look(transcriber, talk) for talk in progress(talks, "transcribe", unit="talk")]
    words = sum(map(len, found))
    print(f"{len(talks)} talks, {words} words, {words - int(sum(talk[:, 3].sum() for talk in found))} of them wrong")
    print("\n".join(table(found)))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    parser = Parser(prog="eval/confidence.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    sys.exit(run_parser(parser))
