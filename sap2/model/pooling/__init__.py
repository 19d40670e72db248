"""How a context is compressed: L token embeddings become ceil(L/w), by one of :data:`POOLINGS`.

One module for each method: :mod:`~sap2.model.pooling.attention` (the paper's, and the plain mean) and
:mod:`~sap2.model.pooling.salience`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sap2.lengths import least_positions, pooled_length
from sap2.model.pooling.attention import AttentionPooling, windows
from sap2.model.pooling.salience import mean_at, spend_budget
from sap2.model.spotter import KeywordSpotter, keyword_salience

POOLINGS = ("attention", "mean", "salience")
MOVING = frozenset({"salience"})
"""Those that put keywords in another order."""
DEFAULT_POOLING = "attention"
"""The paper's."""


class SpeechDrivenPooling(nn.Module):
    """Pool each window of ``window_size`` context embeddings into one, guided by the speech.

    Has no parameters of its own; ``salience`` listens through a spotter.

    Args:
        hidden_size: width D of speech and context embeddings.
        num_heads: attention heads; each pools its own slice of D/num_heads dimensions.
        window_size: context tokens that become one embedding; 1 leaves the context as it is.
        pooling: ``attention`` weighs the tokens of a window by the attention that the speech gives them;
            ``mean`` weighs them equally and ignores the speech. ``salience`` makes as many embeddings, but no windows:
            the keywords that the speech holds keep their tokens, and the others share what is left
            (:func:`sap2.model.pooling.salience.spend_budget`).
        min_positions: with ``salience``, embeddings that a context is compressed to at least: short lists stay whole.
            None: :func:`sap2.lengths.least_positions` of the pooling.
        spotter: that of the model; None: ``salience`` makes one.

    Raises:
        ValueError: a value is not a positive integer, the heads do not divide the width, or the pooling is unknown.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        window_size: int,
        pooling: str = DEFAULT_POOLING,
        min_positions: int | None = None,
        spotter: KeywordSpotter | None = None,
    ):
        super().__init__()
        min_positions = least_positions(pooling) if min_positions is None else min_positions
        check_pooling(hidden_size, num_heads, window_size, pooling, min_positions)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.window_size = window_size
        self.pooling = pooling
        self.min_positions = min_positions
        self.spotter = KeywordSpotter(hidden_size) if spotter is None and pooling == "salience" else spotter

    def forward(
        self,
        speech: Tensor,
        context: Tensor,
        speech_mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        keyword_numbers: Tensor | None = None,
        spellings: Tensor | None = None,
        log_probs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pool the context.

        Args:
            speech: (B, T, D) speech embeddings.
            context: (B, L, D) context embeddings.
            speech_mask: (B, T) boolean, True = valid; None: all valid. A row without a valid frame is pooled
                with equal weights.
            context_mask: (B, L) boolean, True = valid; None: all valid.
            keyword_numbers: (B, L) number of the keyword of each token, from 1, 0 = padding; for ``salience``.
            spellings: (B, K, n) of the keywords (:func:`sap2.model.spotter.pad_spellings`); for ``salience``.
            log_probs: what the spotter says of the speech, where it is known already.

        Returns:
            ``pooled`` (B, ceil(L/w), D) in the dtype of ``context``, zero where no token of a window is valid, and
            ``pooled_mask`` (B, ceil(L/w)), True where a window holds a valid token.

        Raises:
            ValueError: shapes do not fit each other or the layer.
        """
        self._check_inputs(speech, context, speech_mask, context_mask)
        batch, length, _ = context.shape
        if context_mask is None:
            context_mask = context.new_ones((batch, length), dtype=torch.bool)
        salience = self.pooling == "salience" and self.window_size > 1 and length > 0
        if salience and (keyword_numbers is None or spellings is None):
            raise ValueError("pooling 'salience' needs keyword_numbers and spellings")
        if salience and pooled_length(length, self.window_size, self.min_positions) < length:
            log_probs = self.spotter(speech.detach(), speech_mask) if log_probs is None else log_probs
            log_probs = log_probs.to(context.device)  # the spotter may lie on another one (device_map)
            return self._spend(log_probs, speech_mask, context, context_mask, keyword_numbers, spellings)
        # padding may hold anything, infinities too, and 0 · inf is not 0
        context = context.masked_fill(~context_mask.unsqueeze(-1), 0)
        if salience or self.window_size == 1 or length == 0:
            return context, context_mask
        window_mask = windows(context_mask, self.window_size, False)
        if speech_mask is not None:
            speech = speech.masked_fill(~speech_mask.unsqueeze(-1), 0)
        compute = torch.promote_types(context.dtype, torch.float32)
        guide = speech.to(compute) if self.pooling == "attention" and speech.shape[1] else None
        pooled = AttentionPooling.apply(
            guide, context.to(compute), speech_mask, context_mask, window_mask, self.num_heads
        )
        return pooled.to(context.dtype), window_mask.any(-1)

    def _spend(
        self,
        log_probs: Tensor,
        speech_mask: Tensor | None,
        context: Tensor,
        context_mask: Tensor,
        keyword_numbers: Tensor,
        spellings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The positions go to the keywords that the speech holds."""
        if speech_mask is None:
            speech_mask = log_probs.new_ones(log_probs.shape[:2], dtype=torch.bool)
        salience = keyword_salience(log_probs, speech_mask, spellings)
        tokens = context_mask.sum(-1)
        budget = torch.maximum(-(-tokens // self.window_size), tokens.clamp(max=self.min_positions))
        count = pooled_length(context.shape[1], self.window_size, self.min_positions)
        positions = spend_budget(salience, keyword_numbers, budget)
        pooled_mask = torch.arange(count, device=context.device)[None] < budget.unsqueeze(-1)
        return mean_at(context, positions, context_mask, count), pooled_mask

    def _check_inputs(
        self, speech: Tensor, context: Tensor, speech_mask: Tensor | None, context_mask: Tensor | None
    ) -> None:
        for name, states, mask in (("speech", speech, speech_mask), ("context", context, context_mask)):
            if states.ndim != 3 or states.shape[-1] != self.hidden_size:
                raise ValueError(
                    f"{name} has shape {tuple(states.shape)}; allowed: (batch, length, hidden_size={self.hidden_size})"
                )
            if mask is not None and (mask.shape != states.shape[:2] or mask.dtype != torch.bool):
                raise ValueError(
                    f"{name}_mask is {mask.dtype} of shape {tuple(mask.shape)}; "
                    f"allowed: torch.bool of shape {tuple(states.shape[:2])}"
                )
        if speech.shape[0] != context.shape[0]:
            raise ValueError(f"speech has {speech.shape[0]} rows and context {context.shape[0]}; they must be equal")

    def extra_repr(self) -> str:
        return (
            f"hidden_size={self.hidden_size}, num_heads={self.num_heads}, "
            f"window_size={self.window_size}, pooling={self.pooling!r}"
        )


def check_pooling(hidden_size: int, num_heads: int, window_size: int, pooling: str, min_positions: int = 0) -> None:
    """Refuse settings that no pooling layer can have.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """
    for name, value in (("hidden_size", hidden_size), ("num_heads", num_heads), ("window_size", window_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; allowed: an integer from 1")
    if hidden_size % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide hidden_size {hidden_size}")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}; allowed: {', '.join(POOLINGS)}")
    if not isinstance(min_positions, int) or isinstance(min_positions, bool) or min_positions < 0:
        raise ValueError(f"min_positions is {min_positions!r}; allowed: an integer from 0")
    if min_positions and pooling != "salience":
        raise ValueError(f"min_positions is {min_positions} with pooling {pooling!r}; allowed: 0, or pooling salience")
