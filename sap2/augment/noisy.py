"""One recording with noise: all that :mod:`sap2.augment` does, drawn for it."""

from __future__ import annotations

import zlib

import numpy as np

from sap2.augment import effects
from sap2.augment.options import NoiseOptions
from sap2.augment.sounds import power_of
from sap2.augment.sources import NoiseFolder, Voice, make_sound

EFFECT_SHARE = 0.25
"""Chance of each effect beside a sound."""
_PEAK = 0.99
_ORDER = ("speed", "room", "sound", "gain", "telephone", "codec")
"""As things happen: somebody speaks in a room, where there is noise, and all of it is recorded and sent."""


class Disturber:
    """Adds noise to recordings; what a recording gets depends on the seed and its key alone.

    Args:
        options: what is done.
        rate: samples per second of the recordings.
        voice: draws somebody's speech for a babble; None: the noise folder's, or an error.

    Raises:
        InputError: the noise folder is none.
    """

    def __init__(self, options: NoiseOptions, rate: int, voice: Voice | None = None):
        self.options, self.rate, self._voice = options, rate, voice
        self._folder = NoiseFolder(options.folder) if options.folder is not None else None

    def __call__(self, samples: np.ndarray, key: str, epoch: int = 0, most: int | None = None) -> np.ndarray:
        """(samples,) float32 with noise, or as they were where the draw leaves them alone.

        The distance holds between the mean power of the speech (as the room and the speed have it) and of the sound,
        both over the whole recording, before gain and line.

        Args:
            key: of the recording.
            epoch: another number gives other draws.
            most: samples that the outcome may have.
        """
        rng = np.random.default_rng([self.options.seed, epoch, zlib.crc32(key.encode())])
        if rng.random() >= self.options.share or not power_of(samples):
            return samples
        chosen = self._choose(rng)
        for step in (step for step in _ORDER if step in chosen):
            samples = self._apply(step, chosen[step], samples, rng, most)
        peak = float(np.abs(samples).max(initial=0.0))
        return samples * np.float32(_PEAK / peak) if peak > 1 else samples

    def _choose(self, rng: np.random.Generator) -> dict[str, str]:
        """The steps, and the kind of each."""
        sounds, possible = self.options.sounds, self.options.effects
        if not sounds:
            effect = possible[rng.integers(len(possible))]
            return {effect: effect}
        chosen = {effect: effect for effect in possible if rng.random() < EFFECT_SHARE}
        return {**chosen, "sound": sounds[rng.integers(len(sounds))]}

    def _apply(
        self, step: str, kind: str, samples: np.ndarray, rng: np.random.Generator, most: int | None
    ) -> np.ndarray:
        if step == "sound":
            sound = make_sound(kind, len(samples), self.rate, rng, self._folder, self._voice)
            return mixed(samples, sound, rng.uniform(*self.options.distance))
        if step == "room":
            return effects.add_echo(samples, self.rate, rng, self.options.seed)
        if step == "speed":
            return effects.change_speed(samples, self.rate, rng, most)
        if step == "gain":
            return effects.change_level(samples, rng)
        return effects.telephone(samples, self.rate) if step == "telephone" else effects.lossy(samples, self.rate, rng)


def mixed(speech: np.ndarray, sound: np.ndarray, distance: float) -> np.ndarray:
    """Speech and a sound of mean square 1 that is ``distance`` dB below it, both (samples,)."""
    return (speech + sound * np.sqrt(power_of(speech) * 10 ** (-distance / 10))).astype(np.float32)
