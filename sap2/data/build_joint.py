"""Rows for one model that selects keywords and transcribes in one reply (the paper's JPI baseline)."""

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
from sap2.prompts import joint_prompt, joint_reply
from sap2.text import spoken_keywords


def build_joint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    normalizer: str = "whisper-en",
    options: RowOptions | None = None,
) -> BuildReport:
    """Write the joint rows of the utterances in ``source``.

    Raises:
        InputError: bad input; the message names file and line.
    """

    options = options or RowOptions()

    def make_turns(utterance: CleanUtterance) -> tuple[list[str], str, str]:
        spoken = spoken_keywords(utterance.keywords, utterance.text, normalizer, options.char)
        return utterance.keywords, joint_prompt(utterance.keywords), joint_reply(spoken, utterance.text)

    return build_rows(source, output, make_turns, options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_row_options(parser)
    add_output(parser, "joint rows")
    add_normalizer(parser)
    add_char(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_joint(args.source, args.output, args.normalizer, row_options(args))
    print_report(f"{args.output}: {report}", args.output)
