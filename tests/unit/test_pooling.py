"""Speech-driven pooling: equal to slow loops over its definition, exact about padding, finite, small."""

from __future__ import annotations

import math

import pytest
import torch

from sap2.lengths import pooled_length
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.pooling import attention as module

B, T, L, D, H, W = 3, 7, 11, 8, 2, 3

WINDOWED = ("attention", "mean")


def slow_pool(speech, context, speech_mask, context_mask, heads, window, pooling="attention"):
    """The definition, number by number: softmax of S over tokens, mean over frames, ratios within the window.

    Shares nothing with the layer: loops, one row, head and window at a time; S, A and a are all there.
    """
    rows, length, width = context.shape
    size = width // heads
    pooled = []
    for row in range(rows):
        tokens = [j for j in range(length) if context_mask[row, j]]
        frames = [i for i in range(speech.shape[1]) if speech_mask[row, i]]
        windows = []
        for start in range(0, length, window):
            inside = [j for j in tokens if start <= j < start + window]
            slices = []
            for head in range(heads):
                dims = slice(head * size, (head + 1) * size)
                salience = {j: context.new_ones(()) for j in inside}
                if pooling == "attention" and frames and inside:
                    attention = []
                    for i in frames:
                        scores = torch.stack([speech[row, i, dims] @ context[row, j, dims] for j in tokens])
                        attention.append(torch.softmax(scores / math.sqrt(size), 0))
                    mean = sum(attention) / len(frames)
                    salience = {j: mean[tokens.index(j)] for j in inside}
                total = sum(salience.values())
                weighted = [salience[j] / total * context[row, j, dims] for j in inside]
                slices.append(sum(weighted) if inside else context.new_zeros(size))
            windows.append(torch.cat(slices))
        pooled.append(torch.stack(windows))
    return torch.stack(pooled)


def lengths_mask(lengths, longest):
    return torch.arange(longest)[None] < torch.tensor(lengths)[:, None]


@pytest.fixture
def inputs():
    """speech, context, masks in float64: full rows, short rows, a row without speech, a hole in a context."""
    generator = torch.Generator().manual_seed(0)
    speech = torch.randn(B, T, D, dtype=torch.float64, generator=generator).requires_grad_()
    context = torch.randn(B, L, D, dtype=torch.float64, generator=generator).requires_grad_()
    speech_mask, context_mask = lengths_mask([7, 4, 0], T), lengths_mask([11, 5, 8], L)
    context_mask[0, 4] = False
    return speech, context, speech_mask, context_mask


def set_slices(monkeypatch, frames):
    monkeypatch.setattr(module, "MIN_FRAMES", frames)
    monkeypatch.setattr(module, "SLICE_ELEMENTS", {"cpu": 1, "default": 1})


@pytest.fixture(params=[1, 3, 100], ids="frames{}".format)
def frames_per_slice(request, monkeypatch):
    """Slices of one frame, of a few (the last one part full), and one slice of all frames."""
    set_slices(monkeypatch, request.param)


@pytest.mark.parametrize("pooling", WINDOWED)
@pytest.mark.parametrize(("window", "heads"), [(1, 2), (2, 2), (3, 2), (4, 2), (11, 2), (100, 2), (3, 1), (3, 8)])
def test_equals_the_slow_loop(inputs, monkeypatch, pooling, window, heads):
    """The pooled embeddings, and the gradients of both inputs."""
    speech, context, speech_mask, context_mask = inputs
    expected = slow_pool(speech, context, speech_mask, context_mask, heads, window, pooling)
    incoming = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(expected, [speech, context], incoming, allow_unused=True)
    for frames in (1, 3, 100):
        set_slices(monkeypatch, frames)
        pooled, mask = SpeechDrivenPooling(D, heads, window, pooling)(*inputs)
        assert pooled.shape == (B, math.ceil(L / window), D)
        torch.testing.assert_close(pooled, expected)
        has_token = [[context_mask[b, n : n + window].any().item() for n in range(0, L, window)] for b in range(B)]
        assert mask.tolist() == has_token
        for_speech, for_context = torch.autograd.grad(pooled, [speech, context], incoming, allow_unused=True)
        torch.testing.assert_close(for_context, gradients[1])
        if pooling == "mean" or window == 1:
            assert for_speech is None
        else:
            torch.testing.assert_close(for_speech, gradients[0])
            assert for_speech[0].abs().sum() > 0.01, "gradients reach the speech"


@pytest.mark.parametrize(("frames", "masked"), [(1, True), (100, False)])
def test_gradients_match_finite_differences(inputs, monkeypatch, frames, masked):
    set_slices(monkeypatch, frames)
    speech, context = (states[:, :5, :4].detach().requires_grad_() for states in inputs[:2])
    masks = [mask[:, :5] for mask in inputs[2:]]
    layer = SpeechDrivenPooling(4, H, W)
    assert torch.autograd.gradcheck(lambda s, c: layer(s, c, *(masks if masked else ()))[0], (speech, context))


def test_only_one_side_needs_a_gradient(inputs):
    speech, context, *masks = inputs
    layer = SpeechDrivenPooling(D, H, W)
    both = torch.autograd.grad(layer(speech, context, *masks)[0].sum(), [speech, context])
    alone = torch.autograd.grad(layer(speech, context.detach(), *masks)[0].sum(), speech)[0]
    assert torch.equal(alone, both[0])
    assert torch.equal(torch.autograd.grad(layer(speech.detach(), context, *masks)[0].sum(), context)[0], both[1])


def test_without_masks_everything_is_valid(inputs):
    speech, context, *_ = inputs
    layer = SpeechDrivenPooling(D, H, W)
    pooled, mask = layer(speech, context)
    masked, _ = layer(speech, context, torch.ones(B, T, dtype=torch.bool), torch.ones(B, L, dtype=torch.bool))
    assert torch.equal(pooled, masked)
    assert mask.dtype == torch.bool and mask.all()


def test_swapping_the_speech_changes_attention_and_not_mean(inputs):
    speech, context, *_ = inputs
    other = speech.flip(-1)
    for pooling, changes in (("attention", True), ("mean", False)):
        layer = SpeechDrivenPooling(D, H, W, pooling)
        assert torch.equal(layer(speech, context)[0], layer(other, context)[0]) is not changes


def test_mean_is_the_mean_of_the_valid_tokens(inputs):
    speech, context, _, _ = inputs
    mask = lengths_mask([11, 5, 8], L)
    pooled, _ = SpeechDrivenPooling(D, H, W, "mean")(speech, context, None, mask)
    torch.testing.assert_close(pooled[0, 0], context[0, :3].mean(0))
    torch.testing.assert_close(pooled[0, 3], context[0, 9:].mean(0))
    torch.testing.assert_close(pooled[1, 1], context[1, 3:5].mean(0))


def test_the_heard_token_wins_its_window():
    """One window of two tokens: the speech sounds like the second, and pooling keeps it."""
    context = torch.eye(4)[None, :2] * 20
    pooled, _ = SpeechDrivenPooling(4, 1, 2)(torch.eye(4)[None, 1:2] * 20, context)
    torch.testing.assert_close(pooled[0, 0], context[0, 1])


@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
def test_padding_may_hold_anything(inputs, frames_per_slice, junk):
    """Bit for bit: the result, and the gradients, which are exactly zero at the padding."""
    _, _, speech_mask, context_mask = inputs
    results = []
    for fill in (0.0, junk):
        speech = inputs[0].detach().masked_fill(~speech_mask.unsqueeze(-1), fill).requires_grad_()
        context = inputs[1].detach().masked_fill(~context_mask.unsqueeze(-1), fill).requires_grad_()
        pooled, _ = SpeechDrivenPooling(D, H, W)(speech, context, speech_mask, context_mask)
        results.append((pooled, *torch.autograd.grad(pooled.square().sum(), [speech, context])))
    for clean, scrambled in zip(*results, strict=True):
        assert torch.equal(clean, scrambled)
    assert results[1][1][~speech_mask].abs().sum() == 0
    assert results[1][2][~context_mask].abs().sum() == 0


def test_padded_row_equals_the_row_alone(inputs):
    speech, context, speech_mask, context_mask = inputs
    layer = SpeechDrivenPooling(D, H, W)
    pooled, mask = layer(*inputs)
    for row in range(B):
        frames, tokens = int(speech_mask[row].sum()), 11 if row == 0 else int(context_mask[row].sum())
        one = slice(row, row + 1)
        alone, _ = layer(speech[one, :frames], context[one, :tokens], None, context_mask[one, :tokens])
        torch.testing.assert_close(pooled[one, : alone.shape[1]], alone)
        assert pooled[one, alone.shape[1] :].abs().sum() == 0
        assert mask[row].sum() == alone.shape[1]


def test_no_speech_is_equal_weights(inputs):
    _, context, _, context_mask = inputs
    mean, _ = SpeechDrivenPooling(D, H, W, "mean")(context[:, :0], context, None, context_mask)
    layer = SpeechDrivenPooling(D, H, W)
    none, _ = layer(context[:, :0], context, None, context_mask)
    masked, _ = layer(torch.ones(B, T, D), context, torch.zeros(B, T, dtype=torch.bool), context_mask)
    torch.testing.assert_close(none, mean)
    torch.testing.assert_close(masked, mean)
    (gradient,) = torch.autograd.grad(masked.sum(), context)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [1000.0, -1000.0, 1e6])
def test_huge_scores_stay_finite(inputs, frames_per_slice, value):
    speech = (inputs[0].detach().sign().float() * abs(value)).requires_grad_()
    context = (inputs[1].detach().sign().float() * math.copysign(1, value)).requires_grad_()
    pooled, _ = SpeechDrivenPooling(D, H, W)(speech, context, *inputs[2:])
    gradients = torch.autograd.grad(pooled.square().sum(), [speech, context])
    for tensor in (pooled, *gradients):
        assert tensor.isfinite().all()
    assert pooled.abs().max() <= 1, "weights that sum to 1 keep the result among the tokens"


def test_a_window_without_attention_keeps_its_ratios():
    """The speech looks at token 0 alone: exp(-2000) is 0 in float32, yet the far window's ratio is e : 1."""
    context = torch.tensor([[[1000.0], [999.0], [-1000.0], [-1001.0]]])
    pooled, _ = SpeechDrivenPooling(1, 1, 2)(torch.ones(1, 3, 1), context)
    share = math.e / (1 + math.e)
    torch.testing.assert_close(pooled[0, :, 0], torch.tensor([999 + share, -1001 + share]))


@pytest.mark.parametrize("pooling", WINDOWED)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_constant_context_comes_back(inputs, pooling, scale):
    """Weights sum to 1 in every window, the last one, which is part full, included."""
    constant = torch.randn(B, 1, D, generator=torch.Generator().manual_seed(2))
    speech = inputs[0].detach().float() * scale
    pooled, _ = SpeechDrivenPooling(D, H, W, pooling)(speech, constant.expand(-1, L, -1))
    torch.testing.assert_close(pooled, constant.expand(-1, pooled_length(L, W), -1))


def test_window_of_one_returns_the_context(inputs):
    speech, context, speech_mask, context_mask = inputs
    layer = SpeechDrivenPooling(D, H, 1)
    assert torch.equal(layer(speech, context)[0], context)
    pooled, mask = layer(speech, context, speech_mask, context_mask)
    assert torch.equal(pooled[context_mask], context[context_mask])
    assert torch.equal(mask, context_mask)
    assert torch.autograd.grad(pooled.sum(), context)[0].sum() == context_mask.sum() * D


@pytest.mark.parametrize("pooling", WINDOWED)
@pytest.mark.parametrize("window", [1, 2])
def test_no_context(inputs, pooling, window):
    pooled, mask = SpeechDrivenPooling(D, H, window, pooling)(inputs[0], inputs[1][:, :0])
    assert pooled.shape == (B, 0, D) and mask.shape == (B, 0)
    pooled, mask = SpeechDrivenPooling(D, H, window, pooling)(torch.zeros(0, T, D), torch.zeros(0, L, D))
    assert pooled.shape == (0, pooled_length(L, window), D) and mask.shape == (0, pooled_length(L, window))


def test_order_of_frames_does_not_matter(inputs):
    speech, context, *_ = inputs
    layer = SpeechDrivenPooling(D, H, W)
    torch.testing.assert_close(layer(speech.flip(1), context)[0], layer(speech, context)[0])


def test_half_precision_is_computed_in_float32(inputs):
    speech, context = (states.detach().to(torch.bfloat16).requires_grad_() for states in inputs[:2])
    layer = SpeechDrivenPooling(D, H, W).to(torch.bfloat16)
    pooled, _ = layer(speech, context, *inputs[2:])
    precise, _ = layer(speech.float(), context.float(), *inputs[2:])
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, precise.to(torch.bfloat16))
    assert not torch.equal(pooled.float(), precise)
    for gradient, states in zip(torch.autograd.grad(pooled.sum(), [speech, context]), inputs, strict=False):
        assert gradient.dtype == torch.bfloat16 and gradient.shape == states.shape


def test_autocast_changes_nothing(inputs):
    speech, context = (states.detach().float().requires_grad_() for states in inputs[:2])
    layer = SpeechDrivenPooling(D, H, W)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            pooled, _ = layer(speech, context, *inputs[2:])
            results.append((pooled, *torch.autograd.grad(pooled.square().sum(), [speech, context])))
    for plain, cast in zip(*results, strict=True):
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)


def test_bad_numbers_are_not_hidden(inputs):
    speech = inputs[0].detach().clone()
    speech[0, 2, 1] = math.nan
    pooled, _ = SpeechDrivenPooling(D, H, W)(speech, *inputs[1:])
    assert pooled[0].isnan().any()
    assert pooled[1:].isfinite().all(), "nor do they leave their row"


def test_any_memory_layout(inputs):
    speech, context, *masks = inputs
    layer = SpeechDrivenPooling(D, H, W)
    pooled, _ = layer(speech, context, *masks)
    turned = [states.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for states in inputs[:2]]
    strided, _ = layer(*turned, *masks)
    torch.testing.assert_close(strided, pooled)
    gradients = [torch.autograd.grad(p.sum(), s) for p, s in ((strided, turned), (pooled, [speech, context]))]
    torch.testing.assert_close(*gradients)


def test_same_input_same_bits(inputs):
    layer = SpeechDrivenPooling(D, H, W)
    results = []
    for _ in range(2):
        pooled, _ = layer(*inputs)
        results.append((pooled, *torch.autograd.grad(pooled.square().sum(), inputs[:2])))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_the_inputs_are_left_alone(inputs):
    copies = [tensor.detach().clone() for tensor in inputs]
    SpeechDrivenPooling(D, H, W)(*inputs)[0].sum().backward()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))
