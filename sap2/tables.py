"""Kaldi-style tables: one entry a line, an id and the rest. Read with the line numbers that errors name.

A byte order mark, CRLF line ends and tabs are taken for what they stand for; a repeated id, a missing field and text
that is not UTF-8 are refused.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from sap2.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\r\n"
KEYWORD_DIVIDER = "$"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line: its place (``file:line``) and what follows the id."""

    where: str
    value: str


@dataclasses.dataclass(frozen=True)
class Segment:
    """One line of ``segments``: an utterance within a recording, from ``start`` to ``end`` seconds."""

    where: str
    utterance: str
    recording: str
    start: float
    end: float


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, with their place; only ``\\n`` ends a line.

    Raises:
        InputError: a line is not UTF-8.
    """
    with Path(path).open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            where = f"{path}:{number}"
            try:
                line = (raw.removeprefix(_BOM) if number == 1 else raw).decode("utf-8").strip(_BLANK)
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 text: {error}") from None
            if line:
                yield where, line


def read_table(path: str | os.PathLike[str], required: bool = False) -> dict[str, Entry]:
    """Entries by id.

    Args:
        path: the table.
        required: whether a line with nothing after its id is refused.

    Raises:
        InputError: an id occurs twice or cannot name a file, or a required value is missing.
    """
    table: dict[str, Entry] = {}
    for where, line in read_lines(path):
        name, *rest = re.split(r"[ \t]+", line, maxsplit=1)
        check_id(name, where)
        if name in table:
            raise InputError(f"{where}: {name!r} occurs a second time, first at {table[name].where}")
        if required and not rest:
            raise InputError(f"{where}: nothing after {name!r}; a line is an id and a value")
        table[name] = Entry(where, rest[0] if rest else "")
    return table


def read_segments(path: str | os.PathLike[str]) -> list[Segment]:
    """The lines ``utterance recording start end``, in the file's order.

    Raises:
        InputError: a line does not hold these four fields, times are not 0 <= start < end, or an id occurs twice.
    """
    segments: dict[str, Segment] = {}
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise InputError(f"{where}: {len(fields)} fields; a segment is: utterance recording start end")
        utterance, recording = fields[:2]
        check_id(utterance, where)
        check_id(recording, where)
        start, end = (_seconds(field, where) for field in fields[2:])
        if start >= end:
            raise InputError(f"{where}: end {end} is not after start {start}")
        if utterance in segments:
            raise InputError(f"{where}: {utterance!r} occurs a second time, first at {segments[utterance].where}")
        segments[utterance] = Segment(where, utterance, recording, start, end)
    return list(segments.values())


def read_keywords(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The keywords of each utterance, from lines ``utterance A$B$C``; none where nothing follows the id."""
    return {
        name: [keyword.strip() for keyword in entry.value.split(KEYWORD_DIVIDER) if keyword.strip()]
        for name, entry in read_table(path).items()
    }


def check_id(name: str, where: str) -> None:
    """Refuse an id that would leave its folder as a file name, or holds what cannot be seen.

    Raises:
        InputError: the id begins with a dot, or holds a slash, white space or a control character.
    """
    bad = [c for c in name if c in "/\\" or c.isspace() or unicodedata.category(c)[0] == "C"]
    if bad or name.startswith(".") or not name:
        what = f"holds {bad[0]!a}" if bad else "begins with a dot" if name else "is empty"
        raise InputError(f"{where}: id {name!a:.80} {what}; ids become file names")


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{where}: {text!r} is not a time in seconds from 0")
    return value
