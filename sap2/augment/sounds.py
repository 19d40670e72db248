"""Sounds that are made by arithmetic, each (samples,) float32 of mean square 1: coloured noise and hum."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 16
"""Noise is made in blocks of this many samples: a power of two, since a transform of any length may take seconds."""
_MAINS = (50.0, 60.0)
_HARMONICS = 12
_CHORD = (1.0, 1.25, 1.5, 2.0)  # major


def pink_noise(rng: np.random.Generator, slope: float = 1.0) -> np.ndarray:
    """(BLOCK,) of mean square 1; power falls with the frequency to the power ``slope``: 0 white, 1 pink, 2 brown."""
    bins = BLOCK // 2 + 1
    spectrum = rng.standard_normal(bins) + 1j * rng.standard_normal(bins)
    noise = np.fft.irfft(spectrum / np.sqrt((np.arange(bins) + 1.0) ** slope), BLOCK)
    return unit(noise).astype(np.float32)


def coloured_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of any colour from white to brown."""
    slope = rng.uniform(0.0, 2.0)
    noise = np.concatenate([pink_noise(rng, slope) for _ in range(0, max(1, count), BLOCK)])[:count]
    return unit(noise).astype(np.float32)


def hum(count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Hum of the mains with its harmonics, or a chord that swells, as of music in the next room."""
    time = np.arange(count) / rate
    music = rng.random() < 0.5
    base = rng.uniform(110.0, 440.0) if music else _MAINS[rng.integers(len(_MAINS))]
    tones = [base * step for step in _CHORD] if music else [base * number for number in range(1, _HARMONICS + 1)]
    sound = np.zeros(count)
    for number, tone in enumerate(tones, 1):
        level = rng.uniform(0.3, 1.0) / (1 if music else number)
        swell = 1 + 0.5 * music * np.sin(2 * np.pi * (rng.uniform(0.3, 3.0) * time + rng.random()))
        sound += level * swell * np.sin(2 * np.pi * (tone * time + rng.random()))
    return unit(sound).astype(np.float32)


def unit(samples: np.ndarray) -> np.ndarray:
    """The same sound with mean square 1; silence stays silence."""
    power = power_of(samples)
    return samples / np.sqrt(power) if power > 0 else samples


def power_of(samples: np.ndarray) -> float:
    """Mean square."""
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
