"""Stage one's result and the stage-two rows to stage-two rows with the predicted keywords.

A prediction belongs to the row with its id; where `swift infer` dropped the ids, to the row with its audio. Nothing is
joined by order. Predicted keywords that are not in the row's list are counted and dropped (--keep-unknown keeps them).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sap2.commands.shared import add_output, check_output, print_report
from sap2.errors import InputError, list_some
from sap2.progress import progress
from sap2.prompts import ASR_PROMPT, PLAIN_ASR_PROMPT, asr_prompt, format_context, parse_prune_reply
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import RESULTS_ARE_ADDED, Row, as_messages, find_contexts, row_audios, row_keywords
from sap2.text import WAYS, clean_keywords, match_listed

_TAKEN, _REPLY, _PICKED = "", "=", "+"
"""What is left of a prediction that is used up, and the marks before a reply and before picked keywords."""


@dataclasses.dataclass
class ExtractReport:
    """Counts of one run.

    Attributes:
        rows: rows written.
        keywords: keywords in their contexts.
        unlisted: predicted keywords that are not in the row's list.
        missing: rows without a prediction (written with an empty context).
        unknown: predictions that belong to no row.
        duplicates: predictions after the first for the same row.
        ways: predictions that were found in the list, by how (:data:`sap2.text.WAYS`).
    """

    rows: int = 0
    keywords: int = 0
    unlisted: int = 0
    missing: int = 0
    unknown: int = 0
    duplicates: int = 0
    ways: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(WAYS, 0))

    def __str__(self) -> str:
        mean = self.keywords / self.rows if self.rows else 0.0
        return (
            f"{self.rows} rows, {mean:.1f} keywords a row; predicted but not in the list: {self.unlisted}; "
            f"rows without a prediction: {self.missing}; predictions without a row: {self.unknown}; "
            f"repeated predictions: {self.duplicates}"
            + "".join(f"; found {way}: {count}" for way, count in self.ways.items() if count and way != WAYS[0])
        )


class Predictions:
    """The replies of a stage-one ``result.jsonl``, looked up by row id, or by audio where the results have no ids.

    Args:
        path: results of ``swift infer`` (``response``, ``audios``, and ``id`` where it was kept), or of
            ``sap2 pipeline`` (``picked_keywords``, which are taken as they are).
        lenient: count what is missing, unknown or repeated instead of refusing it.
        keep_unknown: keep predicted keywords that are not in the row's list, after the others.

    Raises:
        InputError: a result has no reply or nothing to be joined by, or (unless lenient) one occurs twice.
    """

    def __init__(self, path: str | os.PathLike[str], *, lenient: bool = False, keep_unknown: bool = False) -> None:
        self.path = Path(path)
        self.lenient = lenient
        self.keep_unknown = keep_unknown
        self.report = ExtractReport()
        self._missing: list[str] = []
        self._with_ids = all(_has_id(row) for _, row in read_rows(path))
        self._replies: dict[str, str] = {}
        self._ids_by_audio: dict[str, set[str]] | None = None
        repeated = []
        for number, row in progress(read_rows(path), "reading predictions"):
            key, reply = self._result(row, f"{path}:{number}")
            if key in self._replies:
                repeated.append(key)
            else:
                self._replies[key] = reply
        self.report.duplicates = len(repeated)
        if repeated and not lenient:
            what = "id" if self._with_ids else "audio (the results have no ids, so they are joined by audio)"
            said = f"{path}: more than one prediction for the same {what}: {list_some(repeated)}"
            raise InputError(f"{said}; {RESULTS_ARE_ADDED}")

    def _result(self, row: Row, where: str) -> tuple[str, str]:
        """What to join a result by, and its reply or picked keywords behind a mark that says which."""
        reply, picked = row.get("response"), row.get("picked_keywords")
        if picked is not None:
            if not isinstance(picked, list) or not all(isinstance(keyword, str) for keyword in picked):
                raise InputError(f"{where}: picked_keywords must be a list of texts, not {picked!r:.80}")
            reply = _PICKED + json.dumps(picked, ensure_ascii=False)
        elif isinstance(reply, str):
            reply = _REPLY + reply
        else:
            raise InputError(f"{where}: response must be the text of a reply, not {reply!r:.80}")
        if self._with_ids:
            return str(row["id"]), reply
        audios = row_audios(row)
        if not audios:
            raise InputError(f"{where}: neither an id nor an audio to join this result by")
        return audios[0], reply

    def keywords_of(self, row_id: str | None, audio: str | None, keywords: list[str]) -> list[str]:
        """The predicted keywords of one row: what a pruner picked, as it ranked them, or what a reply names of the
        row's list, in the list's order.

        Raises:
            InputError: a second row asks for the same prediction.
        """
        key = audio
        if self._with_ids:
            key = row_id if row_id is not None else self._id_by_audio(audio)
        reply = self._replies.get(key)
        if reply is None:
            self._missing.append(str(key or audio))
            self.report.rows += 1
            return []
        if reply == _TAKEN:
            hint = "" if self._with_ids else ": without ids in the results, this audio is ambiguous"
            raise InputError(f"{'id' if self._with_ids else 'audio'} {key!r} occurs in more than one row{hint}")
        self._replies[key] = _TAKEN
        if reply.startswith(_PICKED):
            picked = clean_keywords(json.loads(reply[len(_PICKED) :]))
            self.report.rows += 1
            self.report.keywords += len(picked)
            return picked
        return self._choose(parse_prune_reply(reply[len(_REPLY) :]), keywords)

    def _id_by_audio(self, audio: str | None) -> str | None:
        """The id of the prediction with that audio, for a row that has no id itself."""
        if self._ids_by_audio is None:
            self._ids_by_audio = {}
            for _, row in read_rows(self.path):
                for path in row_audios(row)[:1]:
                    self._ids_by_audio.setdefault(path, set()).add(str(row["id"]))
        ids = sorted(self._ids_by_audio.get(audio, ()))
        if len(ids) > 1:
            raise InputError(f"the row has no id, and its audio {audio!r} is ambiguous: predictions {list_some(ids)}")
        return ids[0] if ids else None

    def _choose(self, predicted: list[str], keywords: list[str]) -> list[str]:
        chosen, unlisted, ways = match_listed(predicted, keywords)
        for way, count in ways.items():
            self.report.ways[way] += count
        if self.keep_unknown:
            chosen = clean_keywords([*chosen, *unlisted])
        self.report.unlisted += len(unlisted)
        self.report.rows += 1
        self.report.keywords += len(chosen)
        return chosen

    def finish(self) -> ExtractReport:
        """Count what was never joined.

        Raises:
            InputError: rows without a prediction or predictions without a row, with their ids, unless lenient.
        """
        unknown = [key for key, reply in self._replies.items() if reply != _TAKEN]
        self.report.missing, self.report.unknown = len(self._missing), len(unknown)
        problems = []
        if self._missing:
            problems.append(f"{len(self._missing)} rows have no prediction: {list_some(self._missing)}")
        if unknown:
            problems.append(f"{len(unknown)} predictions belong to no row: {list_some(unknown)}")
        if problems and not self.lenient:
            raise InputError(f"{self.path}: {'; '.join(problems)} (--lenient counts them)")
        return self.report


def _has_id(row: Row) -> bool:
    return row.get("id") not in (None, "")


def replace_keywords(row: Row, keywords: list[str], where: str) -> Row:
    """The row with other keywords in its context; with none left, in the plain prompt.

    Raises:
        InputError: the row has no context, or more than one.
    """
    turns = [(index, turn) for index, turn in enumerate(row.get("messages") or []) if turn.get("role") == "user"]
    found = [(index, turn["content"], context) for index, turn in turns for context in find_contexts(turn["content"])]
    if len(found) != 1:
        raise InputError(f"{where}: {len(found)} contexts in the row; exactly one can take the predicted keywords")
    index, content, context = found[0]
    before, after = content[: context.start], content[context.end :]
    for prompt in (ASR_PROMPT, PLAIN_ASR_PROMPT):
        head = prompt.partition("{context}")[0]
        if before.endswith(head):
            content = before.removesuffix(head) + asr_prompt(keywords) + after
            break
    else:  # a prompt of the user's own stays as it is
        content = before + format_context(keywords) + after
    messages = list(row["messages"])
    messages[index] = {**messages[index], "content": content}
    return {**row, "messages": messages}


def extract_predicted_keywords(
    predictions: str | os.PathLike[str],
    rows: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str | None = None,
    lenient: bool = False,
    keep_unknown: bool = False,
) -> ExtractReport:
    """Write the stage-two ``rows`` with the keywords that stage one chose.

    Raises:
        InputError: bad input, or (unless lenient) rows and predictions that do not belong together, with their ids.
    """
    table = Predictions(predictions, lenient=lenient, keep_unknown=keep_unknown)
    write_rows(output, _rewrite(read_rows(rows), table, str(rows)), format)
    return table.report


def _rewrite(rows: Iterable[tuple[int, Row]], table: Predictions, path: str) -> Iterator[Row]:
    for number, row in progress(rows, "rewriting"):
        where, row = f"{path}:{number}", as_messages(row)
        audios = row_audios(row)
        try:
            row_id = str(row["id"]) if _has_id(row) else None
            keywords = table.keywords_of(row_id, audios[0] if audios else None, clean_keywords(row_keywords(row)))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        yield replace_keywords(row, keywords, where)
    table.finish()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("predictions", metavar="RESULT", help="result.jsonl of stage one, as `swift infer` writes it")
    parser.add_argument("rows", metavar="ROWS", help="stage-two rows with the whole lists (build_asr --keywords all)")
    add_output(parser, "stage-two rows with the predicted keywords")
    parser.add_argument(
        "--lenient", action="store_true", help="count missing, unknown and repeated ids, do not refuse them"
    )
    parser.add_argument("--keep-unknown", action="store_true", help="keep predicted keywords that are not in the list")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = extract_predicted_keywords(
        args.predictions,
        args.rows,
        args.output,
        format=args.format,
        lenient=args.lenient,
        keep_unknown=args.keep_unknown,
    )
    print_report(f"{args.output}: {report}", args.output)
