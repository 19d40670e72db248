"""What the model can hear: the length of an audio in samples, frames and tokens, and the errors of one it cannot."""

from __future__ import annotations

import numpy as np

from sap2.errors import InputError

MIN_SECONDS = 0.1
"""Shorter audio has too few mel frames to be speech."""


def audio_token_count(mel_frames: int) -> int:
    """Tokens that ``mel_frames`` frames (10 ms each) become; 3000 frames (30 s) are 750 tokens.

    Source: ``Qwen2AudioEncoder._get_feat_extract_output_lengths`` (one convolution and one pooling, stride 2 each).
    """
    return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1


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
