"""Rows: what is in one, how a file of them is read, and how an output is written whole or not at all.

A row is the JSON object that ms-swift trains on and what ``swift infer`` writes back::

    {"id": "talk1_0001", "messages": [{"role": "user", "content": "<audio>…"}, {"role": "assistant", "content": "…"}],
     "audios": ["/path/talk1_0001.flac"]}

Standard library only; parquet files are read with pyarrow (which comes with datasets), imported when needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from sap2.prompts import CONTEXT_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT, parse_keywords

Row = dict[str, Any]


class Context(NamedTuple):
    """The span of one context in a text: ``text[start:end]`` includes both delimiters, ``body`` neither."""

    start: int
    end: int
    body: str


def find_contexts(text: str) -> list[Context]:
    """The contexts of a text, in order.

    Raises:
        ValueError: a delimiter is missing, the two are in the wrong order or nested, or the text already holds
            the placeholder token.
    """
    if CONTEXT_TOKEN in text:
        raise ValueError(f"{CONTEXT_TOKEN} is the placeholder of compressed context and must not be in a row")
    contexts: list[Context] = []
    position = 0
    while True:
        start, end = text.find(START_OF_CONTEXT, position), text.find(END_OF_CONTEXT, position)
        if start < 0 and end < 0:
            return contexts
        if start < 0 or 0 <= end < start:
            raise ValueError(f"{END_OF_CONTEXT} at character {end} without {START_OF_CONTEXT} before it")
        if end < 0:
            raise ValueError(f"{START_OF_CONTEXT} at character {start} is never closed by {END_OF_CONTEXT}")
        body_start = start + len(START_OF_CONTEXT)
        nested = text.find(START_OF_CONTEXT, body_start, end)
        if nested >= 0:
            raise ValueError(f"{START_OF_CONTEXT} at character {nested} inside the context that opened at {start}")
        position = end + len(END_OF_CONTEXT)
        contexts.append(Context(start, position, text[body_start:end]))


def row_audios(row: Row) -> list[str]:
    """The audio paths of a row: ``audios`` as a list, a string, or objects with a ``path``."""
    audios = row.get("audios") or []
    if isinstance(audios, (str, dict)):
        audios = [audios]
    return [audio["path"] if isinstance(audio, dict) else audio for audio in audios]


def row_id(row: Row) -> str | None:
    """The utterance id: the row's ``id``, or else its (first) audio path; None where it has neither."""
    if row.get("id") not in (None, ""):
        return str(row["id"])
    audios = row_audios(row)
    return audios[0] if audios else None


def row_keywords(row: Row) -> list[str]:
    """The keywords of all contexts in the user's turns."""
    return [
        keyword
        for message in row.get("messages") or []
        if message.get("role") == "user" and isinstance(message.get("content"), str)
        for context in find_contexts(message["content"])
        for keyword in parse_keywords(context.body)
    ]


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a .jsonl, .json (one array) or .parquet file with their 1-based line or row number.

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = (row for batch in pq.ParquetFile(path).iter_batches(1024) for row in batch.to_pylist())
        yield from enumerate(rows, 1)
        return
    with path.open(encoding="utf-8") as stream:
        if _starts_with_bracket(stream):
            yield from _read_array(path, stream)
            return
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, _as_row(line, f"{path}:{number}")


def _starts_with_bracket(stream: IO[str]) -> bool:
    head = stream.read(4096).lstrip("\ufeff \t\r\n")
    stream.seek(0)
    return head.startswith("[")


def _read_array(path: Path, stream: IO[str]) -> Iterator[tuple[int, Row]]:
    try:
        rows = json.load(stream)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON array: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number} is not a JSON object: {str(row)[:80]!r}")
        yield number, row


def _as_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: not a JSON object: {line.strip()[:80]!r}")
    return row


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends well; on an error or a kill nothing is left at ``path``.

    Parent folders are made. Text is UTF-8 with ``\\n`` line ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with tempfile.NamedTemporaryFile(mode, dir=path.parent, prefix=f".{path.name}.", delete=False, **text) as stream:
        try:
            yield stream
        except BaseException:
            Path(stream.name).unlink()
            raise
    # NamedTemporaryFile is private to its owner; an output follows the umask like any other file
    umask = os.umask(0)
    os.umask(umask)
    Path(stream.name).chmod(0o666 & ~umask)
    Path(stream.name).replace(path)
