"""``--sap_noise``: noise for the rows of a training, in the data loader, and never for those of an evaluation.

The rows of the training get a column with their number, and only rows with that column are disturbed: a template does
not know whether it is training or evaluating. What a row hears depends on the seed, its number and the epoch alone,
whichever worker or rank reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from sap2.audio import load_samples
from sap2.augment.noisy import Disturber
from sap2.augment.options import DEFAULT_KINDS, DEFAULT_SHARE, NoiseOptions, parse_distance, parse_kinds
from sap2.augment.sources import NoiseFolder, Utterances
from sap2.errors import InputError
from sap2.rows import row_audios

COLUMN = "sap_noise"
"""Number of a row of the training."""
CALLBACK = "sap_noise"
FLAGS = ("sap_noise", "sap_noise_dir", "sap_noise_kinds", "sap_noise_share", "sap_noise_fresh")
_VOICES = 2000
"""Rows whose utterances make babble, at most."""
_LONGEST_PATH = 1024
"""What is longer is base64."""


class TrainingNoise:
    """Noise for the rows of a training; goes to the workers of the data loader.

    Args:
        options: what is done.
        fresh: whether a row hears something else in every epoch.
    """

    def __init__(self, options: NoiseOptions, fresh: bool):
        self.options, self.fresh = options, fresh
        self.voices: list[str] = []
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._disturber: Disturber | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_disturber": None}

    def begin_epoch(self, number: int) -> None:
        """Draw anew from now on, in the workers too."""
        if self.fresh:
            self._epoch.fill_(number)

    def __call__(self, samples: np.ndarray, rate: int, key: str, most: int) -> np.ndarray:
        """(samples,) with noise; at most ``most`` samples."""
        if self._disturber is None:
            voice = (
                Utterances(functools.partial(load_samples, sampling_rate=rate), self.voices) if self.voices else None
            )
            self._disturber = Disturber(self.options, rate, voice)
        return self._disturber(samples, key, int(self._epoch), most)

    def mark(self, dataset: Any) -> Any:
        """The dataset of the training with the number of each row, and its utterances as voices of a babble.

        Raises:
            InputError: babble is asked for, and there are no voices.
        """
        self.voices = list(dict.fromkeys(_audio_paths(islice(dataset, _VOICES))))
        folder = self.options.folder
        has_own = folder is not None and "babble" in NoiseFolder(folder).files
        if "babble" in self.options.kinds and not (self.voices or has_own):
            raise InputError(
                "--sap_noise: babble needs voices, and the first rows of the training name no audio files; allowed: "
                "--sap_noise_dir with a folder speech/, or --sap_noise_kinds without babble"
            )
        return dataset.map(_numbered, with_indices=True)


@functools.lru_cache(maxsize=4)
def shared_noise(options: NoiseOptions, fresh: bool) -> TrainingNoise:
    """The noise of a run: the template has it before the rows are read."""
    return TrainingNoise(options, fresh)


def training_noise(args: Any) -> TrainingNoise | None:
    """The noise that the arguments of a command ask for; None without ``--sap_noise``, and where nothing is trained."""
    if getattr(args, "sap_noise", None) is None or not hasattr(args, "num_train_epochs"):
        return None
    return shared_noise(noise_options(args), _fresh(args))


def noise_options(args: Any) -> NoiseOptions:
    """The options that the flags give.

    Raises:
        InputError: one of them is not allowed.
    """
    kinds = DEFAULT_KINDS if args.sap_noise_kinds is None else parse_kinds(args.sap_noise_kinds)
    return NoiseOptions(
        parse_distance(args.sap_noise),
        kinds,
        DEFAULT_SHARE if args.sap_noise_share is None else _share(args.sap_noise_share),
        args.sap_noise_dir,
        abs(getattr(args, "seed", None) or 0),
    )


def check_noise(args: Any) -> None:
    """Refuse flags that do not fit before the model is loaded, and have the epochs counted.

    Raises:
        InputError: names the flag and what is allowed.
    """
    given = [name for name in FLAGS if getattr(args, name, None) is not None]
    if not given:
        return
    if not hasattr(args, "num_train_epochs"):
        raise InputError(f"--{given[0]} is for training; allowed: swift sft (sap2 data augment makes noisy test sets)")
    if getattr(args, "rlhf_type", None) in {"grpo", "gkd", "ppo"}:
        raise InputError(f"--{given[0]}: --rlhf_type {args.rlhf_type} writes replies to clean audio; allowed: no noise")
    if args.sap_noise is None:
        raise InputError(f"--{given[0]} without --sap_noise does nothing; allowed: --sap_noise LOW:HIGH in dB with it")
    options, fresh = noise_options(args), _fresh(args)
    if options.folder is not None:
        NoiseFolder(options.folder)
    if fresh and CALLBACK not in args.callbacks:
        args.callbacks = [*args.callbacks, CALLBACK]


def register_epochs(callbacks: dict[str, type], base: type) -> None:
    """Have ms-swift know the callback that tells the noise its epoch."""

    class NoiseEpochs(base):
        def on_epoch_begin(self, args, state, control, **kwargs):
            noise = getattr(self.trainer.template, "noise", None)
            if noise is not None:
                noise.begin_epoch(int(state.epoch or 0))

    callbacks.setdefault(CALLBACK, NoiseEpochs)


def _numbered(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {**row, COLUMN: number}


def _audio_paths(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Audio files that rows name."""
    for row in rows:
        for path in row_audios(row):
            if isinstance(path, str) and "://" not in path and len(path) < _LONGEST_PATH:
                yield path


def _share(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--sap_noise_share is {value!r}; allowed: above 0, to 1") from None


def _fresh(args: Any) -> bool:
    return True if args.sap_noise_fresh is None else args.sap_noise_fresh
