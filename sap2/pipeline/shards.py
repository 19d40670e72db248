"""A test set in N parts, each decoded by a run of its own, on any machine and at any time, and put together by id.

No run knows of the others: this is what an array of cluster jobs needs. Part I has every N-th row and writes
``result.shardIofN.jsonl`` with all that belongs to a result file (:mod:`sap2.pipeline.results`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sap2.errors import InputError, list_some
from sap2.pipeline.fingerprints import is_made_from
from sap2.pipeline.items import BadRow, Item, read_items
from sap2.pipeline.results import ResultFiles, read_results, read_settings_file
from sap2.rowfiles import read_rows
from sap2.rows import Row


class Shard(NamedTuple):
    """Part ``number`` of ``parts``, from 1."""

    number: int
    parts: int

    def take(self, found: Sequence[Item | BadRow]) -> list[Item | BadRow]:
        """The rows of this part."""
        return [row for row in found if row.number % self.parts == self.number % self.parts]

    def path(self, result_path: str) -> str:
        """Where this part's results go."""
        return str(Path(result_path).with_suffix(f".shard{self.number}of{self.parts}.jsonl"))


def parse_shard(text: str) -> Shard:
    """``I/N``, as an argparse type."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole; allowed: I/N with I from 1 to N, as 2/8")
    return Shard(int(match[1]), int(match[2]))


def find_shards(result_path: str) -> list[Path]:
    """The result files of the parts, in the order of their numbers.

    Raises:
        InputError: there are none.
    """
    path = Path(result_path)
    pattern = re.compile(rf"{re.escape(path.stem)}\.shard(\d+)of(\d+)\.jsonl")
    numbered = [(match, file) for file in path.parent.glob("*.jsonl") if (match := pattern.fullmatch(file.name))]
    if not numbered:
        raise InputError(f"{path}: there is no {path.stem}.shard1of….jsonl beside it; --shard I/N writes them")
    return [file for match, file in sorted(numbered, key=lambda pair: (int(pair[0][2]), int(pair[0][1])))]


class Merged(NamedTuple):
    """What the parts hold for a test set.

    Attributes:
        settings: that all parts have in common.
        order: ids of the test set.
        results: by id.
        errors: rows without a result, with the reason; those that no part has looked at yet, too.
        stale: results of rows that have changed since.
    """

    settings: Mapping[str, Any]
    order: list[str]
    results: dict[str, Row]
    errors: list[Row]
    stale: int


def read_shards(val_dataset: str, result_path: str) -> Merged:
    """Gather the results of all parts, also of runs with different N, and also while some are still at work.

    Raises:
        InputError: no part is there, their settings differ, or they have an id that the test set lacks.
    """
    parts = find_shards(result_path)
    settings = _common_settings(parts)
    found = list(read_items(val_dataset, str(settings["stages"]).split(",")[0]))
    items = {row.id: row for row in found if isinstance(row, Item)}
    results: dict[str, Row] = {}
    stale = 0
    for part in parts:
        rows = read_results(part)
        ResultFiles(part).check_known(rows, items)
        for id, row in rows.items():
            if is_made_from(row, items[id]):
                results.setdefault(id, row)
            else:
                stale += 1
    return Merged(settings, list(items), results, _errors(parts, found, results), stale)


def _common_settings(parts: Sequence[Path]) -> dict[str, Any]:
    first = read_settings_file(parts[0])
    for part in parts[1:]:
        other = read_settings_file(part)
        names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if names:
            raise InputError(
                f"{parts[0]} and {part} were written with different settings ({list_some(sorted(names))}); allowed: "
                f"parts of one run"
            )
    return first


def _errors(parts: Sequence[Path], found: Sequence[Item | BadRow], results: Mapping[str, Row]) -> list[Row]:
    """One for each row without a result, in the order of the test set."""
    known: dict[int, Row] = {}
    for part in parts:
        errors = part.with_suffix(".errors.jsonl")
        known.update({row["row"]: row for _, row in (read_rows(errors) if errors.exists() else ())})
    missing = [row for row in found if isinstance(row, BadRow) or row.id not in results]
    nowhere = "no part has a result of this row yet"
    return [
        {"id": row.id, "row": row.number, "error": row.error}
        if isinstance(row, BadRow)
        else known.get(row.number, {"id": row.id, "row": row.number, "error": nowhere})
        for row in missing
    ]


def write_merged(result_path: str, merged: Merged) -> ResultFiles:
    """Write what :func:`read_shards` found as the files of one run; results that are there already stay.

    Raises:
        InputError: what is there was made with other settings, or another run is writing it.
    """
    files = ResultFiles(result_path)
    try:
        files.start(merged.settings, overwrite=False)
        done = files.done(merged.order)
        files.append([row for id, row in merged.results.items() if id not in done])
        files.append_errors([row for row in merged.errors if row["id"] not in done])
        files.finish(merged.order)
    finally:
        files.close()
    return files
