"""A form as it comes in: files go to the private folder piece by piece, and too much is refused when it is too much."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sap2.serve.decoding import Upload
from sap2.serve.errors import BAD_REQUEST, TOO_LARGE, UNSUPPORTED, ApiError
from sap2.serve.kinds import AUDIO, HEAD, SLIDES, TEXT, find_kind
from sap2.serve.options import Limits

ALLOWED = {"file": (AUDIO,), "slides": (SLIDES, TEXT), "manifest": (TEXT,), "keywords": (TEXT,)}
"""Kinds of the files of a form."""
KINDS = {
    AUDIO: "a recording (wav, flac, mp3, m4a, ogg, webm, mp4 and what else ffmpeg reads)",
    SLIDES: "slides (pdf, pptx, png, jpeg and other pictures)",
    TEXT: "UTF-8 text",
}
_MOST_PARTS = 1000


@dataclasses.dataclass
class Form:
    """A form: texts by field name, and files by field name, both in their order."""

    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    files: dict[str, list[Upload]] = dataclasses.field(default_factory=dict)

    def uploads(self, name: str) -> list[Upload]:
        """The files of a field."""
        return self.files.get(name, [])

    def take_query(self, fields: Iterable[tuple[str, str]]) -> None:
        """Take the fields of an address, which come before those of the form: of several texts, the last counts."""
        given: dict[str, list[str]] = {}
        for name, text in fields:
            given.setdefault(name.removesuffix("[]"), []).append(text)
        for name, texts in given.items():
            self.texts[name] = [*texts, *self.texts.get(name, [])]


def shown_name(name: str) -> str:
    """What a caller calls a file, as it may be shown: its last part, printable, not long."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable())[:80].strip() or "file"


def place_upload(folder: Path, number: int, field: str, name: str, content: bytes) -> Upload:
    """A file of a request at its place in the folder.

    Args:
        content: how it begins; the rest may be added.

    Raises:
        ApiError: it is not of a kind that the field takes.
    """
    kind = check_kind(field, name, content[:HEAD])
    path = folder / f"{number}.{kind[1]}"
    path.write_bytes(content)
    return Upload(str(path), name, kind[0])


def check_kind(field: str, name: str, head: bytes) -> tuple[str, str]:
    """What a file is, and its suffix.

    Raises:
        ApiError: it is not of a kind that the field takes.
    """
    allowed = ALLOWED[field]
    kind = find_kind(head)
    if not head:
        raise ApiError(BAD_REQUEST, f"{name} is empty", field)
    if kind is None or kind[0] not in allowed:
        raise ApiError(
            UNSUPPORTED,
            f"{name} is not of a kind that {field} takes; allowed: {' or '.join(KINDS[one] for one in allowed)}",
            field,
        )
    return kind


async def read_form(chunks: AsyncIterator[bytes], content_type: str, folder: Path, limits: Limits) -> Form:
    """Read a form of the type multipart/form-data.

    Args:
        chunks: the body.
        folder: where files go; the caller removes it.

    Raises:
        ApiError: it is no form, or holds too much, or a file of another kind than its field takes.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(UNSUPPORTED, "the request has to be multipart/form-data with a field file")
    reader = _Reader(folder, limits)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise ApiError(BAD_REQUEST, "the form cannot be read: it is not multipart/form-data") from None
    finally:
        reader.close()
    if not reader.ended:
        raise ApiError(BAD_REQUEST, "the form ends before its end")
    return reader.form


class _Reader:
    """What the parser finds, part by part."""

    def __init__(self, folder: Path, limits: Limits):
        self._folder, self._limits = folder, limits
        self.form = Form()
        self.ended = False
        self._parts = self._text_bytes = 0
        self._stream: IO[bytes] | None = None

    def callbacks(self) -> Any:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        return {
            **{f"on_{name}": getattr(self, f"_{name}") for name in names},
            "on_headers_finished": self._headers_finished,
        }

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ApiError(TOO_LARGE, f"the form has too many parts; allowed: {_MOST_PARTS}")
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._head = b""
        self._stream = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace").removesuffix("[]")
        filename = options.get(b"filename")
        self._filename = None if filename is None else shown_name(filename.decode("utf-8", "replace"))
        if self._filename is None:
            return
        if self._name not in ALLOWED:
            shown = shown_name(self._name)
            raise ApiError(BAD_REQUEST, f"{shown} takes no file; allowed: {', '.join(ALLOWED)}", shown)
        most = self._limits.files if self._name == "slides" else 1
        if len(self.form.uploads(self._name)) >= most:
            raise ApiError(TOO_LARGE, f"too many files for {self._name}; allowed: {most}", self._name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        part = data[start:end]
        if self._stream is not None:
            self._stream.write(part)
            return
        self._head += part
        if self._filename is None:
            self._text_bytes += len(part)
            if self._text_bytes > self._limits.field_bytes:
                raise ApiError(TOO_LARGE, f"the texts are too long; allowed: {self._limits.field_bytes >> 20} MiB")
        elif len(self._head) >= HEAD:
            self._open()

    def _open(self) -> None:
        assert self._filename is not None
        upload = place_upload(self._folder, self._parts, self._name, self._filename, self._head)
        self.form.files.setdefault(self._name, []).append(upload)
        self._stream = Path(upload.path).open("ab")  # noqa: SIM115 - closed when the part ends

    def _part_end(self) -> None:
        if self._filename is None:
            try:
                text = self._head.decode("utf-8")
            except UnicodeDecodeError:
                raise ApiError(BAD_REQUEST, f"{shown_name(self._name)} is not UTF-8 text") from None
            self.form.texts.setdefault(self._name, []).append(text)
            return
        if self._stream is None:
            self._open()
        self.close()

    def _end(self) -> None:
        self.ended = True
