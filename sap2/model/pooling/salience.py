"""A budget of positions, spent on the keywords that the speech holds."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 0.75
"""Share of a context's positions for keywords that keep all their tokens; the others share the rest."""


def spend_budget(salience: Tensor, numbers: Tensor, budget: Tensor) -> Tensor:
    """Which position each token goes to, of those that a row has.

    The most salient keywords keep all their tokens, as many of them as fit into :data:`KEPT` of the positions, and come
    first, the most salient one in front. All other tokens are spread evenly, in order, over the positions left.

    Args:
        salience: (B, K).
        numbers: (B, L) number of the keyword that a token belongs to, from 1; 0 = padding. The tokens of a keyword
            follow each other, and the keywords are in order.
        budget: (B,) positions of each row, at least one and at most one a token.

    Returns:
        (B, L) positions from 0; those of padding are 0.
    """
    valid = numbers > 0
    budget = budget.unsqueeze(-1)
    sizes = torch.zeros_like(salience, dtype=torch.long)
    keyword = (numbers - 1).clamp(min=0)
    sizes.scatter_add_(1, keyword, valid.long())
    order = salience.argsort(dim=-1, descending=True, stable=True)
    ranked = sizes.gather(1, order)
    ends = ranked.cumsum(-1)
    fits = ends <= (KEPT * budget).floor().long()
    starts = torch.empty_like(sizes).scatter_(1, order, ends - ranked)
    kept = torch.empty_like(fits).scatter_(1, order, fits).gather(1, keyword) & valid
    first = (sizes.cumsum(-1) - sizes).gather(1, keyword)
    offsets = torch.arange(numbers.shape[1], device=numbers.device)[None] - first
    used = kept.sum(-1, keepdim=True)
    rest = valid & ~kept
    rank = rest.long().cumsum(-1) - 1
    spread = used + rank * (budget - used) // rest.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(kept, starts.gather(1, keyword) + offsets, spread).masked_fill(~valid, 0)


def mean_at(context: Tensor, positions: Tensor, valid: Tensor, count: int) -> Tensor:
    """Mean of the valid tokens (B, L, D) at each of ``count`` positions (B, count, D), 0 where there is none."""
    weights = valid.to(context.dtype)
    sizes = context.new_zeros((context.shape[0], count)).scatter_add(1, positions, weights)
    shares = (weights / sizes.gather(1, positions).clamp(min=1)).unsqueeze(-1)
    pooled = context.new_zeros((context.shape[0], count, context.shape[2]))
    return pooled.scatter_add(1, positions.unsqueeze(-1).expand_as(context), context * shares)
