"""What the scorer writes: the summary on the terminal, the JSON report and the table of utterances."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sap2.files import atomic_write
from sap2.scoring.align import BIASED, DELS, INS, REF_WORDS, SUBS, UNBIASED
from sap2.scoring.definitions import Scores
from sap2.scoring.figures import FIGURES, LABELS, WER_KINDS, Comparison, figures, sessions, totals
from sap2.scoring.inputs import Problems, printable

UNDEFINED = "n/a"
Figures = dict[str, dict[str, Any]]


@dataclass
class Report:
    """All results of one run, ready to be printed or written.

    ``files`` are those of each system, ``replies`` its texts by utterance as they were read, ``picks`` the keywords
    that its stage one picked, ``sure`` the probabilities of its words.
    """

    definition: str
    normalize: str
    char: bool
    utterances: int
    systems: dict[str, Figures]
    sessions: dict[str, dict[str, Figures]]
    comparisons: list[Comparison]
    bootstrap: dict[str, Any]
    unparsed: dict[str, list[str]]
    problems: Problems
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    replies: dict[str, dict[str, str]] = field(default_factory=dict)
    picks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    sure: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    title: str = ""


def session_figures(scores: Scores) -> dict[str, dict[str, Figures]]:
    """Figures of every session and system, ``[session][name]``."""
    return {
        session: {name: figures(totals(system, members)) for name, system in scores.systems.items()}
        for session, members in sessions(scores).items()
    }


def show(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number for people; ``n/a`` where it is undefined."""
    return UNDEFINED if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a table with aligned columns, the first ``left`` of them flush left."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def summary_lines(report: Report, by_session: bool = False) -> Iterator[str]:
    """The summary as lines of text."""
    yield (
        f"{report.utterances} utterances, definition {report.definition}, normalisation {report.normalize}"
        + (", scripts without spaces by character" if report.char else "")
    )
    yield ""
    yield from _figure_table(report.systems)
    if by_session:
        for session, systems in report.sessions.items():
            yield f"\nsession {printable(session)}"
            yield from _figure_table(systems)
    for comparison in report.comparisons:
        yield ""
        yield from _comparison_lines(comparison, report.bootstrap, by_session)
    yield from _remarks(report)


def _figure_table(systems: dict[str, Figures]) -> Iterator[str]:
    errors = [["system", "figure", "rate %", "ref words", "subs", "ins", "dels"]]
    keywords = [["system", "keywords", "recall %", "precision %", "F1 %", "tp", "fp", "fn", "tn"]]
    for name, result in systems.items():
        for kind in WER_KINDS:
            counts = result[kind]
            numbers = [str(counts[key]) for key in ("ref_words", "subs", "ins", "dels")]
            errors.append([printable(name), LABELS[kind], show(counts["error_rate"]), *numbers])
        counts = result["keywords"]
        rates = [show(counts[key]) for key in ("recall", "precision", "f1")]
        keywords.append([printable(name), "", *rates, *(str(counts[key]) for key in ("tp", "fp", "fn", "tn"))])
    yield from table(errors, left=2)
    yield ""
    yield from table([[row[0], *row[2:]] for row in keywords], left=1)


def _comparison_lines(comparison: Comparison, bootstrap: dict[str, Any], by_session: bool) -> Iterator[str]:
    yield (
        f"{printable(comparison.system)} against {printable(comparison.base)}"
        f" (paired bootstrap over utterances, {bootstrap['draws']} draws, seed {bootstrap['seed']})"
    )
    blocks = [("", comparison.figures)]
    if comparison.whole_sessions:
        blocks.append(("drawing whole sessions", comparison.whole_sessions))
    if by_session:
        blocks += [(f"session {printable(name)}", found) for name, found in comparison.sessions.items()]
    for title, found in blocks:
        if title:
            yield title
        yield from table(_comparison_rows(found), left=1)


def _comparison_rows(found: dict[str, dict[str, float | None]]) -> list[list[str]]:
    rows = [["figure", "from", "to", "change", "relative %", "95 % interval", "p"]]
    for figure in FIGURES:
        item = found[figure]
        interval = UNDEFINED
        if item["low"] is not None:
            interval = f"{show(item['low'], sign=True)} to {show(item['high'], sign=True)}"
        rows.append(
            [
                LABELS[figure],
                show(item["base"]),
                show(item["system"]),
                show(item["difference"], sign=True),
                show(item["relative"], 1, sign=True),
                interval,
                show(item["p"], 4),
            ]
        )
    return rows


def _remarks(report: Report) -> Iterator[str]:
    for name, ids in report.unparsed.items():
        if ids:
            lines = Problems({f"joint reply without transcription ({name}), counted as empty": ids}).lines()
            yield "\n" + lines[0]
    for note in report.notes:
        yield f"\nnote: {note}"
    if report.problems:
        yield "\nnot everything was scored as given:"
        yield from (f"  {line}" for line in report.problems.lines())


def report_json(report: Report) -> dict[str, Any]:
    """The JSON report (docs/evaluation.md describes every key)."""
    result: dict[str, Any] = {
        "systems": report.systems,
        "definition": report.definition,
        "normalize": report.normalize,
        "char": report.char,
        "utterances": report.utterances,
        "unparsed": report.unparsed,
        "problems": report.problems.ids,
        "notes": report.notes,
    }
    if report.sessions:
        result["sessions"] = report.sessions
    if report.comparisons:
        result["bootstrap"] = report.bootstrap
        result["comparisons"] = [comparison._asdict() for comparison in report.comparisons]
    return result


def write_json(path: str | os.PathLike[str], scores: Scores, report: Report) -> None:
    """Write the JSON report, whole or not at all."""
    with atomic_write(path) as stream:
        json.dump(report_json(report), stream, ensure_ascii=False, indent=1)
        stream.write("\n")


TSV_COLUMNS = (
    *("id", "session", "system"),
    *("ref_words", "subs", "ins", "dels", "wer"),
    *("u_ref_words", "u_subs", "u_ins", "u_dels", "b_ref_words", "b_subs", "b_ins", "b_dels"),
    *("tp", "fp", "fn", "tn"),
    *("ref", "hyp"),
)


def write_tsv(path: str | os.PathLike[str], scores: Scores, report: Report) -> None:
    """One line for each utterance and system: counts, and the words that were compared."""
    with atomic_write(path) as stream:
        stream.write("\t".join(TSV_COLUMNS) + "\n")
        for index, utterance in enumerate(scores.utterances):
            ref = _text(scores, scores.refs.of(index))
            for name, system in scores.systems.items():
                unbiased, biased = system.errors[index, UNBIASED], system.errors[index, BIASED]
                both = unbiased + biased
                wrong, words = int(both[[SUBS, INS, DELS]].sum()), int(both[REF_WORDS])
                rate = show(100.0 * wrong / words if words else None)
                cells = [utterance.id, utterance.session or "", name, *both, rate, *unbiased, *biased]
                cells += [*system.keywords[index], ref, _text(scores, system.hyps.of(index))]
                stream.write("\t".join(printable(str(cell)) for cell in cells) + "\n")


def _text(scores: Scores, ids: np.ndarray) -> str:
    return " ".join([scores.vocabulary[number] for number in ids.tolist()])
