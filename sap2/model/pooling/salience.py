"""A budget of positions, spent on the keywords that the speech holds."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 0.75
"""Share of a context's positions for keywords that keep all their tokens; the others share the rest."""


def spend_budget(salience: Tensor, numbers: Tensor, budget: Tensor) -> Tensor:
    """Which position each token goes to, of those that a row has.

    In a row with a position for every token, each has its own, in order. Else the keywords are taken from the most
    salient one on, and each that still fits into :data:`KEPT` of the positions keeps all its tokens; they come first,
    in that order. All other tokens are spread evenly, in order, over the positions left.

    Args:
        salience: (B, K).
        numbers: (B, L) number of the keyword that a token belongs to, from 1; 0 = padding. The tokens of a keyword
            follow each other, and the keywords are in order.
        budget: (B,) positions of each row, at least one and at most one a token.

    Returns:
        (B, L) positions from 0; those of padding are 0.
    """
    valid = numbers > 0
    tokens, places = valid.sum(-1), torch.arange(numbers.shape[1], device=numbers.device)[None]
    sizes = torch.zeros_like(salience, dtype=torch.long)
    keyword = (numbers - 1).clamp(min=0)
    sizes.scatter_add_(1, keyword, valid.long())
    starts = _keep(salience, sizes, (KEPT * budget).floor().long())
    budget = budget.unsqueeze(-1)
    kept = (starts >= 0).gather(1, keyword) & valid
    first = (sizes.cumsum(-1) - sizes).gather(1, keyword)
    used = kept.sum(-1, keepdim=True)
    rest = valid & ~kept
    rank = rest.long().cumsum(-1) - 1
    spread = used + rank * (budget - used) // rest.sum(-1, keepdim=True).clamp(min=1)
    positions = torch.where(kept, starts.gather(1, keyword) + places - first, spread)
    whole = budget >= tokens.unsqueeze(-1)
    return torch.where(whole, places, positions).masked_fill(~valid, 0)


def _keep(salience: Tensor, sizes: Tensor, room: Tensor) -> Tensor:
    """Where each keyword (B, K) that is kept begins among the first ``room`` (B,) positions; -1: it is not kept."""
    order = salience.argsort(dim=-1, descending=True, stable=True).tolist()
    starts = torch.full_like(sizes, -1, device="cpu")
    for row, (ranked, lengths, end) in enumerate(zip(order, sizes.tolist(), room.tolist(), strict=True)):
        place = 0
        for keyword in ranked:
            if 0 < lengths[keyword] <= end - place:
                starts[row, keyword] = place
                place += lengths[keyword]
    return starts.to(sizes.device)


def mean_at(context: Tensor, positions: Tensor, valid: Tensor, count: int) -> Tensor:
    """Mean of the valid tokens (B, L, D) at each of ``count`` positions (B, count, D), 0 where there is none.

    Sums in float32, whatever the order of the sum; the mean has the type of the context. What is not valid may hold
    anything: it goes to a place of its own, which is left out.
    """
    compute = torch.promote_types(context.dtype, torch.float32)
    rows, aside = len(context), len(context) * count
    places = positions + count * torch.arange(rows, device=positions.device).unsqueeze(-1)
    places = places.masked_fill(~valid, aside).flatten()
    # index_add adds whole vectors, in the order of the tokens, in a third of scatter_add's time
    sums = torch.zeros((aside + 1, context.shape[2]), dtype=compute, device=context.device)
    sums = sums.index_add(0, places, context.flatten(0, 1).to(compute))[:aside]
    sizes = sums.new_zeros(aside + 1).index_add(0, places, sums.new_ones(len(places)))[:aside]
    return (sums / sizes.clamp(min=1).unsqueeze(-1)).unflatten(0, (rows, count)).to(context.dtype)
