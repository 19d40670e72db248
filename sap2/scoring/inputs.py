"""Readers of the scorer: results of ``swift infer``, Kaldi style files, and LibriSpeech's biasing lists.

All three become one :class:`TestSet`. Everything is joined by utterance id, and what does not fit together is
recorded as a problem with its ids, never dropped in silence.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sap2.errors import InputError, list_some
from sap2.prompts import JOINT_REPLY, parse_joint_reply
from sap2.rowfiles import read_rows
from sap2.rows import RESULTS_ARE_ADDED, Row, row_audios, row_id, row_keywords
from sap2.tables import BiasingEntry, iter_biasing, iter_table, read_lines, split_keywords

ROW_SUFFIXES = (".jsonl", ".json", ".parquet")
_AUDIO_SUFFIX = re.compile(
    r"\.(wav|flac|mp3|m4a|aac|ogg|oga|opus|wma|sph|aiff?|amr|webm|mp4|mkv|mov|avi|pcm|npy)$", re.I
)
_LISTED = 50
_JOINT_START = JOINT_REPLY.partition("{")[0].strip()


@dataclass
class Utterance:
    """One utterance of the test set.

    ``keywords`` is the list that was offered; ``rare`` the biased words where the reference file names them itself
    (third column of a biasing list), else None; ``audio`` its file, where the rows name it.
    """

    id: str
    ref: str
    keywords: list[str] = field(default_factory=list)
    rare: list[str] | None = None
    session: str | None = None
    audio: str | None = None


@dataclass
class Problems:
    """What kept utterances from being scored, as kind → ids, in the order in which it was found."""

    ids: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, ids: Iterable[str]) -> None:
        """Record ids under a kind; nothing happens without ids."""
        ids = list(ids)
        if ids:
            self.ids.setdefault(kind, []).extend(ids)

    def __bool__(self) -> bool:
        return bool(self.ids)

    def refusal(self) -> str:
        """The text of the error where nothing may be left out."""
        return "not everything can be scored (--lenient scores the rest): " + "; ".join(self.lines())

    def lines(self, limit: int = _LISTED) -> list[str]:
        """One line for each kind: how many, and the ids (``limit`` of them), safe to print."""
        lines = []
        for kind, ids in self.ids.items():
            lines.append(f"{kind}: {len(ids)}: {list_some(list(map(printable, ids)), limit)}")
        return lines


@dataclass
class TestSet:
    """References and the hypotheses of each system, ``hyps[name][utterance id]``.

    ``unparsed[name]`` are the ids of joint replies that have no transcription and count as empty hypotheses;
    ``picks[name]`` the keywords that stage one picked, by id, and ``sure[name]`` the probabilities of the words, where
    the rows hold them; ``notes`` are lines for the
    reader of the report.
    """

    __test__ = False  # not a test class of pytest

    utterances: list[Utterance]
    hyps: dict[str, dict[str, str]]
    problems: Problems = field(default_factory=Problems)
    unparsed: dict[str, list[str]] = field(default_factory=dict)
    picks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    sure: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control and other unprintable characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def file_stem(utterance_id: str) -> str:
    """The name of an audio path without folders and audio suffix; an id that is no path stays as it is."""
    return _AUDIO_SUFFIX.sub("", PurePosixPath(utterance_id.replace("\\", "/")).name)


def match_ids(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Which available id belongs to which wanted one: the same text, else the same file stem where that is unambiguous.

    >>> match_ids(["/data/a.wav", "b"], ["a", "b"])
    {'/data/a.wav': 'a', 'b': 'b'}
    """
    wanted, available = list(wanted), dict.fromkeys(available)
    matches = {key: key for key in wanted if key in available}
    left = [key for key in wanted if key not in matches]
    if not left:
        return matches
    stems = _by_stem(key for key in available if key not in matches)
    asking = Counter(map(file_stem, left))
    for key in left:
        stem = file_stem(key)
        if asking[stem] == 1 and len(stems.get(stem, ())) == 1:
            matches[key] = stems[stem][0]
    return matches


def _by_stem(ids: Iterable[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for key in ids:
        stems.setdefault(file_stem(key), []).append(key)
    return stems


def collect(pairs: Iterable[tuple[str, Any]], source: str, problems: Problems) -> dict[str, Any]:
    """A dictionary of the pairs; repeated ids are a problem, and the last one stands."""
    table: dict[str, Any] = {}
    repeated: dict[str, None] = {}
    for key, value in pairs:
        if key in table:
            repeated[key] = None
        table[key] = value
    problems.add(f"repeated id in {source}", repeated)
    return table


def read_kaldi(path: str | os.PathLike[str], problems: Problems) -> dict[str, str]:
    """A Kaldi style file: utterance id, white space, the rest of the line (may be empty)."""
    return collect(((name, entry.value) for name, entry in iter_table(path)), str(path), problems)


def read_keyword_file(path: str | os.PathLike[str], problems: Problems) -> dict[str, list[str]]:
    """A keyword file as SlideSpeech has it: ``utt A$B$C``; see :func:`sap2.tables.split_keywords`."""
    return split_keywords(read_kaldi(path, problems), str(path))


def read_biasing_list(path: str | os.PathLike[str], problems: Problems) -> list[Utterance]:
    """LibriSpeech's biasing list (:func:`sap2.tables.iter_biasing`); without a fourth column the rare words alone.

    Raises:
        InputError: a line has fewer than three columns, or a list column is no JSON list of texts.
    """

    def utterance(entry: BiasingEntry) -> Utterance:
        keywords = list(dict.fromkeys([*(entry.words or []), *entry.rare]))
        return Utterance(entry.id, entry.text, keywords, entry.rare)

    rows = ((entry.id, utterance(entry)) for entry in iter_biasing(path))
    return list(collect(rows, str(path), problems).values())


def read_tsv_hyps(path: str | os.PathLike[str], problems: Problems) -> dict[str, str]:
    """Hypotheses as id, tab, text; the text may be missing or empty, and further columns are not read."""
    columns = (line.split("\t") for _, line in read_lines(path, strip=False))
    return collect(((row[0].strip(), row[1] if len(row) > 1 else "") for row in columns), str(path), problems)


@dataclass
class ResultRow:
    """What the scorer takes from one row of a result file.

    ``picked`` are the keywords of stage one, where the row holds them, and ``ranked`` those with a probability, the
    likeliest first; ``parsed`` is False for a joint reply without transcript; ``sure`` is the probability of each word
    of the reply (``sap2 pipeline --words``), where the row has them; ``prune_ref`` is the label of stage one, where the
    row keeps one beside its own.
    """

    id: str
    hyp: str | None
    ref: str | None
    keywords: list[str]
    session: str | None
    audio: str | None = None
    picked: list[str] | None = None
    ranked: list[str] | None = None
    parsed: bool = True
    sure: list[float | None] | None = None
    prune_ref: str | None = None


def read_results(path: str | os.PathLike[str], problems: Problems, reply: str = "auto") -> dict[str, ResultRow]:
    """Rows of a ``swift infer`` result, by id; rows may come in any order and from several ranks.

    Args:
        reply: ``joint``: labels and responses are joint replies (``Transcription: …``); ``plain``: they are
            transcripts; ``auto``: joint where the label is one, and for all rows where most responses are.

    Raises:
        InputError: a row has neither id nor audio, a response or label that is no text, or a broken context.
    """
    rows = [_result_row(row, f"{path}:{number}") for number, row in read_rows(path)]
    joint = reply == "joint" or (reply == "auto" and 2 * sum(is_joint(row.hyp) for row in rows) > len(rows))
    for row in rows:
        if joint or (reply == "auto" and is_joint(row.ref)):
            _parse_joint(row)
    return collect(((row.id, row) for row in rows), f"{path} ({RESULTS_ARE_ADDED})", problems)


def is_joint(text: str | None) -> bool:
    """Whether a text has the form of a joint reply: keywords first, then the transcription."""
    return text is not None and text.lstrip().startswith((_JOINT_START, "Transcription:"))


def _parse_joint(row: ResultRow) -> None:
    if row.hyp is not None:
        reply = parse_joint_reply(row.hyp)
        row.parsed = reply is not None
        row.hyp = reply.transcript if reply else ""
    if row.ref is not None and is_joint(row.ref):
        label = parse_joint_reply(row.ref)
        row.ref = label.transcript if label else ""


def _result_row(row: Row, where: str) -> ResultRow:
    try:
        key = row_id(row)
        keywords = row_keywords(row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: {error or 'not a row'}") from None
    if not isinstance(key, str) or not key.strip():
        raise InputError(f"{where}: the row has neither an id nor an audio path to name it by")
    for name in ("response", "labels"):
        if not isinstance(row.get(name), str | None):
            raise InputError(f"{where}: {name} must be a text, not {str(row[name])[:80]!r}")
    session = row.get("session")
    return ResultRow(
        _encodable(key),
        _encodable(row.get("response")),
        _encodable(row.get("labels")),
        [_encodable(keyword) for keyword in keywords],
        None if session is None else _encodable(str(session)),
        next((_encodable(path) for path in row_audios(row) if isinstance(path, str)), None),
        _texts(row.get("picked_keywords")),
        _ranked(row.get("keyword_probabilities")),
        sure=_probabilities(row.get("words")),
        prune_ref=_encodable(label) if isinstance(label := row.get("prune_labels"), str) else None,
    )


def _probabilities(words: Any) -> list[float | None] | None:
    """The probabilities of a row's words; None where it has no words with them."""
    if not isinstance(words, list) or not all(isinstance(word, dict) for word in words):
        return None
    found = [word.get("probability") for word in words]
    numbers = [p if isinstance(p, int | float) and 0 <= p <= 1 else None for p in found]
    return None if all(p is None for p in numbers) else numbers


def _ranked(value: Any) -> list[str] | None:
    """The keys of an object of numbers, the greatest first; None for anything else or an empty one."""
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(number, int | float) for number in value.values())
    ):
        return None
    return [_encodable(keyword) for keyword in sorted(value, key=lambda keyword: -value[keyword])]


def _texts(value: Any) -> list[str] | None:
    """A list of texts; None for anything else."""
    is_list = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return [_encodable(text) for text in value] if is_list else None


def _encodable(text: str | None) -> str | None:
    """JSON can hold half a surrogate pair, which no output file can: it becomes the replacement character."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_hyps(
    path: str | os.PathLike[str], problems: Problems, read_text: Callable[..., dict[str, str]], reply: str
) -> tuple[dict[str, str], list[str]]:
    """Hypotheses by id, and the ids of joint replies that did not parse; a row file (.jsonl) or else ``read_text``."""
    if Path(path).suffix not in ROW_SUFFIXES:
        return read_text(path, problems), []
    rows = read_results(path, problems, reply)
    hyps = {key: row.hyp for key, row in rows.items() if row.hyp is not None}
    return hyps, [key for key, row in rows.items() if not row.parsed]
