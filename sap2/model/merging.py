"""Embeddings in the place of their placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Source(NamedTuple):
    """What goes to the placeholders of one kind.

    Attributes:
        places: (B, S), True at a placeholder.
        embeddings: (A, N, D) of the batch's audios, in the order of their placeholders.
        mask: (A, N), True = valid.
    """

    places: Tensor
    embeddings: Tensor
    mask: Tensor


def fill_placeholders(inputs_embeds: Tensor, sources: Mapping[str, Source]) -> Tensor:
    """Put each source's valid embeddings in its places of ``inputs_embeds`` (B, S, D), in order.

    Raises:
        ValueError: a kind has not as many placeholders as embeddings.
    """
    _check_counts(sources)
    for places, embeddings, mask in sources.values():
        if embeddings.shape[1] == 0:
            continue
        embeddings = _valid_first(embeddings, mask).to(inputs_embeds.device, inputs_embeds.dtype)
        inputs_embeds = inputs_embeds.masked_scatter(places.unsqueeze(-1).to(inputs_embeds.device), embeddings)
    return inputs_embeds


def _valid_first(embeddings: Tensor, mask: Tensor) -> Tensor:
    """(A, N, D) → (A · N, D), the valid ones first and in order: what ``masked_scatter`` reads, without waiting for
    the device to count them."""
    order = (~mask).flatten().to(torch.uint8).argsort(stable=True)
    return embeddings.flatten(0, 1)[order]


def _check_counts(sources: Mapping[str, Source]) -> None:
    """Waits for the device once."""
    device = next(iter(sources.values())).places.device
    counts = torch.stack(
        [part.sum().to(device) for source in sources.values() for part in (source.places, source.mask)]
    ).tolist()
    for name, places, embeddings in zip(sources, counts[::2], counts[1::2], strict=True):
        if places != embeddings:
            raise ValueError(
                f"input_ids has {places} {name} placeholders, but there are {embeddings} {name} embeddings"
            )
