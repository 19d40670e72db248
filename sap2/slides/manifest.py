"""The manifest of one's own talks: a CSV or JSONL file with one utterance a row."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sap2.errors import InputError
from sap2.rowfiles import read_rows
from sap2.rows import Row, is_url
from sap2.tables import check_id

COLUMNS = ("id", "audio", "start", "end", "text", "captions", "slides", "slide", "session")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the manifest.

    Attributes:
        where: ``file:line``.
        id: unique; becomes a file name where audio is cut.
        audio: path of the audio, or its address (``s3://…``).
        start, end: seconds, where the utterance is a piece of its audio; ``end`` may be left out.
        text: the transcript, or None.
        captions: path of an .srt or .vtt file that says what is said when, or None.
        slides: path of the deck, or None.
        slide: number of the utterance's slide in it, from 1, or None.
        session: for results by session, or None.
    """

    where: str
    id: str
    audio: Path | str
    start: float | None = None
    end: float | None = None
    text: str | None = None
    captions: Path | None = None
    slides: Path | None = None
    slide: int | None = None
    session: str | None = None


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """The entries of a manifest; relative paths in it are relative to its folder.

    Raises:
        InputError: a column is unknown, a field is missing or no number, or an id occurs twice; names file and line.
    """
    path = Path(path)
    records = _read_csv(path) if path.suffix.lower() in (".csv", ".tsv") else read_rows(path)
    entries: dict[str, Entry] = {}
    for number, record in records:
        entry = _entry(record, f"{path}:{number}", path.parent)
        if entry.id in entries:
            raise InputError(f"{entry.where}: {entry.id!r} occurs a second time, first at {entries[entry.id].where}")
        entries[entry.id] = entry
    return list(entries.values())


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            for fields in reader:
                if len(fields) != len(header) and fields:
                    raise InputError(f"{path}:{reader.line_num}: {len(fields)} fields, the header has {len(header)}")
                if fields:
                    yield reader.line_num, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text: {error}") from None


def _entry(record: Row, where: str, folder: Path) -> Entry:
    unknown = sorted(set(record) - set(COLUMNS))
    if unknown:
        raise InputError(f"{where}: unknown columns {', '.join(unknown)}; allowed: {', '.join(COLUMNS)}")
    values = {name: _text(value, name, where) for name, value in record.items()}
    for name in ("id", "audio"):
        if not values.get(name):
            raise InputError(f"{where}: {name} is missing")
    check_id(values["id"], where)
    slide = _number(values.get("slide"), "slide", where)
    if slide is not None and (slide != int(slide) or slide < 1):
        raise InputError(f"{where}: slide {values['slide']!r} is not a number from 1")
    start, end = (_number(values.get(name), name, where) for name in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise InputError(f"{where}: end {end} is not after start {start or 0.0}")
    return Entry(
        where=where,
        id=values["id"],
        audio=values["audio"] if is_url(values["audio"]) else folder / values["audio"],
        start=start,
        end=end,
        text=values.get("text"),
        captions=folder / values["captions"] if values.get("captions") else None,
        slides=folder / values["slides"] if values.get("slides") else None,
        slide=None if slide is None else int(slide),
        session=values.get("session"),
    )


def _text(value: Any, name: str, where: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise InputError(f"{where}: {name} must be text or a number, not {value!r:.80}")
    return str(value).strip() or None if value is not None else None


def _number(text: str | None, name: str, where: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"{where}: {name} {text!r} is not a number from 0")
    return value
