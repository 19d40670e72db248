"""Every length of the model: samples, mel frames, speech tokens, pooled context. Standard library only."""

from __future__ import annotations

SAMPLING_RATE = 16_000
"""Samples per second that Qwen2-Audio hears."""
HOP_LENGTH = 160
"""Samples from one mel frame to the next (10 ms)."""
MAX_SECONDS = 30.0
"""The window of Qwen2-Audio's encoder; a checkpoint's own stands in its feature extractor."""
MIN_SECONDS = 0.1
"""Shorter audio has too few mel frames to be speech."""
FRAMES_PER_TOKEN = 4
"""Mel frames that become one token of speech: one convolution and one pooling, stride 2 each."""


def mel_frame_count(samples: int, hop_length: int = HOP_LENGTH) -> int:
    """Mel frames of that many samples; the feature extractor begins one every ``hop_length``."""
    return -(-samples // hop_length)


def audio_token_count(mel_frames: int) -> int:
    """Tokens that ``mel_frames`` frames (10 ms each) become; 3000 frames (30 s) are 750 tokens.

    Source: ``Qwen2AudioEncoder._get_feat_extract_output_lengths`` (one convolution and one pooling, stride 2 each).
    """
    return (convolved_length(mel_frames) - 2) // 2 + 1


def convolved_length(mel_frames: int) -> int:
    """Positions of the encoder's layers for that many mel frames: what its convolution of stride 2 leaves."""
    return (mel_frames - 1) // 2 + 1


SALIENCE_MIN_POSITIONS = 64
"""Embeddings that ``salience`` compresses a context to at least, unless told otherwise: it keeps keywords whole, which
needs room, and a list that short costs little as it is."""


def least_positions(pooling: str | None) -> int:
    """Embeddings that a pooling compresses a context to at least, where no ``sap_min_positions`` says so."""
    return SALIENCE_MIN_POSITIONS if pooling == "salience" else 0


def pooled_length(length: int, window_size: int, min_positions: int = 0) -> int:
    """Embeddings that ``length`` context tokens become: ceil(L/w), but no fewer than ``min_positions`` (or all)."""
    return max(-(-length // window_size), min(length, min_positions))


def speech_token_count(samples: int, hop_length: int = HOP_LENGTH) -> int:
    """Tokens of an audio of that many samples; 0 where it has none."""
    return audio_token_count(mel_frame_count(samples, hop_length)) if samples else 0
