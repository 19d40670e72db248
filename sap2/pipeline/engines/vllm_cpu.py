"""LoRA in vLLM's build for CPUs, adapter by adapter.

Its own functions gather the two matrices of the adapter for every single token, which costs more than all the rest of
a small model, and take the last adapter for a token that has none. These give the same for all others.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu


def install() -> None:
    """Put the functions of this module in the place of those of the same name."""
    for function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        for module in (lora_ops, punica_cpu):
            setattr(module, function.__name__, function)


def bgmv_shrink(inputs: Tensor, weights: Tensor, output: Tensor, adapters: Tensor, scaling: float = 1.0) -> None:
    """Multiply by the first matrix of each token's adapter.

    Args:
        inputs: (tokens, width).
        weights: (adapters, rank, width), or with a 1 after the first.
        output: (tokens, rank at least), written.
        adapters: (tokens,), -1: none.
        scaling: of the product.
    """
    output.zero_()
    for rows, matrix in _by_adapter(weights, adapters):
        output[rows, : matrix.shape[0]] = scaling * (inputs[rows].to(output.dtype) @ matrix.T.to(output.dtype))


def bgmv_expand(inputs: Tensor, weights: Tensor, output: Tensor, adapters: Tensor, add_inputs: bool = True) -> None:
    """Multiply by the second matrix (adapters, width, rank) and add to (tokens, width), or write there."""
    width = min(weights.shape[-2], output.shape[1])
    bgmv_expand_slice(inputs, weights[..., :width, :], output, adapters, 0, width, add_inputs)


def bgmv_expand_slice(
    inputs: Tensor,
    weights: Tensor,
    output: Tensor,
    adapters: Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """As :func:`bgmv_expand`, for the columns from ``slice_offset`` on."""
    columns = slice(slice_offset, slice_offset + slice_size)
    if not add_inputs:
        output[:, columns] = 0
    for rows, matrix in _by_adapter(weights, adapters):
        output[rows, columns] += inputs[rows].to(output.dtype) @ matrix.T.to(output.dtype)


def _by_adapter(weights: Tensor, adapters: Tensor) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """For each adapter of the batch the tokens that have it, and its matrix."""
    if weights.dim() == 4:
        weights = weights.squeeze(1)
    found = adapters.unique().tolist()
    for index in found:
        if index >= 0:
            yield (slice(None) if len(found) == 1 else (adapters == index).nonzero().squeeze(1)), weights[index]
