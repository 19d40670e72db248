"""The test rows of sap2-tiny: no list, a useless list (that of another talk), the list, for one or two stages.

python examples/sap2_tiny/test_rows.py TEST_UTTERANCES FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sap2.records import atomic_write, read_rows, write_rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="utterances of several talks, in their order")
    parser.add_argument("folder", help="where the rows go")
    args = parser.parse_args(argv)
    write_ways(args.source, args.folder)


def write_ways(source: str, folder: str) -> None:
    """Write ``test.NAME.jsonl`` for each way, and the lists that all are scored with."""
    utterances = [row for _, row in read_rows(source)]
    talks = sorted({row["session"] for row in utterances})
    first = {talk: next(row for row in utterances if row["session"] == talk) for talk in talks}
    following = dict(zip(talks, [*talks[1:], talks[0]], strict=True))
    ways = {
        "none": [{**row, "keywords": []} for row in utterances],
        "useless": [{**row, "keywords": first[following[row["session"]]]["keywords"]} for row in utterances],
        **dict.fromkeys(("list", "stages", "picked"), utterances),
    }
    for name, rows in ways.items():
        write_rows(Path(folder) / f"test.{name}.jsonl", rows)
    with atomic_write(Path(folder) / "test.keywords") as stream:
        stream.writelines(f"{row['id']} {'$'.join(row['keywords'])}\n" for row in utterances)


if __name__ == "__main__":
    main()
