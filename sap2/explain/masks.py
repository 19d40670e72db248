"""Regions of a spectrogram that are silenced, and what the answers to that say about each of them.

Notation: N masks, G bands of mel bins, T tokens of the audio (40 ms each), W words, F mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sap2.lengths import FRAMES_PER_TOKEN

BANDS = 8
"""Of equal numbers of mel bins; mel bins are narrow where the ear is fine."""
SCALES = ((2, 1), (4, 2), (8, 4))
"""Sizes of the regions, in tokens of 40 ms and in bands: small ones say where, large ones take whole words."""
DROP = 0.5
"""How likely a region is silenced."""


def draw_masks(
    count: int, tokens: int, seed: int, scales: Sequence[tuple[int, int]] = SCALES, drop: float = DROP
) -> np.ndarray:
    """Masks (count, BANDS, tokens), True = kept: regions of all sizes in turn, their grid shifted at random."""
    numbers = np.random.default_rng(seed)
    masks = np.empty((count, BANDS, tokens), dtype=bool)
    for index in range(count):
        wide, high = scales[index % len(scales)]
        across, along = numbers.integers(high), numbers.integers(wide)
        kept = numbers.random((BANDS // high + 2, tokens // wide + 2)) >= drop
        kept = kept.repeat(high, 0)[across : across + BANDS].repeat(wide, 1)
        masks[index] = kept[:, along : along + tokens]
    return masks


def quiet(features: Tensor) -> Tensor:
    """What a silenced place holds: the lowest value of the utterance, which is what its extractor makes of silence."""
    return features.amin()


def silence(features: Tensor, kept: np.ndarray) -> Tensor:
    """The utterance (mel bins, F) with what is not kept silenced, for each mask of (N, G, T) → (N, mel bins, F).

    Frames after the last token of the masks stay as they are.
    """
    bins, frames = features.shape
    rows = torch.arange(bins, device=features.device) * kept.shape[1] // bins
    columns = torch.arange(frames, device=features.device) // FRAMES_PER_TOKEN
    table = torch.from_numpy(np.concatenate([kept, np.ones_like(kept[..., :1])], -1)).to(features.device)
    chosen = table[:, rows][:, :, columns.clamp(max=kept.shape[2])]
    return torch.where(chosen, features, quiet(features))


def relevance(kept: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """How much better a word goes where a region is kept than where it is silenced, whatever the others are.

    Args:
        kept: (N, G, T) masks.
        answers: (N, W) log probability of each word under each mask.

    Returns:
        (W, G, T) differences of means, in nats; 0 where a region was always kept or always silenced.
    """
    flat = kept.reshape(len(kept), -1).astype(np.float64)
    centred = answers - answers.mean(0)
    sums, counts = centred.T @ flat, flat.sum(0)
    with_it = sums / np.maximum(counts, 1)
    without_it = -sums / np.maximum(len(flat) - counts, 1)  # all of them sum to 0
    both = (counts > 0) & (counts < len(flat))
    return np.where(both, with_it - without_it, 0.0).reshape(-1, *kept.shape[1:])


def over_tokens(frames: np.ndarray, tokens: int) -> np.ndarray:
    """(…, F) → (…, T): the sum over the mel frames of each token; what comes after the last token goes to it."""
    first = np.arange(tokens) * FRAMES_PER_TOKEN
    return np.add.reduceat(frames, np.minimum(first, frames.shape[-1] - 1), axis=-1)
