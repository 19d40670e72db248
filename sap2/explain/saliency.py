"""What of the sound a word rests on: by silencing parts of it, and by gradients.

Notation: W words, G bands of mel bins, T tokens of the audio, F mel frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sap2.explain.forced import ForcedReply
from sap2.explain.masks import draw_masks, over_tokens, quiet, relevance, silence
from sap2.explain.spans import WordSpan
from sap2.pipeline.batching import by_halves

Told = Callable[[int], object]
"""Is told how many more inputs have gone through the model."""


def word_log_probs(log_probs: Tensor, words: Sequence[WordSpan]) -> Tensor:
    """(B, R) of the tokens → (B, W) of the words: the sums over their tokens."""
    return torch.stack([log_probs[:, word.tokens].sum(-1) for word in words], -1)


@torch.no_grad()
def answers(forced: ForcedReply, words: Sequence[WordSpan], kept: np.ndarray, batch: int, told: Told) -> np.ndarray:
    """Log probability (N, W) of each word under each mask (N, G, T)."""

    def answer(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
        log_probs = forced.log_probs(silence(forced.features, np.stack(masks)))
        return list(word_log_probs(log_probs, words).cpu().numpy())

    found: list[np.ndarray] = []
    for start in range(0, len(kept), batch):
        for made in by_halves(list(kept[start : start + batch]), answer):
            if isinstance(made, Exception):
                raise made
            found.append(made)
        told(min(batch, len(kept) - start))
    return np.stack(found)


def by_perturbation(
    forced: ForcedReply, words: Sequence[WordSpan], masks: int, batch: int, told: Told, seed: int = 0
) -> np.ndarray:
    """Relevance (W, G, T) of the regions of the sound for each word, in nats (:func:`sap2.explain.masks.relevance`).

    Source: the masks are those of Fucci et al. 2024 (SPES) and Papi et al. 2025 (arXiv 2509.18010), regions of three
    sizes, each silenced with probability 0.5, on a regular grid in place of their segmentation.
    """
    kept = draw_masks(masks, forced.heard.tokens, seed)
    return relevance(kept, answers(forced, words, kept, batch, told))


def by_gradients(forced: ForcedReply, words: Sequence[WordSpan], steps: int, batch: int, told: Told) -> np.ndarray:
    """Relevance (W, T) of each token of the audio for each word, in nats: integrated gradients from silence to the
    sound, summed over the mel bins and frames of the token.

    Source: Sundararajan et al. 2017, by captum.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(lambda features: word_log_probs(forced.log_probs(features), words))
    sound = forced.features[None]
    baseline = torch.full_like(sound, float(quiet(sound)))
    found = []
    for number in range(len(words)):
        given = method.attribute(sound, baseline, target=number, n_steps=steps, internal_batch_size=batch)
        found.append(given[0].detach().sum(0).float().cpu().numpy())
        told(steps)
    return over_tokens(np.stack(found), forced.heard.tokens)
