"""Where noise comes from: a folder of recordings, other utterances, or arithmetic."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sap2.audio import AUDIO_SUFFIXES, load_samples, probe_seconds
from sap2.augment.sounds import coloured_noise, hum, unit
from sap2.errors import InputError

MUSAN = {"noise": "noise", "babble": "speech", "hum": "music"}
"""Kind of sound → the folder of MUSAN that holds such."""
_VOICES = (3, 8)  # of a babble, the second one excluded
_LONGEST = 600.0  # seconds of a recording of noise that are drawn from
_TRIES = 4
_SILENT = 1e-10  # mean square

Voice = Callable[[np.random.Generator], np.ndarray]
"""Draws one clip of somebody else's speech."""


class NoiseFolder:
    """Recordings of noise in a folder and the folders in it.

    In MUSAN's layout (``noise/``, ``speech/``, ``music/``) each kind of sound has its own recordings; what one of them
    lacks is made by arithmetic, or of other utterances. In any other layout all recordings are noise.

    Raises:
        InputError: there is no such folder, or no recording in it.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"noise folder {folder} does not exist; allowed: a folder of recordings")
        parted = any((self.folder / name).is_dir() for name in MUSAN.values())
        places = {kind: self.folder / name for kind, name in MUSAN.items()} if parted else {"noise": self.folder}
        self.files = {kind: found for kind, place in places.items() if (found := _recordings(place))}
        if not self.files:
            raise InputError(
                f"noise folder {folder} holds no recording; allowed: wav, flac, mp3 and others, at any depth"
            )

    def clip(self, kind: str, count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) of some recording of that kind, from some place on, and again from its beginning where it ends.

        Raises:
            InputError: a recording cannot be read, or all that were tried are silent.
        """
        files = self.files[kind]
        for _ in range(_TRIES):
            path = files[rng.integers(len(files))]
            samples = _cut(path, count, rate, rng)
            if np.mean(np.square(samples)) > _SILENT:
                return unit(samples)
        raise InputError(f"noise folder {self.folder}: {_TRIES} recordings in a row are silent, the last is {path}")


def _recordings(folder: Path) -> list[str]:
    """In an order that does not depend on the file system."""
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def _cut(path: str, count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    seconds = min(_seconds(path), _LONGEST)
    start = rng.uniform(0, max(0.0, seconds - count / rate))
    end = min(seconds, start + count / rate)
    return np.resize(load_samples(path, rate, start, end), count) if end > start else np.zeros(count, np.float32)


@functools.lru_cache(maxsize=1 << 14)
def _seconds(path: str) -> float:
    return probe_seconds(path)


class Utterances:
    """Voices of a babble: utterances of a corpus, which load in no time.

    Args:
        load: samples of an audio.
        audios: whatever ``load`` takes; at least one.
    """

    def __init__(self, load: Callable[[str], np.ndarray], audios: Sequence[str]):
        self._audios = audios
        self._load = functools.lru_cache(maxsize=256)(load)

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return self._load(self._audios[rng.integers(len(self._audios))])


def clips(voice: Voice, count: int, rng: np.random.Generator) -> Voice:
    """A voice that draws from ``count`` clips of another one: long babble of clips that take time to make."""
    made = [voice(rng) for _ in range(count)]
    return lambda draw: made[draw.integers(count)]


def make_sound(
    kind: str, count: int, rate: int, rng: np.random.Generator, folder: NoiseFolder | None, voice: Voice | None
) -> np.ndarray:
    """(count,) of mean square 1 of one of :data:`sap2.augment.options.SOUNDS`.

    Raises:
        InputError: nobody's voice is there for a babble.
    """
    has_own = folder is not None and kind in folder.files
    if kind == "babble":
        if has_own:
            return _babble(count, rng, lambda draw: folder.clip(kind, count, rate, draw))
        if voice is None:
            raise InputError("babble needs voices; allowed: a noise folder with speech/, or kinds without babble")
        return _babble(count, rng, voice)
    if has_own:
        return folder.clip(kind, count, rate, rng)
    return hum(count, rate, rng) if kind == "hum" else coloured_noise(count, rng)


def _babble(count: int, rng: np.random.Generator, voice: Voice) -> np.ndarray:
    """Several voices at a time, all as loud as each other."""
    voices = [_speech(count, rng, voice) for _ in range(rng.integers(*_VOICES))]
    return unit(np.sum(voices, axis=0))


def _speech(count: int, rng: np.random.Generator, voice: Voice) -> np.ndarray:
    """One voice: clip after clip, from some place of the first on."""
    first = voice(rng)
    parts = [np.roll(first, -int(rng.integers(max(1, len(first)))))]
    total = len(first)
    while total < count:
        parts.append(voice(rng))
        total += max(1, len(parts[-1]))
    return unit(np.concatenate(parts)[:count].astype(np.float32))
