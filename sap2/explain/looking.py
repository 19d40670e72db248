"""What was looked at before and while a word was written: by the pooling, by the spotter, by the language model.

Notation: T speech tokens, L context tokens, K keywords of the context, N positions that they are compressed to,
W words, R tokens of the reply, S positions of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sap2.errors import InputError
from sap2.explain.forced import ForcedReply
from sap2.explain.spans import WordSpan
from sap2.lengths import pooled_length
from sap2.model.audios import Speech
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.pooling.salience import spend_budget
from sap2.model.spotter import keyword_salience, pad_spellings


class Looks(NamedTuple):
    """The language model's attention when it wrote each word: mean over layers, heads and the word's tokens.

    Attributes:
        speech: (W, T) on each token of the audio.
        keywords: (W, K) on the positions of each keyword; a position that several share is divided by their tokens.
        prompt: (W,) on the rest of the prompt.
        reply: (W,) on what was written before.

    A word's numbers sum to 1.
    """

    speech: np.ndarray
    keywords: np.ndarray
    prompt: np.ndarray
    reply: np.ndarray


class Listening(NamedTuple):
    """What the pooling made of the keywords.

    Attributes:
        pooling: (T, K) of each frame's attention, the share that the pooling ``attention`` gave to the tokens of each
            keyword, mean over its heads; None with another pooling.
        shares: (N, K) how much of each position is made of each keyword.
    """

    pooling: np.ndarray | None
    shares: np.ndarray


@torch.no_grad()
def listen(forced: ForcedReply) -> Listening:
    """Look at how the context of an utterance was compressed."""
    context = forced.prompt.context
    numbers = torch.tensor(context.numbers, dtype=torch.long)
    with forced.loaded.use(forced.stage) as model:
        inner, pooling = model.model, model.model.context_pooling
        speech = forced.speech()
        spotted = salience(forced, speech, context.keywords)
        weights = None
        if pooling.pooling == "attention" and len(context.ids):
            embedded = inner.get_input_embeddings()(torch.tensor(context.ids, device=speech.embeddings.device))
            weights = pooling_attention(speech.embeddings[0, speech.mask[0]], embedded, pooling.num_heads)
    positions = token_positions(pooling, numbers, spotted)
    shares = shares_of(positions, numbers, len(context.keywords))
    looked = None if weights is None else (weights.cpu() @ _one_hot(numbers, len(context.keywords))).numpy()
    return Listening(looked, shares)


def salience(forced: ForcedReply, speech: Speech, keywords: Sequence[str]) -> Tensor | None:
    """What the spotter says of keywords, (K,) nats; None without a trained one."""
    with forced.loaded.use(forced.stage) as model:
        spotter = model.model.spotter
        if spotter is None or not keywords:
            return None
        try:
            log_probs = spotter(*speech)
        except InputError:  # it has learnt nothing
            return None
    return keyword_salience(log_probs, speech.mask, pad_spellings([keywords]).to(log_probs.device))[0].cpu()


def pooling_attention(speech: Tensor, context: Tensor, heads: int) -> Tensor:
    """The paper's S after its softmax over the tokens, mean over the heads: speech (T, D), context (L, D) → (T, L)."""
    queries, keys = (states.float().unflatten(-1, (heads, -1)).transpose(0, 1) for states in (speech, context))
    return (queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5).softmax(-1).mean(0)


def token_positions(pooling: SpeechDrivenPooling, numbers: Tensor, spotted: Tensor | None) -> Tensor:
    """Which of the compressed positions each token of the context (L,) is in."""
    length = len(numbers)
    count = pooled_length(length, pooling.window_size, pooling.min_positions)
    if count == length:
        return torch.arange(length)
    if pooling.pooling == "salience":
        return spend_budget(spotted[None], numbers[None], torch.tensor([count]))[0]
    return torch.arange(length) // pooling.window_size


def shares_of(positions: Tensor, numbers: Tensor, keywords: int) -> np.ndarray:
    """(N, K): how much of each position is made of the tokens of each keyword."""
    if not len(positions):
        return np.zeros((0, keywords))
    placed = torch.zeros(int(positions.max()) + 1, keywords).index_add_(0, positions, _one_hot(numbers, keywords))
    return (placed / placed.sum(-1, keepdim=True).clamp(min=1)).numpy()


def _one_hot(numbers: Tensor, keywords: int) -> Tensor:
    return torch.nn.functional.one_hot(numbers - 1, keywords).float() if len(numbers) else torch.zeros(0, keywords)


def look(forced: ForcedReply, attention: Tensor, words: Sequence[WordSpan], shares: np.ndarray) -> Looks:
    """Divide the attention of each word.

    Args:
        attention: (R, S + R) of the rows that predict the tokens of the reply, over all positions before them.
        shares: (N, K) of :class:`Listening`.
    """
    rows = np.stack([attention[word.tokens].mean(0).cpu().numpy() for word in words])
    ids = np.array(forced.prompt.input_ids)
    audio, context = (rows[:, np.flatnonzero(ids == token)] for token in forced.encoder.placeholder_ids)
    reply, whole = rows[:, len(ids) :].sum(1), rows[:, : len(ids)].sum(1)
    return Looks(audio, context @ shares, whole - audio.sum(1) - context.sum(1), reply)
