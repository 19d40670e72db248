"""Utterances: the one form between the corpora and the rows.

The converters (:mod:`sap2.data.slidespeech`, :mod:`~sap2.data.librispeech`, :mod:`~sap2.data.talks`) write it and
the row builders read it, one JSON object per line::

    {"id": "talk1_0001", "audio": "/data/talk1_0001.flac", "text": "hi i'm emily", "keywords": ["emily", "wozniak"]}
"""

from __future__ import annotations

import dataclasses
import math
import os
import unicodedata
from collections.abc import Iterator
from typing import Any

from sap2.errors import InputError
from sap2.rowfiles import read_rows
from sap2.rows import Row, as_utterance


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus: what the converters of ``data_tools`` write and its row builders read.

    Attributes:
        id: unique in its file; no white space and no control characters.
        audio: path of the audio, as it will stand in the row.
        text: the transcript, or None where there is none (rows to decode).
        keywords: the context list: words of the slides, or a biasing list.
        recording: the recording that the utterance was cut from.
        start, end: its place in the recording, seconds.
        session: talk, speaker or session, for results by session.
        slide: number of its slide within the recording, from 0, in the order of time.
    """

    id: str
    audio: str
    text: str | None = None
    keywords: tuple[str, ...] = ()
    recording: str | None = None
    start: float | None = None
    end: float | None = None
    session: str | None = None
    slide: int | None = None

    @classmethod
    def from_record(cls, record: Row, where: str = "utterance") -> Utterance:
        """Check a JSON object field by field; the names that other tools give the fields are known.

        Without an id, the name of the audio file is it.

        Raises:
            InputError: a field is missing, unknown in type, or out of range; the message begins with ``where``.
        """
        try:
            record = as_utterance(record)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for name in ("id", "audio"):
            _check_name(record.get(name), name, where)
        for name in ("text", "recording", "session"):
            if not isinstance(record.get(name), (str, type(None))):
                raise InputError(f"{where}: {name} must be a string, not {record[name]!r:.80}")
        keywords = record.get("keywords")
        keywords = [] if keywords is None else keywords
        if not isinstance(keywords, (list, tuple)) or not all(isinstance(keyword, str) for keyword in keywords):
            raise InputError(f"{where}: keywords must be a list of strings, not {keywords!r:.80}")
        _check_times(record, where)
        known = {field.name: record.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**{**known, "keywords": tuple(keywords)})

    def to_record(self) -> Row:
        """The JSON object, without the fields that are None."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: list(value) if name == "keywords" else value for name, value in record.items() if value is not None
        }


def _check_name(value: Any, name: str, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name} must be a non-empty string, not {value!r:.80}")
    if value.isprintable() and not (name == "id" and " " in value):
        return
    # a path may hold spaces; an id is a key in files whose fields are divided by them
    bad = [c for c in value if unicodedata.category(c)[0] == "C" or (name == "id" and c.isspace())]
    if bad:
        raise InputError(f"{where}: {name} {value!r:.80} holds the character {bad[0]!a}, which is not allowed there")


def _check_times(record: Row, where: str) -> None:
    for name in ("start", "end"):
        value = record.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (number and value >= 0):
            raise InputError(f"{where}: {name} must be seconds from 0, not {value!r:.80}")
    start, end = record.get("start"), record.get("end")
    if start is not None and end is not None and end <= start:
        raise InputError(f"{where}: end {end} is not after start {start}")
    slide = record.get("slide")
    if slide is not None and (isinstance(slide, bool) or not isinstance(slide, int) or slide < 0):
        raise InputError(f"{where}: slide must be a number from 0, not {slide!r:.80}")


def read_utterances(path: str | os.PathLike[str]) -> Iterator[tuple[str, Utterance]]:
    """Utterances of a file with their place in it (``file:line``), each id once.

    Raises:
        InputError: a record is not an utterance, or an id occurs twice; the message names file and line.
    """
    seen: set[str] = set()
    for number, record in read_rows(path):
        where = f"{path}:{number}"
        utterance = Utterance.from_record(record, where)
        if utterance.id in seen:
            raise InputError(f"{where}: id {utterance.id!r} occurs a second time; ids are unique")
        seen.add(utterance.id)
        yield where, utterance
    if not seen:
        raise InputError(f"{path}: no utterance in this file; allowed: at least one")
