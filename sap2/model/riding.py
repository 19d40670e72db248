"""A second loss that is trained along with a first one and not added to it.

Mixture-of-experts trainers do so with their balancing loss (``MoEAuxLossAutoScaler`` of Megatron-LM): the forward pass
leaves the first loss as it is, and the backward pass adds the gradient of the second. So people see the loss of the
language model, whatever a trainer makes its loss of, and the second one is trained all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sap2.errors import InputError


def ride_on_loss(loss: Tensor, aside: Tensor, weight: float | Tensor) -> Tensor:
    """``loss``, whose gradient has ``weight`` times that of ``aside`` in it.

    Whatever the trainer multiplies the loss with (for accumulated steps, ranks, half precision), it does to both.
    """
    aside = aside.to(loss.device, loss.dtype)
    return loss + weight * (aside - aside.detach())


def share_of_batch(labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """Part of the labels of a step that these are: what transformers' loss weighs them with where it sums labels (B, S)
    over ``num_items_in_batch``; 1 where it averages them."""
    if num_items_in_batch is None:
        return 1.0
    return (labels[:, 1:] != -100).sum() / num_items_in_batch


def ride_on_states(states: Tensor, aside: Tensor, weight: float) -> Tensor:
    """``states`` as they are, whose backward pass adds the gradient of ``weight`` times ``aside``.

    For trainers that make their loss of the logits: label smoothing, DFT, preference losses.

    Raises:
        InputError: in float16. There the trainer scales its loss by a number that changes, which cannot be known here.
    """
    if states.dtype == torch.float16:
        raise InputError("float16 with a loss made of the logits cannot train the spotter; allowed: bfloat16, float32")
    return _Riding.apply(states, aside, weight)


class _Riding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, aside, weight):
        ctx.weight, ctx.aside = weight, (aside.device, aside.dtype)
        return states.view_as(states)

    @staticmethod
    def backward(ctx, grad):
        device, dtype = ctx.aside
        return grad, torch.tensor(ctx.weight, device=device, dtype=dtype), None
