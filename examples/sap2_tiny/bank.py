"""A bank of 10,000 names of talks: ``python examples/sap2_tiny/bank.py BANK UTTERANCES [UTTERANCES …]``.

Of the names of the first file all are in it, then those of the next, in an order of chance.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from sap2.commands.shared import Parser, run_parser
from sap2.rowfiles import read_rows

TERMS = 10_000


def write_bank(bank: str, sources: Sequence[str]) -> None:
    """Write names that the utterances' lists hold, in an order of chance."""
    draw, names = random.Random(3), dict[str, None]()
    for source in sources:
        listed = sorted({keyword for _, row in read_rows(source) for keyword in row["keywords"]})
        draw.shuffle(listed)
        names.update(dict.fromkeys(listed))
    chosen = list(names)[:TERMS]
    draw.shuffle(chosen)
    Path(bank).write_text("\n".join(chosen) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("bank", metavar="BANK", help="the file to write")
    parser.add_argument("sources", metavar="UTTERANCES", nargs="+", help="with their lists")


def run(args: argparse.Namespace) -> None:
    """Write the bank."""
    write_bank(args.bank, args.sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bank.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
