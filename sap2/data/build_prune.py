"""Rows of stage one: which keywords of the list are spoken?

The reply holds the keywords of the list that occur in the transcript, in the list's order, or "none". A keyword of
several words counts where they follow each other; both sides go through the normaliser of the evaluation.
"""

from __future__ import annotations

import argparse
import os

from sap2.commands.shared import add_normalizer, add_output, check_output, print_report
from sap2.data.building import (
    BuildReport,
    CleanUtterance,
    RowOptions,
    add_char,
    add_row_options,
    build_rows,
    row_options,
)
from sap2.prompts import prune_prompt, prune_reply
from sap2.text import spoken_keywords


def build_prune(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    normalizer: str = "whisper-en",
    options: RowOptions | None = None,
) -> BuildReport:
    """Write the stage-one rows of the utterances in ``source``.

    Raises:
        InputError: bad input; the message names file and line.
    """

    options = options or RowOptions()

    def make_turns(utterance: CleanUtterance) -> tuple[list[str], str, str]:
        spoken = spoken_keywords(utterance.keywords, utterance.text, normalizer, options.char)
        return utterance.keywords, prune_prompt(utterance.keywords), prune_reply(spoken)

    return build_rows(source, output, make_turns, options, with_transcript=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_row_options(parser)
    add_output(parser, "stage-one rows")
    add_normalizer(parser)
    add_char(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_prune(args.source, args.output, args.normalizer, row_options(args))
    print_report(f"{args.output}: {report}", args.output)
