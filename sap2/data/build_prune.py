"""Rows of stage one: which keywords of the list are spoken?

The reply holds the keywords of the list that occur in the transcript, in the list's order, or "none". A keyword of
several words counts where they follow each other; both sides go through the normaliser of the evaluation.
"""

from __future__ import annotations

import argparse
import os

from sap2.commands.shared import check_output, print_report
from sap2.data.building import BuildReport, RowOptions, add_spoken_options, build_spoken_rows, row_options
from sap2.prompts import prune_prompt, prune_reply


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

    def answer(spoken: list[str], _: str) -> str:
        return prune_reply(spoken)

    return build_spoken_rows(source, output, prune_prompt, answer, normalizer, options, with_transcript=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_spoken_options(parser, "stage-one rows")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_prune(args.source, args.output, args.normalizer, row_options(args))
    print_report(f"{args.output}: {report}", args.output)
