"""What a room, a line or a recorder does to speech. Each takes (samples,) float32 and returns as many, in time with
what came in, but for :func:`change_speed`."""

from __future__ import annotations

import functools
import io

import numpy as np

from sap2.augment.sounds import power_of
from sap2.errors import InputError

ROOMS = 64
"""Rooms that there are for each seed; an echo takes 30 ms to compute, and is computed once."""
_SECONDS_OF_ECHO = (0.2, 0.7)  # until it is 60 dB below the speech
_SMALLEST, _LARGEST = np.array((3.0, 3.0, 2.4)), np.array((12.0, 10.0, 4.0))  # metres
_MOST_REFLECTIONS = 30
_FROM_WALL = 0.5  # metres
_BAND = (300.0, 3400.0)  # Hz, of a telephone
_EDGE = 100.0  # Hz, over which the band fades
_CODECS = (("WAV", "ULAW", 8000), ("WAV", "GSM610", 8000), ("MP3", "MPEG_LAYER_III", 16000), ("OGG", "VORBIS", 16000))
_GAIN = (-20.0, 6.0)  # dB; what is then above full scale is cut
_SPEED = (0.9, 1.1)


def add_echo(samples: np.ndarray, rate: int, rng: np.random.Generator, seed: int = 0) -> np.ndarray:
    """The recording as a microphone somewhere in a room hears it, as loud as before."""
    echo = room_response(seed, int(rng.integers(ROOMS)), rate)
    size = 1 << (len(samples) + len(echo) - 2).bit_length()
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echo, size), size)[: len(samples)]
    power = power_of(heard)
    return (heard * np.sqrt(power_of(samples) / power)).astype(np.float32) if power else samples


@functools.lru_cache(maxsize=2 * ROOMS)
def room_response(seed: int, number: int, rate: int) -> np.ndarray:
    """The impulse response of one of the rooms, from the direct sound on: mirror images in a box (Allen and Berkley
    1979, by pyroomacoustics)."""
    import pyroomacoustics

    rng = np.random.default_rng([seed, number])
    size = rng.uniform(_SMALLEST, _LARGEST)
    places = [rng.uniform(_FROM_WALL, size - _FROM_WALL) for _ in range(2)]
    absorption, reflections = 1.0, 0
    for seconds in (rng.uniform(*_SECONDS_OF_ECHO), 1.0):  # walls cannot make a large room so dry
        try:
            absorption, reflections = pyroomacoustics.inverse_sabine(seconds, size)
            break
        except ValueError:
            continue
    room = pyroomacoustics.ShoeBox(
        size, fs=rate, materials=pyroomacoustics.Material(absorption), max_order=min(reflections, _MOST_REFLECTIONS)
    )
    room.add_source(places[0])
    room.add_microphone(places[1])
    room.compute_rir()
    response = np.asarray(room.rir[0][0], np.float32)
    return response[int(np.argmax(np.abs(response))) :]


def telephone(samples: np.ndarray, rate: int) -> np.ndarray:
    """What a telephone lets through."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    inside = np.minimum(frequencies - _BAND[0], _BAND[1] - frequencies) / _EDGE
    spectrum = np.fft.rfft(samples) * np.clip(inside + 0.5, 0, 1)
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def lossy(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Through one of four codecs and back: two of telephones, two of recorders."""
    import soundfile
    import soxr

    container, coding, own_rate = _CODECS[rng.integers(len(_CODECS))]
    stream = io.BytesIO()
    limited = np.clip(samples, -1, 1)
    soundfile.write(stream, soxr.resample(limited, rate, own_rate), own_rate, format=container, subtype=coding)
    stream.seek(0)
    coded, own_rate = soundfile.read(stream, dtype="float32")
    return fitted(soxr.resample(coded, own_rate, rate), len(samples))


def change_level(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Louder or less loud; what is above full scale is cut off, as a recorder does."""
    return np.clip(samples * np.float32(10 ** (rng.uniform(*_GAIN) / 20)), -1, 1)


def change_speed(samples: np.ndarray, rate: int, rng: np.random.Generator, most: int | None = None) -> np.ndarray:
    """Up to a tenth quicker and higher, or slower and lower, as a tape; never longer than ``most`` samples."""
    import soxr

    factor = rng.uniform(*_SPEED)
    if most is not None:
        factor = max(factor, len(samples) / most)
    return soxr.resample(samples, rate * factor, rate)[:most]


def fitted(samples: np.ndarray, count: int) -> np.ndarray:
    """So many samples: the first ones, or all and silence."""
    if not len(samples):
        raise InputError(f"nothing is left of {count} samples; allowed: audio of a tenth of a second or more")
    return np.pad(samples, (0, max(0, count - len(samples))))[:count]
