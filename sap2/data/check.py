"""Every problem of row files at once, before a GPU is paid for.

Checks schema, delimiters, special tokens, audio and transcripts, counts keywords and (with --model) tokens before and
after compression. Exit code 1 if there are rows that training would refuse or skip.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from sap2.commands.shared import add_normalizer, count, positive
from sap2.data.building import add_char
from sap2.data.row_checks import (
    ERRORS,
    WARNINGS,
    AudioFacts,
    Problem,
    RowParts,
    audio_facts,
    audio_problems,
    schema_problems,
)
from sap2.data.token_counts import TokenCounter
from sap2.errors import InputError
from sap2.lengths import MAX_SECONDS
from sap2.progress import progress
from sap2.rowfiles import read_rows
from sap2.rows import Row, row_id
from sap2.shipped import find_checkpoint
from sap2.text import spoken_keywords

EXIT_BAD_ROWS = 1
_BATCH = 256  # rows whose audio is read side by side


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Options of :func:`check_file`.

    Attributes:
        model: folder with a tokenizer, to count tokens; None leaves them out.
        window: context tokens of one embedding; None takes the model's.
        min_positions: embeddings of a context at least; None takes the model's.
        max_length: positions that a row may take after compression; 0 allows all.
        read_audio: read every audio file.
        max_seconds: what the model hears; None takes the model's, or 30.
        normalizer, char: for counting spoken keywords.
        workers: audio files read side by side.
    """

    model: str | None = None
    window: int | None = None
    min_positions: int | None = None
    max_length: int = 0
    read_audio: bool = True
    max_seconds: float | None = None
    normalizer: str = "whisper-en"
    char: bool = False
    workers: int = 4


@dataclasses.dataclass
class Figures:
    """Least, mean and greatest of a number that every row has."""

    count: int = 0
    total: float = 0.0
    least: float = 0.0
    greatest: float = 0.0

    def add(self, value: float) -> None:
        """Take one more value in."""
        self.least = min(self.least, value) if self.count else value
        self.greatest = max(self.greatest, value) if self.count else value
        self.count += 1
        self.total += value

    def as_dict(self) -> dict[str, float]:
        """For the report; ``mean`` is 0 where there is nothing."""
        mean = self.total / self.count if self.count else 0.0
        return {"min": round(self.least, 3), "mean": round(mean, 3), "max": round(self.greatest, 3)}


@dataclasses.dataclass
class FileReport:
    """What was found in one file. ``problems`` holds (row, id, kind, message)."""

    path: str
    rows: int = 0
    skipped: int = 0
    for_decoding: int = 0
    without_keywords: int = 0
    without_spoken: int = 0
    problems: list[tuple[int, str | None, str, str]] = dataclasses.field(default_factory=list)
    figures: dict[str, Figures] = dataclasses.field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Take a value into the figures of that name."""
        self.figures.setdefault(name, Figures()).add(value)

    def note(self, number: int, name: str | None, problems: Iterable[Problem]) -> None:
        """Keep the problems of one row, and count it as skipped if one of them is an error."""
        problems = list(problems)
        self.problems += [(number, name, problem.kind, problem.message) for problem in problems]
        self.skipped += any(problem.kind in ERRORS for problem in problems)

    def as_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "rows": self.rows,
            "rows_that_would_be_skipped": self.skipped,
            "rows_for_decoding": self.for_decoding,
            "rows_without_keywords": self.without_keywords,
            "rows_without_a_spoken_keyword": self.without_spoken,
            "figures": {name: figures.as_dict() for name, figures in self.figures.items()},
            "counts": self.counts(),
            "problems": [
                {"row": number, "id": name, "kind": kind, "level": _level(kind), "message": message}
                for number, name, kind, message in self.problems
            ],
        }

    def counts(self) -> dict[str, int]:
        """Problems by kind, in the order of the kinds."""
        found = [kind for _, _, kind, _ in self.problems]
        return {kind: found.count(kind) for kind in (*ERRORS, *WARNINGS) if kind in set(found)}


def _level(kind: str) -> str:
    return "error" if kind in ERRORS else "warning"


def check_file(path: str | os.PathLike[str], options: CheckOptions | None = None) -> FileReport:
    """Check every row of a file.

    Raises:
        InputError: the model folder has no tokenizer.
    """
    options = options or CheckOptions()
    counter = TokenCounter(options.model, options.window, options.min_positions) if options.model else None
    model_seconds = counter.max_seconds if counter else MAX_SECONDS
    max_seconds = options.max_seconds if options.max_seconds is not None else model_seconds
    report, seen = FileReport(str(path)), set()

    def on_error(number: int, error: InputError) -> None:
        report.rows += 1
        report.note(number, None, [Problem("schema", str(error))])

    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        rows = progress(read_rows(path, on_error), f"checking {path}")
        for number, row, parts, problems, facts in _with_audio(rows, options, pool):
            report.rows += 1
            name = row_id(row) if parts else _plain_id(row)
            if row.get("id") is not None and name in seen:
                problems.append(Problem("duplicate-id", f"{name!r} is the id of an earlier row too"))
            seen.add(name)
            if parts:
                for audio, fact in zip(parts.audios, facts, strict=False):
                    problems += audio_problems(audio, fact, max_seconds)
                problems += _measure(parts, facts, counter, options, report)
            report.note(number, name, problems)
    if not report.rows:
        raise InputError(f"{path}: no row in this file; allowed: at least one")
    report.problems.sort(key=lambda problem: problem[0])  # those of unreadable lines came ahead of their batch
    return report


def _plain_id(row: Row) -> str | None:
    return str(row["id"]) if row.get("id") is not None else None


Checked = tuple[int, Row, RowParts | None, list[Problem], list[AudioFacts]]


def _with_audio(
    rows: Iterable[tuple[int, Row]], options: CheckOptions, pool: concurrent.futures.ThreadPoolExecutor
) -> Iterator[Checked]:
    """Rows taken apart, with the facts of their audio; files of one batch are read side by side."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _BATCH)):
        apart = [(number, row, *schema_problems(row)) for number, row in batch]
        paths = [parts.audios if parts and options.read_audio else [] for _, _, parts, _ in apart]
        facts = iter(list(pool.map(audio_facts, itertools.chain.from_iterable(paths))))
        for (number, row, parts, problems), own in zip(apart, paths, strict=True):
            yield number, row, parts, problems, list(itertools.islice(facts, len(own)))


def _measure(
    parts: RowParts,
    facts: list[AudioFacts],
    counter: TokenCounter | None,
    options: CheckOptions,
    report: FileReport,
) -> Iterator[Problem]:
    """Take the row into the figures; gives the problem of a row that is too long."""
    report.for_decoding += parts.reply is None
    report.add("keywords", len(parts.keywords))
    report.without_keywords += not parts.keywords
    if parts.reply is not None and parts.keywords:
        spoken = len(spoken_keywords(parts.keywords, parts.reply, options.normalizer, options.char))
        report.add("spoken keywords", spoken)
        report.without_spoken += not spoken
    for fact in facts:
        if not fact.problem:
            report.add("audio seconds", fact.seconds)
    if counter is None:
        return
    counts = counter.count(parts, [fact.seconds for fact in facts])
    report.add("context tokens", counts.context)
    report.add(f"context tokens, window {counter.window}", counts.pooled)
    report.add("row tokens", counts.before)
    report.add(f"row tokens, window {counter.window}", counts.after)
    if 0 < options.max_length < counts.after:
        yield Problem(
            "too-many-tokens", f"{counts.after} tokens after compression; --max-length is {options.max_length}"
        )


def format_report(report: FileReport, show: int = 20) -> str:
    """The report for people: figures, then ``show`` problems of each kind (0: all)."""
    lines = [
        f"{report.path}: {report.rows} rows, {report.skipped} would be skipped or refused, "
        f"{report.for_decoding} without a reply (for decoding)",
        f"  without keywords: {report.without_keywords}; with keywords, none spoken: {report.without_spoken}",
    ]
    for name, figures in report.figures.items():
        values = figures.as_dict()
        total = f", {figures.total / 3600:.2f} h in all" if name == "audio seconds" else ""
        lines.append(f"  {name + ':':28} min {values['min']:g}, mean {values['mean']:g}, max {values['max']:g}{total}")
    for kind, number in report.counts().items():
        lines.append(f"  {_level(kind)} {kind}: {number} ({ERRORS.get(kind) or WARNINGS[kind]})")
        found = [problem for problem in report.problems if problem[2] == kind]
        shown = found if not show else found[:show]
        lines += [f"    row {row}{f' ({name})' if name else ''}: {message}" for row, name, _, message in shown]
        if len(found) > len(shown):
            lines.append(f"    … and {len(found) - len(shown)} more (--show 0 shows all)")
    if not report.problems:
        lines.append("  no problems")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("files", nargs="+", metavar="FILE", help="rows: .jsonl, .json or .parquet")
    parser.add_argument("--model", metavar="DIR", help="model folder with tokenizer.json: count tokens")
    parser.add_argument(
        "--window", type=positive, metavar="W", help="context tokens of one embedding (default: the model's)"
    )
    parser.add_argument(
        "--min-positions", type=count, metavar="N", help="embeddings of a context at least (default: the model's)"
    )
    parser.add_argument("--max-length", type=count, default=0, metavar="N", help="as --max_length of swift sft")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="longest audio (default: the model's, or 30)")
    parser.add_argument("--no-audio", action="store_true", help="do not read the audio files")
    parser.add_argument("--show", type=count, default=20, metavar="N", help="problems of each kind shown; 0: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every problem")
    parser.add_argument(
        "--workers", type=positive, default=4, help="audio files read side by side (default: %(default)s)"
    )
    add_normalizer(parser)
    add_char(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; 1 where training would refuse or skip a row."""
    if args.model is None and (args.window or args.max_length or args.min_positions is not None):
        raise InputError("--window, --min-positions and --max-length count tokens, which needs --model DIR")
    options = CheckOptions(
        model=args.model and find_checkpoint(args.model),
        window=args.window,
        min_positions=args.min_positions,
        max_length=args.max_length,
        read_audio=not args.no_audio,
        max_seconds=args.max_seconds,
        normalizer=args.normalizer,
        char=args.char,
        workers=args.workers,
    )
    reports = [check_file(path, options) for path in args.files]
    if args.json:
        print(json.dumps({report.path: report.as_dict() for report in reports}, ensure_ascii=False, indent=2))
    else:
        print("\n".join(format_report(report, args.show) for report in reports))
    return EXIT_BAD_ROWS if any(report.skipped for report in reports) else 0
