"""Files of rows: jsonl, json and parquet, read as a stream and written whole or not at all.

Standard library only; parquet files go through pyarrow (which comes with datasets), imported when needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sap2.errors import InputError, one_line
from sap2.files import atomic_write, has_own_name
from sap2.rows import Row

FORMATS = ("jsonl", "json", "parquet")
"""File formats of rows: one object per line, one array, or a parquet table."""

_CHUNK = 1 << 20  # characters of a JSON array that are read at a time
_BATCH = 4096  # rows of one parquet batch
_BOM = b"\xef\xbb\xbf"


OnError = Callable[[int, InputError], None]


def read_rows(path: str | os.PathLike[str], on_error: OnError | None = None) -> Iterator[tuple[int, Row]]:
    """Rows of a .jsonl, .json (one array) or .parquet file with their 1-based line or row number, as a stream.

    Args:
        path: the file.
        on_error: called with the number and the error of what is not a row, instead of raising it; reading goes on
            where it can.

    Raises:
        InputError: a line is not a JSON object; the message names file and line.
    """
    path = Path(path)
    on_error = on_error or _raise
    if path.suffix == ".parquet":
        yield from _read_parquet(path, on_error)
        return
    with path.open("rb") as stream:
        head = stream.read(4096).removeprefix(_BOM).lstrip()
    if head.startswith(b"["):
        yield from _read_array(path, on_error)
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            line = line.removeprefix(_BOM) if number == 1 else line
            try:
                row = _as_row(line, f"{path}:{number}") if line.strip() else None
            except InputError as error:
                on_error(number, error)
                continue
            if row is not None:
                yield number, row


def _raise(number: int, error: InputError) -> None:
    raise error


def _read_parquet(path: Path, on_error: OnError) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system: no such file, no right to read it
        on_error(number + 1, InputError(f"{path}: not a parquet file: {one_line(error)}"))


def _read_array(path: Path, on_error: OnError) -> Iterator[tuple[int, Row]]:
    number = 0
    with path.open(encoding="utf-8-sig") as stream:
        try:
            for number, row in enumerate(_array_items(stream), 1):
                if isinstance(row, dict):
                    yield number, row
                else:
                    on_error(number, InputError(f"{path}:{number}: not a JSON object: {str(row)[:80]!r}"))
        except UnicodeDecodeError as error:
            on_error(number + 1, InputError(f"{path}:{number + 1}: not UTF-8 text: {error}"))
        except (json.JSONDecodeError, RecursionError) as error:
            on_error(number + 1, InputError(f"{path}:{number + 1}: not a JSON array of rows: {error}"))


def _array_items(stream: IO[str]) -> Iterator[Any]:
    """The items of one JSON array, decoded one at a time from a buffer that holds little more than one item."""
    decode = json.JSONDecoder().raw_decode
    buffer, position = _skip_spaces(stream, "", 0)
    position += 1  # the bracket
    expect_comma = False
    while True:
        buffer, position = _skip_spaces(stream, buffer, position)
        if buffer.startswith("]", position):
            break
        if expect_comma:
            if not buffer.startswith(",", position):
                raise json.JSONDecodeError("Expecting ',' delimiter", buffer[position : position + 80], 0)
            buffer, position = _skip_spaces(stream, buffer, position + 1)
        while True:
            try:
                item, position = decode(buffer, position)
                break
            except json.JSONDecodeError as error:
                # cut off by the end of the buffer, or really wrong? A cut shows at the end, or as an open string
                cut = error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated string")
                # doubling keeps the repeated decoding of one huge item linear in its size
                more = stream.read(max(_CHUNK, len(buffer) - position)) if cut else ""
                if not more:
                    raise
                buffer, position = buffer[position:] + more, 0
        yield item
        expect_comma = True
    buffer, position = _skip_spaces(stream, buffer, position + 1)
    if position < len(buffer):
        raise json.JSONDecodeError("Extra data after the array", buffer[position : position + 80], 0)


def _skip_spaces(stream: IO[str], buffer: str, position: int) -> tuple[str, int]:
    """Move past white space, reading on where the buffer ends; at the end of the file position == len(buffer)."""
    while True:
        while position < len(buffer) and buffer[position] in " \t\r\n":
            position += 1
        if position < len(buffer):
            return buffer, position
        buffer, position = stream.read(_CHUNK), 0
        if not buffer:
            return buffer, position


def _as_row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text: {error}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object: {str(row)[:80]!r}")
    return row


def row_format(path: str | os.PathLike[str], name: str | None = None) -> str:
    """The format of an output: that of its suffix, which ``name`` may confirm but not contradict.

    Standard output, a pipe or a device has the format ``name``, or jsonl. ``datasets`` and ms-swift choose the
    reader by the suffix.

    Raises:
        InputError: the suffix is none of :data:`FORMATS`, or not that of the format asked for.
    """
    if not has_own_name(path):
        return name or FORMATS[0]
    suffix = Path(path).suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"{path}: the name of a row file ends with .{', .'.join(FORMATS)}")
    if name not in (None, suffix):
        raise InputError(f"{path}: format {name} needs a name that ends with .{name}, since readers go by the suffix")
    return suffix


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row], format: str | None = None) -> int:
    """Write rows as they come, whole or not at all (:func:`atomic_write`); returns their number."""
    with open_writer(path, format) as write:
        count = 0
        for row in rows:
            write(row)
            count += 1
    return count


@contextlib.contextmanager
def open_writer(path: str | os.PathLike[str], format: str | None = None) -> Iterator[Callable[[Row], None]]:
    """A function that writes one row at a time to a file of that format (:func:`row_format`)."""
    format = row_format(path, format)
    if format == "parquet":
        with atomic_write(path, "wb") as stream, _seekable(stream) as file, _parquet_writer(file) as write:
            yield write
        return
    with atomic_write(path) as stream:
        separator = "[\n" if format == "json" else ""

        def write(row: Row) -> None:
            nonlocal separator
            stream.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n" if format == "json" else "\n"

        yield write
        if format == "json":
            # without any row the array is still to be opened
            stream.write("[]\n" if separator == "[\n" else "\n]\n")
        elif separator:
            stream.write("\n")


@contextlib.contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream, or a temporary file whose content it gets in the end: a parquet file asks where it is."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, stream)


@contextlib.contextmanager
def _parquet_writer(stream: IO[bytes]) -> Iterator[Callable[[Row], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    batch: list[Row] = []
    writers: list[pq.ParquetWriter] = []

    def flush() -> None:
        if not writers:
            writers.append(pq.ParquetWriter(stream, _parquet_schema(batch)))
        # a column that the first batch lacks would be left out in silence
        extra = {name for row in batch for name in row} - set(writers[0].schema.names)
        if extra:
            raise InputError(
                f"columns {sorted(extra)} begin after the first {_BATCH} rows; write jsonl, or put them first"
            )
        writers[0].write_table(pa.Table.from_pylist(batch, schema=writers[0].schema))
        batch.clear()

    def write(row: Row) -> None:
        batch.append(row)
        if len(batch) == _BATCH:
            flush()

    try:
        yield write
        if batch or not writers:
            flush()
    finally:
        for writer in writers:
            writer.close()


def _parquet_schema(batch: list[Row]) -> Any:
    """Columns in order of first sight; known ones typed by name, since a batch may hold nothing but empty lists."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = pa.list_(pa.string())
    known = {"id": pa.string(), "messages": pa.list_(message), "audios": texts, "keywords": texts}
    known |= {"session": pa.string(), "transcript": pa.string()}
    names = dict.fromkeys(name for row in batch for name in row)
    inferred = pa.Table.from_pylist(batch).schema if set(names) - set(known) else None
    return pa.schema([(name, known[name] if name in known else inferred.field(name).type) for name in names])
