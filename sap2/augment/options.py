"""What is done to recordings, and how loud it is: the options of every command that adds noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sap2.errors import InputError

SOUNDS = ("noise", "babble", "hum")
"""Sounds that are added at a distance from the speech: coloured noise, several other voices, mains hum and chords."""
EFFECTS = ("room", "telephone", "codec", "gain", "speed")
"""What happens to the recording itself: echo, a band of 300 to 3,400 Hz, lossy coding, level, tempo with pitch."""
KINDS = (*SOUNDS, *EFFECTS)
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "speed")
"""Without ``speed``, which makes rows longer than they were when somebody counted their tokens."""
DEFAULT_SHARE = 0.7
LEAST_SNR, MOST_SNR = -20.0, 60.0


class Distance(NamedTuple):
    """Signal-to-noise ratio in dB, drawn evenly from ``low`` to ``high``."""

    low: float
    high: float


def parse_distance(text: str, option: str = "--sap_noise") -> Distance:
    """``LOW:HIGH`` in dB, or one number.

    Raises:
        InputError: no numbers, the first above the second, or out of range.
    """
    parts = str(text).split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise InputError(f"{option} is {text!r}; allowed: LOW:HIGH in dB, such as 0:20, or one number")
    low, high = numbers[0], numbers[-1]
    if low > high:
        raise InputError(f"{option} is {text!r}, and {low:g} is more than {high:g}; allowed: LOW:HIGH, such as 0:20")
    if low < LEAST_SNR or high > MOST_SNR:
        raise InputError(f"{option} is {text!r}; allowed: {LEAST_SNR:g} to {MOST_SNR:g} dB")
    return Distance(low, high)


def parse_kinds(text: str | Sequence[str], option: str = "--sap_noise_kinds") -> tuple[str, ...]:
    """Names of :data:`KINDS`, commas between.

    Raises:
        InputError: a name is unknown, or there is none.
    """
    named = text.split(",") if isinstance(text, str) else text
    names = tuple(dict.fromkeys(name.strip() for name in named if name.strip()))
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise InputError(f"{option} is {text!r}; allowed: {', '.join(KINDS)}, commas between")
    return names


@dataclass(frozen=True)
class NoiseOptions:
    """What is done to recordings.

    Attributes:
        distance: of the speech from an added sound.
        kinds: of :data:`KINDS`. A recording gets one of the sounds among them, and each of the effects now and then; of
            effects alone, one.
        share: part of the recordings that anything is done to, 0 to 1.
        folder: recordings of noise; see :class:`sap2.augment.sources.NoiseFolder`.
        seed: of all draws.

    Raises:
        InputError: a value is out of range.
    """

    distance: Distance
    kinds: tuple[str, ...] = DEFAULT_KINDS
    share: float = DEFAULT_SHARE
    folder: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"the share of noisy recordings is {self.share}; allowed: above 0, to 1")
        if self.seed < 0:
            raise InputError(f"the seed of the noise is {self.seed}; allowed: 0 or more")

    @property
    def sounds(self) -> tuple[str, ...]:
        """Those of the kinds that are added."""
        return tuple(kind for kind in self.kinds if kind in SOUNDS)

    @property
    def effects(self) -> tuple[str, ...]:
        """The other kinds."""
        return tuple(kind for kind in self.kinds if kind in EFFECTS)
