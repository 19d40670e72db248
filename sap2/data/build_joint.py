"""Rows for one model that selects keywords and transcribes in one reply (the paper's JPI baseline)."""

from __future__ import annotations

import argparse
import os

from sap2.commands.shared import check_output, print_report
from sap2.data.building import BuildReport, RowOptions, add_spoken_options, build_spoken_rows, row_options
from sap2.prompts import joint_prompt, joint_reply


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
    return build_spoken_rows(source, output, joint_prompt, joint_reply, normalizer, options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_spoken_options(parser, "joint rows")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_joint(args.source, args.output, args.normalizer, row_options(args))
    print_report(f"{args.output}: {report}", args.output)
