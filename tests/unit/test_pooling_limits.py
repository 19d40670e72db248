"""Pooling: what it may cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sap2.lengths import pooled_length
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.pooling import attention as module

T, L, D, H, W = 7, 11, 8, 2, 3


class Sizes(TorchDispatchMode):
    """The largest tensor, and the number of operations, of what runs inside."""

    largest = operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


def run_and_measure(frames, tokens, rows=1):
    """The largest tensor, the operations, and the numbers kept for the backward pass, of one training step."""
    saved = []
    speech = torch.randn(rows, frames, D, requires_grad=True)
    context = torch.randn(rows, tokens, D, requires_grad=True)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t)
    with Sizes() as sizes, keep:
        SpeechDrivenPooling(D, H, 2)(speech, context)[0].sum().backward()
    return sizes, sum(saved)


def test_nothing_of_the_size_of_frames_times_tokens_exists():
    frames, tokens = 750, 5000  # 30 s of speech, a long deck
    sizes, saved = run_and_measure(frames, tokens)
    assert sizes.largest <= max(module.SLICE_ELEMENTS["cpu"], module.MIN_FRAMES * tokens) < frames * tokens / 3
    assert saved < 4 * D * (tokens + frames), "what is kept grows with L + T"


def test_no_loop_over_rows():
    """At sizes where all frames are one slice, eight rows take as many operations as one."""
    assert run_and_measure(20, 30, rows=8)[0].operations == run_and_measure(20, 30, rows=1)[0].operations


def test_has_no_parameters():
    layer = SpeechDrivenPooling(D, H, W)
    assert list(layer.parameters()) == [] and layer.state_dict() == {}
    assert "hidden_size=8, num_heads=2, window_size=3, pooling='attention'" in repr(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((D, H, 0), r"window_size is 0; allowed: an integer from 1"),
        ((D, H, -2), r"window_size is -2; allowed"),
        ((D, H, 2.0), r"window_size is 2\.0; allowed"),
        ((D, H, "2"), r"window_size is '2'; allowed"),
        ((D, H, True), r"window_size is True; allowed"),
        ((D, H, None), r"window_size is None; allowed"),
        ((D, 0, 2), r"num_heads is 0; allowed"),
        ((0, 1, 2), r"hidden_size is 0; allowed"),
        ((D, 3, 2), r"num_heads 3 does not divide hidden_size 8"),
        ((D, H, 2, "max"), r"pooling is 'max'; allowed: attention, mean"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpeechDrivenPooling(*arguments)


def test_impossible_inputs_are_refused():
    layer = SpeechDrivenPooling(D, H, W)
    speech, context = torch.zeros(2, T, D), torch.zeros(2, L, D)
    for arguments, message in (
        ((speech[..., :4], context), r"speech has shape \(2, 7, 4\); allowed: \(batch, length, hidden_size=8\)"),
        ((speech, context[0]), r"context has shape \(11, 8\); allowed"),
        ((speech[:1], context), r"speech has 1 rows and context 2; they must be equal"),
        ((speech, context, torch.ones(2, T)), r"speech_mask is torch.float32 of shape \(2, 7\); allowed: torch.bool"),
        ((speech, context, None, torch.ones(2, T, dtype=torch.bool)), r"context_mask .* allowed: .* \(2, 11\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*arguments)


def test_pooled_length():
    assert [pooled_length(length, 3) for length in (0, 1, 2, 3, 4, 6, 7)] == [0, 1, 1, 1, 2, 2, 3]
