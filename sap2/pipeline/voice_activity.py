"""Where somebody speaks in a recording.

Two detectors: Silero's neural network, whose weights come with its package, knows speech from noise at any share of
speech and any level of noise; the energy of the signal is what is left where that cannot be loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sap2.audio_samples import Samples
from sap2.errors import InputError

Run = tuple[int, int]
"""A stretch of speech: its first sample, and the one after its last."""
Detector = Callable[[Samples, int], list[Run]]
"""From (samples,) and their rate to the stretches of speech, in order, not overlapping."""

HOP_SECONDS = 0.010
"""Step of the levels; each is taken over three steps."""
_BLOCK_SECONDS = 60
_QUIET, _LOUD = 10, 95
"""Percentiles of the frames' levels that stand for background, and of the louder frames' that stand for speech."""
_THRESHOLD = 0.35
"""How far the threshold is from the quiet to the loud level."""
_MAX_RANGE_DB = 60.0
"""Digital silence is infinitely quiet; no further below speech than this counts."""
_MIN_RANGE_DB = 9.0
"""With less between its quiet and its loud level, a recording has no pauses that can be told from speech."""
_FLOOR_DB = -70.0
"""Below this (full scale is 0) there is no speech at all."""

_SILERO_RATE = 16_000
_SILERO_THRESHOLD = 0.4
"""Probability from which a frame of 32 ms is speech; its authors' 0.5 loses the soft ends of sentences in noise."""
_SILERO_LEVEL_DB = -25.0
"""Quieter speech is raised to this: the network was made for voices that speak up."""
_SILERO_FRAME = 512
"""Samples of a frame."""
_SILERO_BLOCK, _SILERO_LEAD = 20_000, 60
"""Frames heard at a time (about eleven minutes), so that a recording of ten hours is not copied; and before them."""
_SILERO_MIN_SPEECH_MS = 60
_SILERO_MIN_SILENCE_MS = 100
_SILERO_PAD_MS = 60
"""Added at both ends of a stretch: the network hears soft first sounds late."""


def detect_by_energy(samples: Samples, sampling_rate: int) -> list[Run]:
    """Speech is what is louder than a threshold between the recording's own quiet and loud levels.

    So background noise and a low volume move the threshold along. Noise is taken for speech where it changes.
    """
    hop = round(HOP_SECONDS * sampling_rate)
    levels = frame_levels(samples, hop)
    quiet, loud = _quiet_and_loud(levels)
    if loud < _FLOOR_DB:
        return []
    if loud - quiet < _MIN_RANGE_DB:
        return [(0, len(samples))]
    speech = levels > max(quiet + _THRESHOLD * (loud - quiet), _FLOOR_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech, [False]]).astype(np.int8)))
    return [(first * hop, min(last * hop, len(samples))) for first, last in edges.reshape(-1, 2).tolist()]


def _quiet_and_loud(levels: np.ndarray) -> tuple[float, float]:
    """The level of the background, and that of what is louder, however little of the recording it is."""
    if not len(levels):
        return -np.inf, -np.inf
    quiet = float(np.percentile(levels, _QUIET))
    louder = levels[levels > max(quiet + _MIN_RANGE_DB, _FLOOR_DB)]
    loud = float(np.percentile(louder if len(louder) else levels, _LOUD))
    return max(quiet, loud - _MAX_RANGE_DB), loud


def frame_levels(samples: Samples, hop: int) -> np.ndarray:
    """Level of each step of ``hop`` samples and its two neighbours, dB of full scale."""
    block = hop * round(_BLOCK_SECONDS / HOP_SECONDS)
    powers = []
    for first in range(0, len(samples), block):  # a recording of ten hours is not copied
        part = samples[first : first + block]
        part = np.pad(part, (0, -len(part) % hop)).reshape(-1, hop)
        powers.append(np.mean(np.square(part), axis=1, dtype=np.float64))
    power = np.concatenate(powers) if powers else np.zeros(0)
    power = np.convolve(power, np.ones(3) / 3, mode="same") if len(power) >= 3 else power
    return 10 * np.log10(np.maximum(power, 1e-20))


def detect_by_silero(samples: Samples, sampling_rate: int) -> list[Run]:
    """Speech as Silero's network hears it. Several threads may ask at a time.

    Source: https://github.com/snakers4/silero-vad, model of version 6.2.

    Raises:
        InputError: the sampling rate is not 16 kHz.
        ImportError: silero-vad or onnxruntime cannot be loaded.
    """
    if sampling_rate != _SILERO_RATE:
        raise InputError(f"--vad silero: the audio has {sampling_rate} samples a second; allowed: {_SILERO_RATE}")
    from silero_vad import get_speech_timestamps_from_probs

    _, loud = _quiet_and_loud(frame_levels(samples, round(HOP_SECONDS * sampling_rate)))
    if loud < _FLOOR_DB:
        return []
    gain = 10 ** (max(0.0, _SILERO_LEVEL_DB - loud) / 20)
    probabilities = np.concatenate(list(_silero_blocks(samples, gain)))
    found = get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=_SILERO_THRESHOLD,
        min_speech_duration_ms=_SILERO_MIN_SPEECH_MS,
        min_silence_duration_ms=_SILERO_MIN_SILENCE_MS,
        speech_pad_ms=_SILERO_PAD_MS,
        audio_length_samples=len(samples),
    )
    return [(run["start"], run["end"]) for run in found]


def _silero_blocks(samples: Samples, gain: float) -> Iterator[np.ndarray]:
    """Probabilities of speech of each frame; a block begins with the end of the one before, to hear itself in."""
    step, lead = _SILERO_BLOCK * _SILERO_FRAME, _SILERO_LEAD * _SILERO_FRAME
    for first in range(0, len(samples), step):
        begin = max(0, first - lead)
        block = np.clip(samples[begin : first + step] * np.float32(gain), -1, 1)
        yield _silero().audio_forward(block)[(first - begin) // _SILERO_FRAME :]


@functools.cache
def _silero() -> Any:
    """The network, loaded once. It has no state between calls."""
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad

        return load_silero_vad(sequence=True)
    finally:
        torch.set_num_threads(threads)  # its import sets one thread for the whole process


DETECTORS: dict[str, Detector] = {"silero": detect_by_silero, "energy": detect_by_energy}


def choose_detector(name: str | None = None) -> Detector:
    """The detector of that name; None: Silero's, or the energy where that cannot be loaded.

    Raises:
        InputError: there is none of that name.
        ImportError: it was asked for by name and cannot be loaded.
    """
    if name is None:
        try:
            _silero()
        except ImportError as error:
            import warnings

            warnings.warn(
                f"recordings are cut by their energy, since silero-vad cannot be loaded: {error}", stacklevel=2
            )
            return detect_by_energy
        return detect_by_silero
    if name not in DETECTORS:
        raise InputError(f"--vad {name!r} is unknown; allowed: {', '.join(DETECTORS)}")
    if name == "silero":
        _silero()
    return DETECTORS[name]
