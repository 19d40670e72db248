"""Rows for the curriculum of the retriever: words, phrases or the spoken keywords of each utterance are its list.

Attention2Probability trains on single words first, then on phrases of two to four words, then on terms: a file and a
training for each.
"""

from __future__ import annotations

import argparse
import os
import random

from sap2.commands.shared import add_normalizer, add_output, check_output, positive, print_report
from sap2.data.building import (
    BuildReport,
    CleanUtterance,
    RowOptions,
    add_char,
    add_row_options,
    build_rows,
    row_options,
    row_random,
)
from sap2.errors import InputError
from sap2.prompts import asr_prompt
from sap2.text import clean_keywords, split_words, spoken_keywords

KINDS = ("words", "phrases", "keywords")
PHRASE = (2, 4)
"""Words of a phrase, from and to."""


def build_terms(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    kind: str,
    *,
    most: int = 4,
    seed: int = 0,
    normalizer: str = "whisper-en",
    options: RowOptions | None = None,
) -> BuildReport:
    """Write rows whose lists hold what is said.

    Args:
        kind: of :data:`KINDS`; words and phrases are drawn from the transcript.
        most: words or phrases of a row at most.

    Raises:
        InputError: bad input; the message names file and line.
    """
    if kind not in KINDS:
        raise InputError(f"terms {kind!r} are unknown; allowed: {', '.join(KINDS)}")
    options = options or RowOptions()

    def make_turns(utterance: CleanUtterance) -> tuple[list[str], str, str]:
        if kind == "keywords":
            chosen = spoken_keywords(utterance.keywords, utterance.text, normalizer, options.char)
        else:
            words = split_words(utterance.text, options.char)
            draw = row_random(seed, utterance.id)
            spans = _phrases(words, draw) if kind == "phrases" else words
            chosen = clean_keywords(draw.sample(spans, min(most, len(spans))))
        return chosen, asr_prompt(chosen), utterance.text

    return build_rows(source, output, make_turns, options)


def _phrases(words: list[str], draw: random.Random) -> list[str]:
    """Neighbouring words from each place on, as many as are drawn."""
    phrases = []
    for first in range(len(words) - PHRASE[0] + 1):
        phrase = words[first : first + draw.randint(*PHRASE)]
        # characters of Chinese have no spaces between them
        phrases.append(("" if all(len(word) == 1 for word in phrase) else " ").join(phrase))
    return phrases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_row_options(parser)
    add_output(parser, "rows of stage two")
    parser.add_argument("--terms", choices=KINDS, required=True, help="what the lists hold")
    parser.add_argument(
        "--most", type=positive, default=4, metavar="N", help="words or phrases of a row (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    add_normalizer(parser)
    add_char(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_terms(
        args.source,
        args.output,
        args.terms,
        most=args.most,
        seed=args.seed,
        normalizer=args.normalizer,
        options=row_options(args),
    )
    print_report(f"{args.output}: {report}", args.output)
