"""Fits the probabilities of words on utterances whose transcripts are known."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from sap2.audio_urls import load_audio
from sap2.errors import InputError
from sap2.lengths import SAMPLING_RATE
from sap2.pipeline.batching import plan_batches
from sap2.pipeline.calibrating import usable_items
from sap2.pipeline.confidence import Evidence, WordCalibration
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.items import Item
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.utterances import Job, Outcome
from sap2.progress import Progress
from sap2.prompts import ASR
from sap2.pruning.calibration import Bin, calibration_error, fit_logistic, reliability

_BATCH = 16


class WordFit(NamedTuple):
    """A fitted calibration, how reliable it is on the words it was fitted on, and how many of them are wrong."""

    calibration: WordCalibration
    bins: list[Bin]
    words: int
    wrong: int

    @property
    def error(self) -> float:
        """Expected calibration error."""
        return calibration_error(self.bins)

    def __str__(self) -> str:
        return f"{self.words} words, {self.wrong} of them wrong; expected calibration error {self.error:.4f}"


def fit_words(loaded: LoadedModel, path: str | os.PathLike[str], max_new_tokens: int = 512) -> WordFit:
    """Transcribe the utterances of a file, each with its own list, and fit on which words are right.

    Raises:
        InputError: a row has no transcript, the model has no spotter, or no word is right or all are.
    """
    items = usable_items(path, ASR)
    decoder = Decoder(loaded, (ASR,), max_new_tokens)
    decoder.check_word_times("sap2 calibrate")
    lengths = [len(decoder.encoder.prompt(item.content, "", 0).input_ids) for item in items]
    batches = [[items[index] for index in batch] for batch in plan_batches(lengths, _BATCH, None)]
    evidence: list[Evidence] = []
    right: list[bool] = []
    with Progress("transcribe", len(items), "utterance") as shown:
        for item, outcome in itertools.chain.from_iterable(decoder.stream(batches, _job, 2, shown)):
            if isinstance(outcome, Exception):
                raise outcome
            known = [(e, r) for e, r in zip(outcome.evidence, _right(item, outcome), strict=True) if e is not None]
            evidence += [one for one, _ in known]
            right += [one for _, one in known]
    return fit_evidence(evidence, right)


def fit_evidence(evidence: Sequence[Evidence], right: Sequence[bool]) -> WordFit:
    """Fit on words, each with what speaks for it and whether it is right.

    Raises:
        InputError: no word is right, or all are.
    """
    outcomes = np.array(right, dtype=bool)
    if not 0 < outcomes.sum() < len(outcomes):
        raise InputError(f"{int(outcomes.sum())} of {len(outcomes)} words are right; allowed: some, and not all")
    inputs = np.column_stack([np.ones(len(evidence)), np.array(evidence)])
    constant, log_prob, heard = map(float, fit_logistic(inputs, outcomes, np.ones(len(outcomes))))
    calibration = WordCalibration(constant, log_prob, heard)
    probabilities = np.array([calibration.probability(one) for one in evidence])
    return WordFit(calibration, reliability(probabilities, outcomes), len(outcomes), int((~outcomes).sum()))


def _job(item: Item) -> Job:
    def load() -> np.ndarray:
        return load_audio(item.audio, SAMPLING_RATE)

    return Job(item.id, load, item.keywords, item.content, item.system, word_spelling="model")


def _right(item: Item, outcome: Outcome) -> list[bool]:
    """Which words of the transcript are right: those that a shortest way from the reference to it leaves alone."""
    if item.labels is None:
        raise InputError(f"{item.id} has no transcript; allowed: utterances or rows with transcripts")
    return right_words([word.text for word in outcome.words or []], item.labels.split())


def right_words(words: Sequence[str], reference: Sequence[str]) -> list[bool]:
    """Which of the words are right, whatever their case and their punctuation."""
    found = [False] * len(words)
    for block in Levenshtein.opcodes([*map(word_key, reference)], [*map(word_key, words)]):
        if block.tag == "equal":
            found[block.dest_start : block.dest_end] = [True] * (block.dest_end - block.dest_start)
    return found


def word_key(word: str) -> str:
    """A word without case and punctuation, by which it is found again."""
    return "".join(character for character in word.casefold() if character.isalnum()) or word
