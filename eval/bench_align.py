"""Words a second of the alignment, on one core: ``python eval/bench_align.py``.

Utterances of 20 words with one word in ten wrong, as lists of texts: numbering the words, aligning and counting are
all timed, by the wall clock, after one warm-up call. For comparison, the same programme in plain Python on a part.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import numpy as np

from sap2.scoring.align import Vocabulary, align, count_errors
from sap2.scoring.definitions import DEFINITIONS, Definition

UTTERANCE_WORDS = 20
VOCABULARY_WORDS = 5000
ERROR_SHARE = 0.1

Lists = list[list[str]]


def make_corpus(words: int, seed: int = 0) -> tuple[Lists, Lists]:
    """References and hypotheses with about ``words`` reference words."""
    random = np.random.default_rng(seed)
    names = np.array([f"word{number}" for number in range(VOCABULARY_WORDS)])
    refs, hyps = [], []
    for _ in range(max(1, words // UTTERANCE_WORDS)):
        ref = names[random.integers(0, VOCABULARY_WORDS, UTTERANCE_WORDS)]
        fate = random.random(UTTERANCE_WORDS) / ERROR_SHARE
        kept = np.where(fate < 0.6, names[random.integers(0, VOCABULARY_WORDS, UTTERANCE_WORDS)], ref)
        repeats = np.where((fate >= 0.6) & (fate < 0.8), 0, np.where((fate >= 0.8) & (fate < 1), 2, 1))
        refs.append(ref.tolist())
        hyps.append(np.repeat(kept, repeats).tolist())
    return refs, hyps


def count(refs: Lists, hyps: Lists, definition: Definition) -> np.ndarray:
    """All error counts of a corpus, every tenth word of the vocabulary being biased; shape (2, 4)."""
    vocabulary = Vocabulary()
    ref_words, hyp_words = vocabulary.words(refs), vocabulary.words(hyps)
    alignments = align(ref_words, hyp_words, definition.costs)
    biased = np.array([word.endswith("7") for word in vocabulary])
    return count_errors(alignments, ref_words, hyp_words, biased[ref_words.ids], biased[hyp_words.ids]).sum(axis=0)


def plain_python(refs: Lists, hyps: Lists, definition: Definition) -> None:
    """Fill the same table cell by cell in Python, without tracing back or counting."""
    costs = definition.costs
    for ref, hyp in zip(refs, hyps, strict=True):
        row = [(index * costs.insertion, 2) for index in range(len(hyp) + 1)]
        for number, word in enumerate(ref, 1):
            above, row = row, [(number * costs.deletion, 3)]
            for index, other in enumerate(hyp, 1):
                candidates = [
                    (above[index][0] + costs.deletion, 3),
                    (row[index - 1][0] + costs.insertion, 2),
                    (above[index - 1][0] + costs.substitution * (word != other), 1),
                ]
                row.append(min(candidates, key=lambda item: item[0]))


def seconds(function: Callable[..., object], *args: object) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each definition, and one for plain Python."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--words", type=int, default=1_000_000, help="reference words (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.words < UTTERANCE_WORDS:
        parser.error(f"--words {args.words}: at least the {UTTERANCE_WORDS} words of one utterance")
    refs, hyps = make_corpus(args.words)
    total = sum(map(len, refs))
    for name, definition in DEFINITIONS.items():
        warm = seconds(count, refs[:1], hyps[:1], definition)
        spent = seconds(count, refs, hyps, definition)
        speed = f"{total / spent:,.0f} words a second"
        print(f"{name:12}{total:,} words in {spent:.2f} s, {speed} (warm-up {warm:.1f} s)")
    part = max(1, 20_000 // UTTERANCE_WORDS)
    spent = seconds(plain_python, refs[:part], hyps[:part], DEFINITIONS["slidespeech"])
    print(f"{'plain Python':12} {sum(map(len, refs[:part])) / spent:,.0f} words a second (table only)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
