"""Fits the probabilities of the pruner ``spot`` on utterances whose transcripts are known."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from sap2.audio_urls import load_audio
from sap2.errors import InputError
from sap2.model.spotter import Spelled, spelled_frames
from sap2.pipeline.asking import Hearing
from sap2.pipeline.items import BadRow, Item, read_items
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.progress import progress
from sap2.prompts import ASR
from sap2.pruning.bank import TermBank, read_bank
from sap2.pruning.calibration import Bin, Calibration, calibration_error, fit_calibration, fit_contest, reliability
from sap2.pruning.spotting import RANKED, heard_in, list_bank, rival_evidence, term_salience
from sap2.text import spoken_keywords

SIZES = (0, 500, 2000, 10_000, 100_000)
"""Terms that are added to an utterance's own list, as far as there are so many."""
SAMPLED = 50
"""Terms of each size that are drawn from those that are not ranked."""
_BATCH = 16


class Heard(NamedTuple):
    """One utterance: its row, and what the spotter hears."""

    item: Item
    frames: Spelled


@dataclasses.dataclass
class Examples:
    """Terms that were looked for: what was heard, among how many, whether it was said, and how many it stands for."""

    salience: list[np.ndarray] = dataclasses.field(default_factory=list)
    letters: list[np.ndarray] = dataclasses.field(default_factory=list)
    entries: list[np.ndarray] = dataclasses.field(default_factory=list)
    spoken: list[np.ndarray] = dataclasses.field(default_factory=list)
    weights: list[np.ndarray] = dataclasses.field(default_factory=list)
    forms: list[list[str]] = dataclasses.field(default_factory=list)
    heard: list[Spelled] = dataclasses.field(default_factory=list)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The numbers, each as one array (N,)."""
        return tuple(map(np.concatenate, (self.salience, self.letters, self.entries, self.spoken, self.weights)))

    def contests(self, calibration: Calibration) -> tuple[np.ndarray, ...]:
        """Evidence, rivals and whether it was said, of each term that would be ranked (M,)."""
        columns: tuple[list[np.ndarray], ...] = ([], [], [])
        for number, frames in enumerate(self.heard):
            ranked = np.flatnonzero(self.weights[number] == 1)
            salience, letters = self.salience[number][ranked], self.letters[number][ranked]
            evidence = calibration.evidence(salience, letters, int(self.entries[number][0]))
            forms = [self.forms[number][place] for place in ranked]
            rivals = rival_evidence(frames, forms, evidence)
            for column, values in zip(columns, (evidence, rivals, self.spoken[number][ranked]), strict=True):
                column.append(values)
        return tuple(map(np.concatenate, columns))


class Fit(NamedTuple):
    """A fitted calibration, how reliable it is on the terms it ranks, and what it was fitted on."""

    calibration: Calibration
    bins: list[Bin]
    utterances: int
    examples: int

    @property
    def error(self) -> float:
        """Expected calibration error."""
        return calibration_error(self.bins)


@torch.inference_mode()
def hear_rows(loaded: LoadedModel, path: str | os.PathLike[str], stage: str = ASR) -> Iterator[Heard]:
    """What the spotter hears in each utterance of a file.

    Raises:
        InputError: a row cannot be used.
    """
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    items = usable_items(path, stage)
    for first in progress(range(0, len(items), _BATCH), "hear", unit="batch"):
        batch = items[first : first + _BATCH]
        heard = [encoder.hear(load_audio(item.audio, encoder.sampling_rate), item.id) for item in batch]
        frames = spelled_frames(*Hearing(loaded, heard).letters(stage))
        yield from (Heard(item, heard_in(frames, index)) for index, item in enumerate(batch))


def usable_items(path: str | os.PathLike[str], stage: str) -> list[Item]:
    """The utterances of a file.

    Raises:
        InputError: a row cannot be used.
    """
    return [_good(path, item) for item in read_items(path, stage)]


def _good(path: str | os.PathLike[str], item: Item | BadRow) -> Item:
    if isinstance(item, BadRow):
        raise InputError(f"{path}: row {item.number}: {item.error}")
    return item


def fit_rows(loaded: LoadedModel, path: str | os.PathLike[str], term_bank: str | None = None, seed: int = 0) -> Fit:
    """Fit on utterances with lists and transcripts; terms to be told from the spoken ones are those of the bank, and of
    all other lists.

    Raises:
        InputError: a row has no transcript, or no keyword of any list is spoken.
    """
    heard = list(hear_rows(loaded, path))
    pool = read_bank(term_bank) if term_bank else list_bank([k for one in heard for k in one.item.keywords])
    draw, examples = random.Random(seed), Examples()
    for one in progress(heard, "look for", unit="utterance"):
        _look(one, pool, draw, examples)
    salience, letters, entries, spoken, weights = examples.arrays()
    calibration = fit_calibration(salience, letters, entries, spoken, weights)
    evidence, rivals, said = examples.contests(calibration)
    calibration = fit_contest(calibration, evidence, rivals, said)
    odds = calibration.contested(evidence, rivals)
    probabilities = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return Fit(calibration, reliability(probabilities, said), len(heard), len(salience))


def _look(one: Heard, pool: TermBank, draw: random.Random, examples: Examples) -> None:
    """Add the terms of one utterance: its own list, and beside it as many terms of the pool as each size says."""
    if one.item.labels is None:
        raise InputError(f"{one.item.id} has no transcript; allowed: utterances or rows with transcripts")
    said = {keyword.casefold() for keyword in spoken_keywords(one.item.keywords, one.item.labels, "whisper-en")}
    own = list_bank(one.item.keywords)
    listed = {term.casefold() for term in own.terms}
    own_found, pool_found = term_salience(one.frames, own), term_salience(one.frames, pool)
    others = np.array([number for number, term in enumerate(pool.terms) if term.casefold() not in listed], dtype=int)
    draw.shuffle(others)
    sizes = sorted({min(size, len(others)) for size in SIZES})
    for size in sizes:
        taken = _sample(others[:size], pool_found.salience, draw)
        count = len(own) + size
        found_salience = np.concatenate([own_found.salience, pool_found.salience[taken.numbers]])
        fits = np.isfinite(found_salience)
        columns = {
            "salience": found_salience,
            "letters": np.concatenate([own_found.letters, pool_found.letters[taken.numbers]]),
            "entries": np.full(len(fits), count),
            "spoken": np.array([term.casefold() in said for term in own.terms] + [False] * len(taken.numbers)),
            "weights": np.concatenate([np.ones(len(own)), taken.weights]),
        }
        if fits.any():
            for name, values in columns.items():
                getattr(examples, name).append(values[fits])
            forms = [
                *(own.forms[n] for n in own_found.forms),
                *(pool.forms[n] for n in pool_found.forms[taken.numbers]),
            ]
            examples.forms.append([form for form, fit in zip(forms, fits, strict=True) if fit])
            examples.heard.append(one.frames)


class _Sample(NamedTuple):
    numbers: np.ndarray
    weights: np.ndarray


def _sample(numbers: np.ndarray, salience: np.ndarray, draw: random.Random) -> _Sample:
    """The terms that would be ranked, each for itself, and some of the others, for all of them."""
    order = numbers[np.argsort(-salience[numbers], kind="stable")]
    top, rest = order[:RANKED], order[RANKED:]
    some = np.array(draw.sample(rest.tolist(), min(SAMPLED, len(rest))), dtype=int)
    weight = len(rest) / max(1, len(some))
    return _Sample(np.concatenate([top, some]), np.concatenate([np.ones(len(top)), np.full(len(some), weight)]))


def summary(fit: Fit) -> Sequence[str]:
    """What was fitted, as lines of text."""
    rows = [f"{one.mean:6.3f} {one.share:6.3f} {one.terms:8d}" for one in fit.bins]
    return [
        f"{fit.utterances} utterances, {fit.examples} terms; expected calibration error {fit.error:.4f}",
        "  said  spoken   terms",
        *rows,
    ]
