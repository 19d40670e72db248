"""Retriever of terms by attention: which terms of a list does the speech hold, by the tokens they are written with?

After Attention2Probability (arXiv 2508.18701): the tokens of a term, as the language model embeds them, look for
themselves in the speech embeddings, and what they find gives the probability that the term is there. Two faults of the
released code are not here: it attends to padding, and its choice between words and phrases is fixed.

A token is looked for without its neighbours: the evidence for a term is the mean of the evidence for its tokens, in
whatever order they stand. So each distinct token is looked for once, however many terms have it, and a bank of terms
costs what its tokens cost.

Notation: A audios, T frames, D width, K terms, n tokens of the longest, U distinct tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sap2.model.spotter import SpotterLinear, ZeroLinear

DROPOUT = 0.1
"""Of the attention's weights, in training."""
LABEL_SMOOTHING = 0.1
NO_TOKEN = -1
"""Padding among the tokens of terms."""
NO_TERM = -100
"""Padding among the labels of terms."""
_CHUNK = 1 << 24
"""Weights of attention that are computed at a time, at most."""


class RetrieverLinear(SpotterLinear):
    """A layer of the retriever, untrained: the same in every process, and another than its neighbours of that shape."""

    def __init__(self, width: int, seed: int):
        self.seed = seed
        super().__init__(width, width)


class TokenQueries(NamedTuple):
    """Tokens that are ready to be looked for: as the terms' layer makes them, and as the attention's (U, D)."""

    terms: Tensor
    queries: Tensor


class TermRetriever(nn.Module):
    """Multi-head attention from tokens to speech, without norm and feed-forward layer.

    Args:
        width: D of the language model.
        heads: of the attention; must divide the width.

    Untrained, every term is as likely.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.terms = RetrieverLinear(width, 1)
        self.query = RetrieverLinear(width, 2)
        self.key = RetrieverLinear(width, 3)
        self.value = RetrieverLinear(width, 4)
        self.output = RetrieverLinear(width, 5)
        self.presence = ZeroLinear(width, 2)

    def prepare(self, embeddings: Tensor) -> TokenQueries:
        """Embeddings of tokens (U, D), from the language model's table, as queries."""
        terms = self.terms(embeddings.to(self.terms.weight.dtype))
        return TokenQueries(terms, self.query(terms))

    def find(self, tokens: TokenQueries, speech: Tensor, mask: Tensor) -> Tensor:
        """Logits (A, U, 2) of absence and presence of each token, float32.

        Args:
            speech: (A, T, D) speech embeddings.
            mask: (A, T), True = valid; each audio has a valid frame.
        """
        speech = speech.to(self.key.weight.dtype)
        keys, values = self._divided(self.key(speech)), self._divided(self.value(speech))
        step = max(1, _CHUNK // max(1, speech.shape[0] * self.heads * speech.shape[1]))
        found = [self._attend(part, keys, values, mask) for part in tokens.queries.split(step)]
        # the mean of a term's outputs and of its tokens comes later: it is the same of logits, which are smaller
        return self.presence(torch.cat(found, 1) + tokens.terms).float()

    def is_trained(self) -> bool:
        """Whether it has learnt anything."""
        return bool(self.presence.weight.any())

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """What the queries (U, D) find in each audio (A, U, D)."""
        queries = self._divided(queries.expand(len(keys), -1, -1))
        found = nn.functional.scaled_dot_product_attention(
            queries, keys, values, mask[:, None, None].to(keys.device), dropout_p=DROPOUT if self.training else 0.0
        )
        return self.output(found.transpose(1, 2).flatten(2))

    def _divided(self, states: Tensor) -> Tensor:
        """(A, N, D) → (A, heads, N, D / heads)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def term_logits(token_logits: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Mean of the logits (A, U, 2) over the tokens of each term → (A, K, 2).

    Args:
        places: (A, K, n) index of each token among the U.
        mask: (A, K, n), True = a token of the term.
    """
    of_terms = token_logits.gather(1, places.flatten(1).unsqueeze(-1).expand(-1, -1, 2)).unflatten(1, places.shape[1:])
    counted = mask.unsqueeze(-1)
    return (of_terms * counted).sum(2) / counted.sum(2).clamp(min=1)


def retrieval_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of absence and presence, mean over all pairs of an audio and a term.

    Args:
        logits: (A, K, 2).
        labels: (A, K), 1 = the term is spoken in the audio, 0 = it is not, :data:`NO_TERM` = padding.
    """
    known = (labels != NO_TERM).sum()
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten().to(logits.device),
        ignore_index=NO_TERM,
        label_smoothing=LABEL_SMOOTHING,
        reduction="sum",
    )
    return losses / known.clamp(min=1)
