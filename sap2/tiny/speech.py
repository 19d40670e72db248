"""Speech and phonemes from espeak-ng, through the library that the ``espeakng-loader`` package carries.

The library is one global machine per process, so all of it lies behind one lock. It also keeps state between two
utterances that no call resets (phases of its oscillators, random numbers seeded from the clock); therefore each
utterance is spoken by a freshly loaded library: what :func:`speak` returns depends on its arguments alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sap2.errors import InputError
from sap2.tables import TimedWord
from sap2.tiny.word_events import EVENTS, INITIALIZE_PHONEME_EVENTS, Event, read_events, time_words

SAMPLE_RATE = 16_000
"""Samples per second of what :func:`speak` returns: what Qwen2-Audio hears."""
DEFAULT_VOICE = "en-us"
DEFAULT_RATE, MIN_RATE, MAX_RATE = 175, 80, 450  # words per minute, espeak's own limits
DEFAULT_PITCH = 50

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

# Values of espeak-ng's public header (speak_lib.h)
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_OK = 0
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_PHONEMES_IPA = 0x02
_PHONEMES_SEPARATED = ord("_") << 8
_INITIALIZE_DONT_EXIT = 0x8000

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, EVENTS)
_lock = threading.Lock()
_loaded: _Engine | None = None


class Speech(NamedTuple):
    """Mono float32 ``samples`` at :data:`SAMPLE_RATE`, in [-1, 1), and the ``words`` (between spaces) in them."""

    samples: np.ndarray
    words: list[TimedWord]


def speak(text: str, voice: str = DEFAULT_VOICE, rate: int = DEFAULT_RATE, pitch: int = DEFAULT_PITCH) -> np.ndarray:
    """Speak a text.

    Args:
        text: what to say, in the voice's language.
        voice: a language of espeak-ng, alone or with a variant: ``en-us``, ``en-us+f2``, ``en-gb-x-rp+m3``.
        rate: words per minute, 80 to 450.
        pitch: 0 to 100; 50 is the voice's own.

    Returns:
        Mono float32 samples at :data:`SAMPLE_RATE`, in [-1, 1).

    Raises:
        InputError: the voice is unknown, a number is out of range, or the text makes no sound.
        OSError: the library does not start.
    """
    return speak_words(text, voice, rate, pitch).samples


def speak_words(text: str, voice: str = DEFAULT_VOICE, rate: int = DEFAULT_RATE, pitch: int = DEFAULT_PITCH) -> Speech:
    """As :func:`speak`, with the times of the words.

    They are what the library reports, in whole milliseconds: a stop's closure belongs to its word.
    """
    _check_range("rate", rate, MIN_RATE, MAX_RATE)
    _check_range("pitch", pitch, 0, 100)
    with _lock:
        engine = _engine(fresh=True)
        engine.set_voice(voice)
        engine.set_parameter(_PARAMETER_RATE, rate)
        engine.set_parameter(_PARAMETER_PITCH, pitch)
        samples, events = engine.synthesize(text)
        words = time_words(text, events, len(samples) / engine.sample_rate, engine.count_phonemes)
    if not samples.any():
        raise InputError(f"text {text!r} makes no sound; give words in the voice's language")
    import soxr

    return Speech(soxr.resample(samples.astype(np.float32) / 32768, engine.sample_rate, SAMPLE_RATE), words)


def phonemes(text: str, voice: str = DEFAULT_VOICE) -> str:
    """How espeak-ng would say the text, in the International Phonetic Alphabet. Same sound, same string.

    Raises:
        InputError: the voice is unknown.
    """
    with _lock:
        engine = _engine()
        engine.set_voice(voice)
        return engine.phonemes(text)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; allowed: {low} to {high}")


@functools.cache
def _variants() -> frozenset[str]:
    import espeakng_loader

    return frozenset(path.name for path in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir())


def _engine(fresh: bool = False) -> _Engine:
    global _loaded
    if fresh and _loaded:
        _loaded.close()
        _loaded = None
    _loaded = _loaded or _Engine()
    return _loaded


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is over: what is raised in a callback of the library would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for arrived in caught:
        signal.raise_signal(arrived)


class _Engine:
    """The loaded library. Not thread-safe: callers hold the lock."""

    def __init__(self) -> None:
        import espeakng_loader

        if os.name != "posix":
            raise OSError("synthetic speech needs Linux or macOS")
        path = espeakng_loader.get_library_path()
        self._library = library = ctypes.CDLL(path)
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        data = espeakng_loader.get_data_path().encode()
        options = _INITIALIZE_DONT_EXIT | INITIALIZE_PHONEME_EVENTS
        self.sample_rate: int = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, options)
        if self.sample_rate <= 0:
            raise OSError(f"{path}: espeak-ng does not start (code {self.sample_rate}); reinstall espeakng-loader")
        self._voice: str | None = None
        self._chunks: list[np.ndarray] = []
        self._events: list[Event] = []
        self._callback = _SynthCallback(self._receive)  # kept: the library holds only its address
        library.espeak_SetSynthCallback(self._callback)

    def close(self) -> None:
        """Unload the library; the object is of no use afterwards."""
        self._library.espeak_Terminate()
        unload = ctypes.CDLL(None).dlclose
        unload.argtypes = [ctypes.c_void_p]
        unload(self._library._handle)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        self._events += read_events(events)
        return 0  # go on

    def set_voice(self, voice: str) -> None:
        if voice == self._voice:
            return
        _, plus, variant = voice.partition("+")
        # An unknown variant is ignored by the library in silence, and after an unknown name it goes on in the old voice
        known = voice.isascii() and voice.isprintable() and (not plus or variant in _variants())
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise InputError(f"voice {voice!r} is unknown to espeak-ng; examples: en-us, en-us+f2, en-gb-x-rp+m3")
        self._voice = voice

    def set_parameter(self, parameter: int, value: int) -> None:
        if self._library.espeak_SetParameter(parameter, value, 0) != _OK:
            raise InputError(f"espeak-ng refuses the value {value} of its parameter {parameter}")

    def synthesize(self, text: str) -> tuple[np.ndarray, list[Event]]:
        """(N,) int16 at ``sample_rate``, and what happens in them."""
        self._chunks, self._events = [], []
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # by default the library seeds itself from the clock
        data = text.replace("\0", " ").encode() + b"\0"
        with _signals_wait():
            code = self._library.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
            done = code == _OK and self._library.espeak_Synchronize() == _OK
        if not done:
            raise OSError(f"espeak-ng cannot speak {text[:80]!r} (code {code})")
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return samples, self._events

    def count_phonemes(self, word: str) -> int:
        return sum(map(bool, self.phonemes(word, _PHONEMES_SEPARATED).replace(" ", "_").split("_")))

    def phonemes(self, text: str, mode: int = _PHONEMES_IPA) -> str:
        rest = ctypes.c_char_p(text.replace("\0", " ").encode())
        parts = []
        while rest.value is not None:  # one clause a call; the pointer is null after the last
            part = self._library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, mode)
            parts.append((part or b"").decode())
        return " ".join(part for part in parts if part)
