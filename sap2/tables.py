"""Tables of corpora, one entry a line: Kaldi's (an id and the rest), LibriSpeech's biasing lists (with tabs), and times
of words (CTM).

A byte order mark, CRLF line ends and tabs are taken for what they stand for; a missing field and text that is not UTF-8
are refused, with file and line. The ``iter_`` functions give every line as it comes, for a reader that collects what
does not fit; the ``read_`` functions also refuse repeated ids and those that cannot name a file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sap2.errors import InputError

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\r\n"
DIVIDERS = ("$", "\t", ";", "；", "、", "，", ",")
"""What stands between the keywords of a line, the surest first; SlideSpeech's own is ``$``. Not ``|``: it is in special
tokens, and stands between a term and its aliases."""
_MAX_WORDS = 4  # of one keyword that nothing divides; more are several, or a sentence
_COUNTED = re.compile(r"(.*\S)[ ]*\t[ ]*[\d.,]+")


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


class TimedWord(NamedTuple):
    """A word of a recording, and when it is said: seconds."""

    text: str
    start: float
    end: float

    def later(self, seconds: float) -> TimedWord:
        """The word in a recording in which its part begins at that time."""
        return self._replace(start=self.start + seconds, end=self.end + seconds)


@dataclasses.dataclass(frozen=True)
class BiasingEntry:
    """One line of a biasing list: transcript, its rare words, and the list that holds them and the distractors (None
    where the line has no fourth column)."""

    where: str
    id: str
    text: str
    rare: list[str]
    words: list[str] | None


def read_lines(path: str | os.PathLike[str], strip: bool = True) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, with their place; only ``\\n`` ends a line. Without ``strip``, blanks at the ends stay.

    Raises:
        InputError: a line is not UTF-8.
    """
    with Path(path).open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            where = f"{path}:{number}"
            try:
                line = (raw.removeprefix(_BOM) if number == 1 else raw).decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 text: {error}") from None
            if line.strip(_BLANK):
                yield where, line.strip(_BLANK) if strip else line.rstrip("\r\n")


def iter_table(path: str | os.PathLike[str]) -> Iterator[tuple[str, Entry]]:
    """Ids and entries, line by line, as they stand: an id may come again.

    Raises:
        InputError: a line is not UTF-8.
    """
    for where, line in read_lines(path):
        name, *rest = re.split(r"[ \t]+", line, maxsplit=1)
        yield name, Entry(where, rest[0] if rest else "")


def read_table(path: str | os.PathLike[str], required: bool = False) -> dict[str, Entry]:
    """Entries by id.

    Args:
        path: the table.
        required: whether a line with nothing after its id is refused.

    Raises:
        InputError: an id occurs twice or cannot name a file, or a required value is missing.
    """
    table: dict[str, Entry] = {}
    for name, entry in iter_table(path):
        check_id(name, entry.where)
        if name in table:
            raise InputError(f"{entry.where}: {name!r} occurs a second time, first at {table[name].where}")
        if required and not entry.value:
            raise InputError(f"{entry.where}: nothing after {name!r}; a line is an id and a value")
        table[name] = entry
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


def read_ctm(path: str | os.PathLike[str]) -> dict[str, list[TimedWord]]:
    """The words of each recording in the order of time, from lines ``recording channel start length word``.

    What follows the word is left out, and lines that begin with ``;;`` too.

    Raises:
        InputError: a line does not hold these five fields, or no times.
    """
    words: dict[str, list[TimedWord]] = {}
    for where, line in read_lines(path):
        if line.startswith(";;"):
            continue
        fields = line.split()
        if len(fields) < 5:
            raise InputError(f"{where}: {len(fields)} fields; a line of a CTM is: recording channel start length word")
        start, length = (_seconds(field, where) for field in fields[2:4])
        words.setdefault(fields[0], []).append(TimedWord(fields[4], start, start + length))
    return {name: sorted(said, key=lambda word: word.start) for name, said in words.items()}


def read_keywords(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The keywords of each utterance, from lines ``utterance A$B$C``; none where nothing follows the id.

    Raises:
        InputError: it cannot be told what divides the keywords.
    """
    return split_keywords({name: entry.value for name, entry in read_table(path).items()}, str(path))


def split_keywords(values: Mapping[str, str], where: str) -> dict[str, list[str]]:
    """The keywords in each of ``values``, divided by what divides them in all of them (:data:`DIVIDERS`); one may have
    several words.

    Raises:
        InputError: nothing divides the words of a value, and they are too many for one keyword.
    """
    divider = find_divider(values.values())
    if divider is None:
        unclear = next((name for name, value in values.items() if len(value.split()) > _MAX_WORDS), None)
        if unclear is not None:
            raise InputError(f"{where}: nothing divides the keywords of {unclear!r}; allowed: $ between them")
    return {name: _parts(value, divider) for name, value in values.items()}


def _parts(value: str, divider: str | None) -> list[str]:
    parts = [value] if divider is None else value.split(divider)
    return [part.strip() for part in parts if part.strip()]


def find_divider(lines: Iterable[str]) -> str | None:
    """What divides the keywords of these lines: the first of :data:`DIVIDERS` that at least half of the lines of
    several words have (a ``$`` in any line is enough: no keyword holds one)."""
    several = [line for line in lines if len(line.split()) > 1 or any(divider in line for divider in DIVIDERS)]
    for divider in DIVIDERS:
        count = sum(divider in line for line in several)
        if count and (divider == "$" or 2 * count >= len(several)):
            return divider
    return None


class KeywordList(NamedTuple):
    """The keywords of a file, and what divides them (None: the ends of lines)."""

    keywords: list[str]
    divider: str | None


def read_keyword_list(path: str | os.PathLike[str]) -> KeywordList:
    """A list of keywords for people: one a line, or several with commas, semicolons, ``$`` or tabs between.

    A count after a tab is passed over. Line ends may be of any system, the text UTF-8, or UTF-16 with its mark.

    Raises:
        InputError: the file is empty, no text, or one line of words that nothing divides.
    """
    lines = [line.strip(_BLANK) for line in read_text(path).splitlines() if line.strip(_BLANK)]
    if not lines:
        raise InputError(f"{path}: no keyword in this file; allowed: a keyword a line, or commas between")
    counted = [_COUNTED.fullmatch(line) for line in lines]
    if all(counted):
        return KeywordList([match[1] for match in counted if match], None)
    divider = find_divider(lines)
    if divider is None and len(lines) == 1 and len(lines[0].split()) > _MAX_WORDS:
        count = len(lines[0].split())
        raise InputError(f"{path}: one line of {count} words; allowed: a keyword a line, or commas between")
    return KeywordList([part for line in lines for part in _parts(line, divider)], divider)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file with ``\\n`` as its line ends: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        InputError: it is neither.
    """
    data = Path(path).read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def iter_biasing(path: str | os.PathLike[str]) -> Iterator[BiasingEntry]:
    """The lines of a biasing list: id, text, JSON list of its rare words, JSON list of all words (may be missing).

    Source: https://github.com/facebookresearch/fbai-speech/tree/main/is21_deep_bias.

    Raises:
        InputError: a line has fewer columns, or a list is no JSON list of texts.
    """
    for where, line in read_lines(path, strip=False):
        columns = line.split("\t")
        if len(columns) < 3:
            raise InputError(
                f"{where}: {len(columns)} columns; a line is: id, text, rare words, list, with tabs between"
            )
        rare, *listed = [_json_words(column, f"{where}: column {i}") for i, column in enumerate(columns[2:4], 3)]
        yield BiasingEntry(where, columns[0].strip(), columns[1], rare, listed[0] if listed else None)


def _json_words(column: str, where: str) -> list[str]:
    try:
        words = json.loads(column)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: {column[:80]!r} is not a JSON list of words: {error}") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: {column[:80]!r} is not a JSON list of words")
    return words


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
