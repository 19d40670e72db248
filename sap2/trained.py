"""What a training's rows have in common, kept with the checkpoint for those who decode with it.

Standard library only.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sap2.errors import InputError
from sap2.prompts import NO_KEYWORDS, parse_joint_reply
from sap2.rowfiles import read_rows
from sap2.rows import Row, as_messages, content_stage, row_keywords, user_texts
from sap2.spelling import is_mark

_ROWS = 1000
"""Rows of a file that are looked at."""
_STRAY = 0.001
"""Share of letters in the other case that a corpus of one case may have, and of punctuation in lists without."""


class TrainedOn(NamedTuple):
    """What the rows of a training have in common.

    Attributes:
        case: one of :data:`sap2.spelling.CASES`.
        stages: that they are of, by name; empty where a wording is of none.
        punctuation: of their keywords: ``keep``, or ``none`` where there is none but apostrophes.
    """

    case: str
    stages: list[str]
    punctuation: str


def describe_rows(paths: Iterable[str | os.PathLike[str]]) -> TrainedOn | None:
    """What the rows of these files are; None where there is no letter in them, or no file.

    The beginning of each file is read. Rows whose wording is of no stage leave the stages open. Bad rows are passed
    over: who encodes them says what is wrong, and with which row.
    """
    upper = lower = marks = listed = 0
    stages: dict[str, None] = {}
    for path in paths:
        for _, row in itertools.islice(read_rows(path, on_error=lambda *_: None), _ROWS):
            try:
                texts, found, keywords = list(_texts(row)), _stages(row), row_keywords(row)
            except (InputError, TypeError, AttributeError, KeyError):
                continue
            upper += sum(character.isupper() for text in texts for character in text)
            lower += sum(character.islower() for text in texts for character in text)
            marks += sum(is_mark(character) for keyword in keywords for character in keyword)
            listed += sum(map(len, keywords))
            stages.update(dict.fromkeys(found))
    if not upper + lower:
        return None
    share = upper / (upper + lower)
    case = "lower" if share < _STRAY else "upper" if share > 1 - _STRAY else "keep"
    bare = listed and marks < _STRAY * listed
    return TrainedOn(case, [] if "" in stages else sorted(stages), "none" if bare else "keep")


def dataset_files(datasets: Sequence[str]) -> list[str]:
    """The files of this machine among ms-swift's ``--dataset`` values (``path#1000`` takes a thousand rows)."""
    paths = (re.sub(r"#\d+$", "", dataset) for dataset in datasets)
    return [path for path in paths if Path(path).is_file()]


def _texts(row: Row) -> Iterable[str]:
    yield from row_keywords(row)
    for message in as_messages(row).get("messages") or []:
        if message.get("role") == "assistant" and isinstance(message.get("content"), str):
            joint = parse_joint_reply(message["content"])
            texts = [*joint.keywords, joint.transcript] if joint else [message["content"]]
            yield from (text for text in texts if text != NO_KEYWORDS)


def _stages(row: Row) -> Iterable[str]:
    return [content_stage(text) or "" for text in user_texts(row)]
