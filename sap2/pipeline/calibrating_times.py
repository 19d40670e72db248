"""Fits when words begin and end, on utterances of which it is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from sap2.audio_urls import load_audio
from sap2.errors import InputError
from sap2.pipeline.asking import Hearing
from sap2.pipeline.calibrating import usable_items
from sap2.pipeline.calibrating_words import word_key
from sap2.pipeline.confidence import Offsets
from sap2.pipeline.items import Item
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder, Heard
from sap2.pipeline.words import DEFAULT, Laid, find_words, lay_words, loudness, place_words
from sap2.progress import progress
from sap2.prompts import ASR
from sap2.rowfiles import read_rows
from sap2.rows import row_id
from sap2.tables import TimedWord, read_ctm

FURTHEST, STEPS = 0.3, (0.02, 0.005)
"""Offsets that are tried, in seconds: from so much earlier to so much later, in coarse steps, then in fine ones around
the best. A spotter hears a few tenths at a time."""
_BATCH = 16


class Timed(NamedTuple):
    """An utterance with a known time of its words.

    Attributes:
        laid: its W words over what the spotter hears.
        seconds: its length.
        loud: (F,) of :func:`sap2.pipeline.words.loudness`.
        words: numbers of the M words that are known, and that the spotter can spell.
        truth: (M, 2) when they begin and end, in seconds of the utterance.
    """

    laid: Laid
    seconds: float
    loud: np.ndarray
    words: np.ndarray
    truth: np.ndarray

    def errors(self, offsets: Offsets) -> np.ndarray:
        """(M, 2) by how much starts and ends come too late, in seconds."""
        found = np.stack(place_words(self.laid, self.seconds, self.loud, offsets), 1)
        return found[self.words] - self.truth


class TimeFit(NamedTuple):
    """Fitted offsets, how many words they were fitted on, and the mean absolute error of their starts in seconds: as
    fitted, and with the default."""

    offsets: Offsets
    words: int
    error: float
    before: float

    def __str__(self) -> str:
        return (
            f"{self.words} words, which begin within {1000 * self.error:.0f} ms on average "
            f"({1000 * self.before:.0f} ms with the default of {DEFAULT.start:g} s)"
        )


def fit_times(loaded: LoadedModel, path: str | os.PathLike[str], ctm: str | os.PathLike[str]) -> TimeFit:
    """Lay the transcripts of the utterances of a file over what the spotter hears, and compare with the times of a CTM.

    Args:
        ctm: times of words by utterance, or by recording where the utterances say where in it they are.

    Raises:
        InputError: a file cannot be used, no word of the utterances is in the CTM, or it has other times than they.
    """
    return fit_offsets(list(_time_rows(loaded, path, read_ctm(ctm), ctm)), os.fspath(ctm))


def fit_offsets(utterances: Sequence[Timed], name: str) -> TimeFit:
    """The offsets with the smallest mean absolute error of starts, and then of ends; ``name`` is that of the times.

    Raises:
        InputError: no word is known, or the best start is the furthest that is tried.
    """
    if not sum(len(one.words) for one in utterances):
        raise InputError(
            f"{name} has no word of these utterances; allowed: a CTM by their ids, or by their recordings where the "
            f"utterances have recording and start"
        )
    start = _best(lambda value: _error(utterances, Offsets(value, 0.0))[0])
    if abs(start) >= FURTHEST:
        raise InputError(
            f"{name}: words begin {FURTHEST:g} s or more from where the spotter hears them; allowed: times of the same "
            f"recordings"
        )
    offsets = Offsets(start, _best(lambda value: _error(utterances, Offsets(start, value))[1]))
    error, before = (float(_error(utterances, each)[0]) for each in (offsets, DEFAULT))
    return TimeFit(offsets, sum(len(one.words) for one in utterances), error, before)


def _best(error: Callable[[float], float]) -> float:
    """The offset with the smallest error."""
    middle, reach = 0.0, FURTHEST
    for step in STEPS:
        count = round(reach / step)
        tried = [round(middle + number * step, 4) for number in range(-count, count + 1)]
        middle, reach = min(tried, key=error), step
    return middle


def _error(utterances: Sequence[Timed], offsets: Offsets) -> np.ndarray:
    """Mean absolute error of starts and of ends."""
    return np.abs(np.concatenate([one.errors(offsets) for one in utterances])).mean(0)


@torch.inference_mode()
def _time_rows(
    loaded: LoadedModel, path: str | os.PathLike[str], times: Mapping[str, list[TimedWord]], ctm: Any
) -> Iterator[Timed]:
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    items, said = usable_items(path, ASR), said_words(path, times)
    for first in progress(range(0, len(items), _BATCH), "time", unit="batch"):
        batch = [item for item in items[first : first + _BATCH] if item.labels and said.get(item.id)]
        if not batch:
            continue
        heard = [encoder.hear(load_audio(item.audio, encoder.sampling_rate), item.id) for item in batch]
        log_probs, mask = Hearing(loaded, heard).letters(ASR)
        for item, one, letters, valid in zip(batch, heard, log_probs, mask, strict=True):
            timed = _timed(item, one, letters[valid].cpu().numpy(), said[item.id])
            if timed is not None:
                yield timed


def said_words(path: str | os.PathLike[str], times: Mapping[str, list[TimedWord]]) -> dict[str, list[TimedWord]]:
    """The words of each row, in seconds of its audio: those of its id, else those of its part of its recording."""
    found: dict[str, list[TimedWord]] = {}
    for _, row in read_rows(path):
        id, recording, start, end = row_id(row), row.get("recording"), row.get("start"), row.get("end")
        if id in times:
            found[id] = times[id]
        elif recording in times and start is not None and end is not None:
            found[id] = [
                TimedWord(word.text, word.start - start, word.end - start)
                for word in times[recording]
                if start <= (word.start + word.end) / 2 < end
            ]
    return found


def _timed(item: Item, heard: Heard, log_probs: np.ndarray, said: Sequence[TimedWord]) -> Timed | None:
    text = item.labels or ""
    laid = lay_words(log_probs, text)
    if laid is None:
        return None
    written = [word_key(text[start:end]) for start, end in find_words(text)]
    words, truth = [], []
    for block in Levenshtein.opcodes([word_key(word.text) for word in said], written):
        for n in range(block.dest_end - block.dest_start if block.tag == "equal" else 0):
            if laid.aligned[block.dest_start + n]:
                words.append(block.dest_start + n)
                truth.append(said[block.src_start + n][1:])
    loud = loudness(heard.features[:, heard.mask.bool()].numpy())
    return Timed(laid, heard.seconds, loud, np.array(words, dtype=int), np.array(truth).reshape(-1, 2))
