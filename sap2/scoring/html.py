"""The HTML report: one self-contained page, made from a template and the results as JSON.

The page shows texts that come from models and slides. They go into it as JSON in which no character can end the script
element, and the page's own script puts them on screen as text, never as markup.
"""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from sap2.files import atomic_write
from sap2.scoring.align import BIASED, DELS, INS, SUBS
from sap2.scoring.definitions import Scores
from sap2.scoring.figures import FIGURES, LABELS
from sap2.scoring.output import Report

TEMPLATE = Path(__file__).with_name("report.html")
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def write_html(path: str | os.PathLike[str], scores: Scores, report: Report) -> None:
    """Write the report, whole or not at all."""
    page = TEMPLATE.read_text(encoding="utf-8")
    title = "Contextual ASR: " + ", ".join(report.systems)
    before, after = page.split("@@DATA@@")
    with atomic_write(path) as stream:
        stream.write(before.replace("@@TITLE@@", escape(title)))
        stream.write(script_json(page_data(scores, report)))
        stream.write(after)


def script_json(data: Any) -> str:
    """JSON that is safe inside a script element: ASCII only, and without the characters of markup."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return text


def page_data(scores: Scores, report: Report) -> dict[str, Any]:
    """What the page's script reads."""
    remarks = [
        *(f"{len(ids)} joint replies of {name} have no transcription and count as empty: {', '.join(ids[:20])}"
          for name, ids in report.unparsed.items() if ids),
        *report.notes,
        *report.problems.lines(20),
    ]  # fmt: skip
    return {
        "about": f"{report.utterances} utterances · definition {report.definition} · normalisation {report.normalize}",
        "remarks": remarks,
        "names": list(report.systems),
        "systems": list(report.systems.values()),
        "sessions": [[name, list(systems.values())] for name, systems in report.sessions.items()],
        "figures": {figure: LABELS[figure] for figure in FIGURES},
        "comparisons": [comparison._asdict() for comparison in report.comparisons],
        "bootstrap": report.bootstrap,
        "utterances": [_utterance(scores, index) for index in range(len(scores.utterances))],
    }


def _utterance(scores: Scores, index: int) -> list[Any]:
    """``[id, session, reference, biased flags, listed flags, biased words, systems]``.

    The last is a list of :func:`_system`. Words are joined by spaces; flags are texts of 0 and 1, one for each word.
    """
    utterance = scores.utterances[index]
    words = slice(scores.refs.offsets[index], scores.refs.offsets[index + 1])
    return [
        utterance.id,
        utterance.session or "",
        _text(scores, scores.refs.ids[words]),
        _digits(scores.ref_biased[words]),
        _digits(scores.ref_listed[words]),
        int(scores.ref_biased[words].sum()),
        [_system(scores, name, index) for name in scores.systems],
    ]


def _system(scores: Scores, name: str, index: int) -> list[Any]:
    """``[hypothesis, listed flags, operations, errors, biased errors]`` of one system."""
    system = scores.systems[name]
    words = slice(system.hyps.offsets[index], system.hyps.offsets[index + 1])
    errors = system.errors[index][:, [SUBS, INS, DELS]].sum(axis=1)
    return [
        _text(scores, system.hyps.ids[words]),
        _digits(system.hyp_listed[words]),
        _digits(system.alignments.of(index)),
        int(errors.sum()),
        int(errors[BIASED]),
    ]


def _text(scores: Scores, ids: np.ndarray) -> str:
    return " ".join([scores.vocabulary[number] for number in ids.tolist()])


def _digits(values: np.ndarray) -> str:
    """Numbers below ten as one text, a digit each."""
    return (values.astype(np.uint8) + ord("0")).tobytes().decode()
