"""Noise for what sap2-tiny learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from sap2.audio import load_samples
from sap2.augment.noisy import Disturber
from sap2.augment.options import Distance, NoiseOptions
from sap2.augment.sources import Utterances

SOUNDS = NoiseOptions(Distance(3, 20), ("noise", "babble", "hum"), share=1.0)
EFFECTS = NoiseOptions(Distance(8, 30), ("noise", "babble", "hum", "room", "telephone", "codec", "gain"), share=1.0)
LOUD_SOUNDS = NoiseOptions(Distance(0, 16), ("noise", "babble"), share=1.0)
LOUD_EFFECTS = NoiseOptions(Distance(5, 25), EFFECTS.kinds, share=1.0)

_SILENCE = 0.1
"""Seconds before and after an utterance of a corpus."""


class Noise:
    """Loads utterances with noise: six in ten with a sound, two with effects too, and two without; where it is loud,
    seven, two and one.

    Those of a corpus begin and end with a tenth of a second of silence. Recordings need not: half of the utterances
    lose some of it, a fifth get more.

    Args:
        audios: all of them; the voices of a babble are drawn from these.
        rate: samples per second.
        loud: nearly as loud as the speech, and no hum by itself, of which there is nothing left to learn.
    """

    def __init__(self, audios: Sequence[str], rate: int, loud: bool = False):
        self._rate = rate
        voices = Utterances(self.clean, audios)
        options = (LOUD_SOUNDS, LOUD_EFFECTS) if loud else (SOUNDS, EFFECTS)
        self._sounds, self._effects = (Disturber(one, rate, voices) for one in options)
        self._shares = (0.7, 0.9) if loud else (0.6, 0.8)

    def __call__(self, audio: str, draw: int) -> np.ndarray:
        """(samples,) float32 of an utterance; another ``draw`` gives other noise."""
        chance = random.Random(f"{audio} {draw}").random()
        if chance >= self._shares[1]:
            return self.clean(audio)
        return (self._sounds if chance < self._shares[0] else self._effects)(self.clean(audio), audio, draw)

    def clean(self, audio: str) -> np.ndarray:
        """(samples,) float32 of an utterance without noise, with more or less silence around it, always the same."""
        samples = load_samples(audio, self._rate)
        draw = random.Random(audio)
        chance, before, after = draw.random(), draw.random(), draw.random()
        if chance < 0.5:
            cut = _SILENCE * self._rate
            return samples[round(cut * before) : len(samples) - round(cut * after)]
        if chance < 0.7:
            return np.pad(samples, [round(0.3 * self._rate * part) for part in (before, after)])
        return samples
