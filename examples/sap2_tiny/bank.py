"""A bank of 10,000 names of the training talks: ``python examples/sap2_tiny/bank.py UTTERANCES BANK``."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from sap2.commands.shared import Parser, run_parser
from sap2.rowfiles import read_rows

TERMS = 10_000


def write_bank(source: str, bank: str) -> None:
    """Write names that the utterances' lists hold, in an order of chance."""
    names = sorted({keyword for _, row in read_rows(source) for keyword in row["keywords"]})
    random.Random(3).shuffle(names)
    Path(bank).write_text("\n".join(names[:TERMS]) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("source", metavar="UTTERANCES", help="with their lists")
    parser.add_argument("bank", metavar="BANK", help="the file to write")


def run(args: argparse.Namespace) -> None:
    """Write the bank."""
    write_bank(args.source, args.bank)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bank.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
