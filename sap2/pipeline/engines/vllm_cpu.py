"""vLLM's build for CPUs: LoRA adapter by adapter, kernels in place of steps, and a worker without a process of its own.

Its own LoRA gathers the two matrices of the adapter for every single token, which costs more than all the rest of
a small model, and takes the last adapter for a token that has none. What is here gives the same for all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.lora.model_manager import LoRAModelManager
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from sap2.pipeline.threads import generating_threads, is_chosen


def install() -> None:
    """Put the functions of this module in the place of those of the same name."""
    for function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        for module in (lora_ops, punica_cpu):
            setattr(module, function.__name__, function)
    wrapper = punica_cpu.PunicaWrapperCPU
    wrapper.add_lora_linear = add_lora_linear
    wrapper.update_metadata = _noting_owners(wrapper.update_metadata)
    LoRAModelManager.activate_adapter = _forgetting_joined(LoRAModelManager.activate_adapter)
    SiluAndMul.forward_cpu = silu_and_mul
    RMSNorm.forward_cpu = rms_norm


class SameProcessExecutor(UniProcExecutor):
    """The worker lives in the engine's process: embedded prompts are not handed on to another one.

    vLLM puts it into one of its own to bind threads to cores. The two then wait for each other in loops that keep
    a core busy, and threads that are bound wait for other programs on their core while others are free.
    """

    def _init_executor(self) -> None:
        if not is_chosen():
            torch.set_num_threads(generating_threads(self.model_config.get_hidden_size()))
        super()._init_executor()


def _noting_owners(update: Any) -> Any:
    """Note once for all layers of a step which adapters it has, and which of its tokens."""

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        update(self, *args, **kwargs)
        self.adapter_owners = adapter_owners(self.token_lora_indices)

    return update_metadata


def _forgetting_joined(activate: Any) -> Any:
    """Matrices that were put together do not outlive those that they were made of."""

    def activate_adapter(self: Any, lora_id: int) -> bool:
        activated = activate(self, lora_id)  # False where it was active already, as in nearly every step
        if activated:
            for wrapper in self.punica_wrapper_mapping.values():
                wrapper.joined_loras = {}
        return activated

    return activate_adapter


def adapter_owners(adapters: Tensor) -> tuple[list[int], Tensor | None]:
    """The adapters in (tokens,), -1 for none, and a mask (tokens, adapters, 1) of their tokens; None: all tokens."""
    found = adapters.unique()
    if len(found) == 1:
        return [index for index in found.tolist() if index >= 0], None
    found = found[found >= 0]
    return found.tolist(), (adapters[:, None] == found).unsqueeze(2)


def add_lora_linear(
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Sequence[Tensor],
    lora_b_stacked: Sequence[Tensor],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """Add to ``y`` what the adapters make of ``x``.

    All tokens go through every adapter of the step, and what the others' adapters make of them counts as zero: two
    products for all slices and adapters together cost less than to gather the tokens of each.

    Args:
        self: vLLM's wrapper; its ``adapter_owners`` say which adapters there are.
        y: (tokens, sum of the slices), written.
        x: (tokens, width).
        lora_a_stacked: of each slice (adapters, 1, rank, width).
        lora_b_stacked: of each slice (adapters, 1, slice, rank).
        scale: of the product.
    """
    found, mask = self.adapter_owners
    if not found:
        return
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    key = (lora_a_stacked[0].data_ptr(), *found)
    if key not in self.joined_loras:
        self.joined_loras[key] = _join(lora_a_stacked, lora_b_stacked, found)
    shrink, expand = self.joined_loras[key]
    reduced = x @ shrink
    if mask is not None:
        reduced.view(len(x), len(output_slices), len(found), -1).mul_(mask[: len(x), None])
    y.addmm_(reduced, expand, alpha=scale)


def _join(first: Sequence[Tensor], second: Sequence[Tensor], found: list[int]) -> tuple[Tensor, Tensor]:
    """The matrices of some adapters side by side: (width, slices * adapters * rank), and from there to all slices."""
    shrink = torch.cat([matrix[found].flatten(0, 2) for matrix in first]).T.contiguous()
    expand = torch.block_diag(*[matrix[found].squeeze(1).transpose(1, 2).flatten(0, 1) for matrix in second])
    return shrink, expand


def silu_and_mul(self: Any, x: Tensor) -> Tensor:
    """The gated activation, (tokens, 2 * width) to (tokens, width), by a kernel that vLLM has and takes on POWER only.

    In other number types than float32 it rounds elsewhere: these stay as they are.
    """
    if not _for_kernels(x):
        return self.forward_native(x)
    output = x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
    torch.ops._C.silu_and_mul(output, x)
    return output


def rms_norm(self: Any, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """The norm of (tokens, width), of the sum where there is a ``residual``; see :func:`silu_and_mul`.

    Returns:
        The norm; with a residual also the sum. Both are then written over what was given.
    """
    given = (x,) if residual is None else (x, residual)
    if not (_for_kernels(*given, self.weight) and self.has_weight and self.variance_size_override is None):
        return self.forward_native(x, residual)
    if residual is None:
        output = torch.empty_like(x)
        torch.ops._C.rms_norm(output, x, self.weight.data, self.variance_epsilon)
        return output
    torch.ops._C.fused_add_rms_norm(x, residual, self.weight.data, self.variance_epsilon)
    return x, residual


def _for_kernels(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in tensors)


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
