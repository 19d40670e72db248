"""Utterances with their list, without any, with a useless one (that of another talk), and with a long one.

    python examples/sap2_tiny/lists.py UTTERANCES PREFIX

Writes PREFIX.list.jsonl, PREFIX.none.jsonl, PREFIX.useless.jsonl and PREFIX.long.jsonl, and PREFIX.keywords with the
lists that all four are to be scored with. A long list is the utterance's own, then the other keywords of its talk, then
keywords of other talks, up to 500.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence

from sap2.commands.shared import Parser, run_parser
from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import Row

LONG = 500
"""Keywords of a long list, where all talks together have as many."""


def write_lists(source: str, prefix: str) -> None:
    """Write the four files and the lists.

    Raises:
        InputError: all utterances are of one talk.
    """
    utterances = [row for _, row in read_rows(source)]
    lists: dict[str, list[list[str]]] = {}
    for row in utterances:
        lists.setdefault(row["session"], []).append(row["keywords"])
    if len(lists) < 2:
        raise InputError(f"{source} holds {len(lists)} talks; allowed: 2 or more")
    talks = list(lists)
    following = dict(zip(talks, [*talks[1:], talks[0]], strict=True))

    def useless(number: int, talk: str) -> list[str]:
        others = lists[following[talk]]
        return others[number % len(others)]

    def long(row: Row) -> list[str]:
        own = [*row["keywords"], *itertools.chain(*lists[row["session"]])]
        drawn = random.Random(row["id"]).sample(everything, min(LONG, len(everything)))
        return list(dict.fromkeys([*own, *drawn]))[:LONG]

    everything = sorted(set(itertools.chain(*itertools.chain(*lists.values()))))
    write_rows(f"{prefix}.list.jsonl", utterances)
    write_rows(f"{prefix}.none.jsonl", [{**row, "keywords": []} for row in utterances])
    write_rows(
        f"{prefix}.useless.jsonl",
        [{**row, "keywords": useless(number, row["session"])} for number, row in enumerate(utterances)],
    )
    write_rows(f"{prefix}.long.jsonl", [{**row, "keywords": long(row)} for row in utterances])
    with atomic_write(f"{prefix}.keywords") as stream:
        stream.writelines(f"{row['id']} {'$'.join(row['keywords'])}\n" for row in utterances)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="lists.py", description=__doc__)
    parser.add_argument("source", help="utterances of several talks, in their order")
    parser.add_argument("prefix", help="of the files to write")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    write_lists(args.source, args.prefix)


if __name__ == "__main__":
    sys.exit(main())
