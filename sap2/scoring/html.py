"""The HTML report: one self-contained page (:mod:`sap2.pages`)."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sap2 import __version__
from sap2.pages import write_page
from sap2.scoring.align import BIASED, DELS, INS, SUBS
from sap2.scoring.definitions import Scores
from sap2.scoring.figures import FIGURES, LABELS
from sap2.scoring.output import Report
from sap2.text import split_words

UNSURE = 0.6
"""A word of a smaller probability is framed on request."""
PAGE = Path(__file__).with_name("report.html")
"""Its style and script are in the files of the same name, and go into the page."""


def write_html(path: str | os.PathLike[str], scores: Scores, report: Report) -> None:
    """Write the report, whole or not at all. Audio is played from where it lies, named as seen from the page."""
    data = page_data(scores, report, Path(path).absolute().parent)
    write_page(path, PAGE, data["title"], data)


def page_data(scores: Scores, report: Report, folder: Path | None = None) -> dict[str, Any]:
    """What the page's script reads; ``folder`` is where the page will lie."""
    unparsed = [
        f"{len(ids)} joint replies of {name} have no transcription and count as empty: {', '.join(ids[:20])}"
        for name, ids in report.unparsed.items()
        if ids
    ]
    lists = _Lists()
    return {
        "title": report.title or "Contextual ASR: " + ", ".join(report.systems),
        "about": f"{report.utterances} utterances · definition {report.definition} · normalisation {report.normalize}",
        "made": f"{date.today().isoformat()}, sap2 {__version__}",
        "files": [[name, path, _model_of(path)] for name, path in report.files.items()],
        "notes": report.notes,
        "problems": unparsed + report.problems.lines(20),
        "names": list(report.systems),
        "systems": list(report.systems.values()),
        "sessions": [[name, list(systems.values())] for name, systems in report.sessions.items()],
        "figures": {figure: LABELS[figure] for figure in FIGURES},
        "comparisons": [comparison._asdict() for comparison in report.comparisons],
        "bootstrap": report.bootstrap,
        "utterances": [_utterance(scores, report, index, lists, folder) for index in range(len(scores.utterances))],
        "lists": lists.texts,
    }


def _model_of(path: str) -> str:
    """The model and adapters that made a result file of ``sap2 pipeline``; empty where it does not say."""
    file = Path(path)
    try:
        settings = json.loads(file.with_name(f"{file.stem}.settings.json").read_text(encoding="utf-8"))
        values = [settings.get(name) for name in ("model", "prune_adapter", "asr_adapter")]
    except (OSError, ValueError, AttributeError):
        return ""
    return ", ".join(str(value) for value in values if value)


class _Lists:
    """The keyword lists, each once: the utterances of a slide share theirs."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []
        self._numbers: dict[tuple[str, ...], int] = {}

    def number(self, keywords: list[str]) -> int:
        """Where a list stands in ``texts``."""
        if tuple(keywords) not in self._numbers:
            self._numbers[tuple(keywords)] = len(self.texts)
            self.texts.append(keywords)
        return self._numbers[tuple(keywords)]


def _utterance(scores: Scores, report: Report, index: int, lists: _Lists, folder: Path | None) -> list[Any]:
    """``[id, session, reference, biased flags, listed flags, biased words, systems, list, audio]``.

    The systems are a list of :func:`_system`, the list a number. Words are joined by spaces; flags are texts of 0 and
    1, one for each word.
    """
    utterance = scores.utterances[index]
    words = slice(scores.refs.offsets[index], scores.refs.offsets[index + 1])
    return [
        utterance.id,
        utterance.session or "",
        _as_written(utterance.ref, _words(scores, scores.refs.ids[words]), report.char),
        _digits(scores.ref_biased[words]),
        _digits(scores.ref_listed[words]),
        int(scores.ref_biased[words].sum()),
        [_system(scores, report, name, index) for name in scores.systems],
        lists.number(utterance.keywords),
        _address(utterance.audio, folder),
    ]


def _address(audio: str | None, folder: Path | None) -> str:
    """The address of an audio file as seen from the page; empty where there is no such file."""
    if audio is None or folder is None or not Path(audio).is_file():
        return ""
    try:
        return quote(Path(os.path.relpath(Path(audio).absolute(), folder)).as_posix())
    except ValueError:  # on another drive
        return Path(audio).absolute().as_uri()


def _system(scores: Scores, report: Report, name: str, index: int) -> list[Any]:
    """One system: ``[hypothesis, listed flags, operations, errors, biased errors, picked keywords, unsure flags]``, the
    last two null where they are not known."""
    system = scores.systems[name]
    key = scores.utterances[index].id
    words = slice(system.hyps.offsets[index], system.hyps.offsets[index + 1])
    errors = system.errors[index][:, [SUBS, INS, DELS]].sum(axis=1)
    return [
        _as_written(report.replies[name][key], _words(scores, system.hyps.ids[words]), report.char),
        _digits(system.hyp_listed[words]),
        _digits(system.alignments.of(index)),
        int(errors.sum()),
        int(errors[BIASED]),
        report.picks.get(name, {}).get(key),
        _unsure(report.sure.get(name, {}).get(key), words.stop - words.start),
    ]


def _unsure(probabilities: list[float | None] | None, count: int) -> str | None:
    """A 1 for each word that is less sure than :data:`UNSURE`; None where the probabilities are of other words."""
    if probabilities is None or len(probabilities) != count:
        return None
    return "".join("1" if p is not None and p < UNSURE else "0" for p in probabilities)


def _words(scores: Scores, ids: np.ndarray) -> list[str]:
    return [scores.vocabulary[number] for number in ids.tolist()]


def _as_written(text: str, compared: list[str], char: bool) -> str:
    """The words of a text in their own case where the normaliser left their number alone, else as they are compared."""
    words = split_words(text, char)
    return " ".join(words if len(words) == len(compared) else compared)


def _digits(values: np.ndarray) -> str:
    """Numbers below ten as one text, a digit each."""
    return (values.astype(np.uint8) + ord("0")).tobytes().decode()
