"""Synthetic talks with the truth about their words, and what a transcriber makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from sap2 import Request, TimedKeywords, Transcriber, Transcript, Word
from sap2.errors import InputError
from sap2.progress import progress
from sap2.tables import TimedWord, read_ctm
from sap2.tiny.talks import MARKER

SEGMENT_SECONDS = 3.0
"""The longest segment: sap2-tiny learnt from utterances of this length."""


class Talk(NamedTuple):
    """A recording with its keywords and its ``words``."""

    request: Request
    words: list[TimedWord]


class Match(NamedTuple):
    """A word of a transcript, and the word that was said there; None: none, or another one."""

    word: Word
    said: TimedWord | None


def read_talks(folder: Path, split: str) -> list[Talk]:
    """The talks of a split.

    Raises:
        InputError: the folder holds no talks with times of words.
    """
    times = folder / split / "words.ctm"
    if not times.is_file():
        raise InputError(f"{times} does not exist; allowed: a folder that sap2 make-talks wrote")
    words = read_ctm(times)
    facts = json.loads((folder / MARKER).read_text(encoding="utf-8"))["talks"]
    return [Talk(_request(folder, talk), words[talk["id"]]) for talk in facts if talk["split"] == split]


def _request(folder: Path, talk: dict[str, Any]) -> Request:
    slides = [TimedKeywords(slide["start"], slide["end"], slide["keywords"]) for slide in talk["slides"]]
    return Request(folder / "wav" / f"{talk['id']}.wav", slides=slides, id=talk["id"])


def transcribe_talks(talks: Sequence[Talk], model: str, asr_adapter: str) -> Iterator[Transcript]:
    """Transcripts of the talks with times of words."""
    transcriber = Transcriber(model, asr_adapter=asr_adapter, max_segment_seconds=SEGMENT_SECONDS)
    for talk in progress(talks, "transcribe", unit="talk"):
        yield transcriber.transcribe(talk.request, word_timestamps=True)


def match_words(transcript: Transcript, said: Sequence[TimedWord]) -> list[Match]:
    """Every word of a transcript, with the word at its place in what was said, where the two are the same.

    The places are those of the fewest errors (Levenshtein), which know nothing of times.
    """
    words = [word for segment in transcript.segments for word in segment.words or []]
    reference, hypothesis = [word.text for word in said], [word.text.lower() for word in words]
    found: dict[int, TimedWord] = {}
    for block in Levenshtein.opcodes(reference, hypothesis):
        if block.tag == "equal":
            pairs = zip(range(block.dest_start, block.dest_end), said[block.src_start : block.src_end], strict=True)
            found.update(pairs)
    return [Match(word, found.get(index)) for index, word in enumerate(words)]


def interval(values: Sequence[Any], statistic: Any, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of a statistic of all talks' values, (talks of) arrays, by drawing talks with replacement."""
    numbers = np.random.default_rng(0)
    drawn = numbers.integers(0, len(values), (draws, len(values)))
    found = [statistic(np.concatenate([values[index] for index in row])) for row in drawn]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
