"""Audio files to samples, and their length without reading them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from sap2.errors import InputError
from sap2.lengths import MIN_SECONDS

# librosa's other reader is tried in turn; what comes of it is said by the result or by the error
warnings.filterwarnings("ignore", message="PySoundFile failed")
warnings.filterwarnings("ignore", message=r"librosa\.core\.audio\.__audioread_load")


def load_samples(path: str | os.PathLike[str], sampling_rate: int) -> np.ndarray:
    """(samples,) float32 at that rate, channels averaged; the same numbers as ``swift infer`` hears.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    import librosa

    _check_file(path)
    try:
        samples, _ = librosa.load(os.fspath(path), sr=sampling_rate, mono=True)
    except Exception as error:
        raise unreadable_audio(path, error) from None
    return samples


def probe_seconds(path: str | os.PathLike[str]) -> float:
    """Length in seconds, from the file's header where it has one.

    Raises:
        InputError: the file does not exist, is empty or cannot be read.
    """
    import soundfile

    _check_file(path)
    try:
        return float(soundfile.info(os.fspath(path)).duration)
    except (RuntimeError, OSError):  # what libsndfile does not know, librosa's other readers may
        import librosa

        try:
            return float(librosa.get_duration(path=os.fspath(path)))
        except Exception as error:
            raise unreadable_audio(path, error) from None


def check_audio(audio: np.ndarray, sampling_rate: int, max_samples: int, truncate: bool, name: str) -> np.ndarray:
    """One channel of samples that fits the model's window.

    Args:
        audio: (samples,) floating point.
        sampling_rate: samples per second.
        max_samples: window of the feature extractor (``n_samples``), 30 s for Qwen2-Audio.
        truncate: cut longer audio at the window instead of refusing it.
        name: of the file, for the message.

    Raises:
        InputError: the audio is empty, shorter than :data:`MIN_SECONDS`, longer than the window, or not finite.
    """
    seconds, window = len(audio) / sampling_rate, max_samples / sampling_rate
    if len(audio) == 0:
        raise InputError(f"audio {name} is empty; allowed: {MIN_SECONDS} to {window:g} s")
    if seconds < MIN_SECONDS:
        raise InputError(f"audio {name} is {seconds:.3g} s long; allowed: {MIN_SECONDS} to {window:g} s")
    if not np.isfinite(audio).all():
        raise InputError(f"audio {name} holds samples that are not finite numbers; allowed: finite samples")
    if len(audio) > max_samples:
        if not truncate:
            raise InputError(
                f"audio {name} is {seconds:.2f} s long, and the model hears {window:g} s: cut it into pieces, or pass "
                f"--sap_truncate_audio true to hear the first {window:g} s of it"
            )
        audio = audio[:max_samples]
    return audio


def _check_file(path: str | os.PathLike[str]) -> None:
    file = Path(path)
    if not file.is_file():
        raise InputError(f"audio {path} does not exist; allowed: an audio file")
    if file.stat().st_size == 0:
        raise InputError(f"audio {path} is empty (0 bytes)")


def unreadable_audio(name: str | os.PathLike[str], error: Exception) -> InputError:
    """What to raise for an audio that no reader could read, with the first line of what the reader said."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"audio {name} cannot be read ({reason}); allowed: what libsndfile or librosa reads (wav, flac, mp3, ogg)"
    )
