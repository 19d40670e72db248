"""Speech-driven pooling of context embeddings: w tokens become one (SAP², arXiv 2511.11139, "Speech-Driven
Attention-based Pooling").

Notation of this module: B rows, T speech frames, L context tokens, D model width, H heads of size d = D/H,
w window size, N = ceil(L/w) windows. Everything is computed in float32 (float64 for float64 inputs).

With S = Q_speech K_contextᵀ / √d per head, A = softmax of S over the valid tokens, and a_j = mean of A_ij over the
valid frames, the weight of token j in its window is a_j / Σ_window a_j. Only ratios of a_j within a window matter, so
that log a_j = logsumexp_i(S_ij - logsumexp_k S_ik), less a constant, followed by a softmax in the window, is the same
number, and stays finite where a_j itself would underflow.

S has T × L entries a head. It is made in slices of a few frames, and made again in the backward pass, so that memory
grows with L and not with T × L.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLICE_ELEMENTS = {"cpu": 1 << 20, "default": 1 << 24}
"""Entries of S held at a time. A CPU is fastest while a slice stays in its cache; a GPU while its cores are busy."""
MIN_FRAMES = 32
"""Frames of a slice at least: each slice reads all keys again."""


def windows(values: Tensor, window_size: int, fill: float) -> Tensor:
    """(…, L) → (…, N, w), the last window filled up."""
    missing = -values.shape[-1] % window_size
    padded = nn.functional.pad(values, (0, missing), value=fill) if missing else values
    return padded.unflatten(-1, (-1, window_size))


class AttentionPooling(torch.autograd.Function):
    """The whole layer in one node of the graph, so that the gradient of the context exists once.

    speech (B, T, D) or None for equal weights, keys (B, L, D), masks, heads → pooled (B, N, D).
    """

    @staticmethod
    def forward(ctx, speech, keys, speech_mask, context_mask, window_mask, heads):
        with torch.autocast(keys.device.type, enabled=False):
            log_z = None
            salience = keys.new_zeros((keys.shape[0], heads, keys.shape[1]))
            if speech is not None:
                salience, log_z = _log_salience(speech, keys, speech_mask, context_mask, heads)
            pooled = _window_sum(keys, _window_weights(salience, window_mask))
        ctx.save_for_backward(speech, keys, speech_mask, context_mask, window_mask, salience, log_z)
        ctx.heads = heads
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        speech, keys, speech_mask, context_mask, window_mask, salience, log_z = ctx.saved_tensors
        with torch.autocast(keys.device.type, enabled=False):
            weights = _window_weights(salience, window_mask)
            grad_keys, grad_weights = _window_sum_backward(grad, keys, weights)
            grad_speech = None
            if speech is not None:
                grad_salience = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdim=True))
                grad_salience = grad_salience.flatten(-2)[..., : keys.shape[1]]
                grad_speech = _log_salience_backward(
                    grad_salience, salience, log_z, speech, keys, speech_mask, context_mask, grad_keys
                )
        return grad_speech, grad_keys, None, None, None, None


def _window_weights(salience: Tensor, window_mask: Tensor) -> Tensor:
    """(B, H, L) log salience, (B, N, w) mask → (B, H, N, w) weights that sum to 1 over the valid tokens.

    Where the speech has seen no token of a window (-inf), the weights are equal.
    """
    mask = window_mask.unsqueeze(1)
    scores = windows(salience, window_mask.shape[-1], -torch.inf).masked_fill(~mask, -torch.inf)
    unseen = scores.amax(-1, keepdim=True).isneginf()
    return scores.masked_fill(unseen & mask, 0.0).masked_fill(unseen & ~mask, -1e30).softmax(-1).masked_fill(~mask, 0.0)


def _window_sum(keys: Tensor, weights: Tensor) -> Tensor:
    """keys (B, L, D), weights (B, H, N, w) → (B, N, D), without a copy of the keys: one step per place in a window."""
    batch, heads, windows, window_size = weights.shape
    pooled = keys.new_zeros((batch, windows, heads, keys.shape[-1] // heads))
    for place in range(window_size):
        tokens = keys[:, place::window_size].unflatten(-1, (heads, -1))  # (B, N or N-1, H, d)
        count = tokens.shape[1]
        pooled[:, :count].addcmul_(tokens, weights[:, :, :count, place].transpose(1, 2).unsqueeze(-1))
    return pooled.flatten(-2)


def _window_sum_backward(grad: Tensor, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`_window_sum` for its two inputs."""
    heads, window_size = weights.shape[1], weights.shape[-1]
    grad = grad.unflatten(-1, (heads, -1))
    grad_keys, grad_weights = torch.empty_like(keys), torch.zeros_like(weights)
    for place in range(window_size):
        tokens = keys[:, place::window_size].unflatten(-1, (heads, -1))
        count = tokens.shape[1]
        share = weights[:, :, :count, place].transpose(1, 2).unsqueeze(-1)
        torch.mul(grad[:, :count], share, out=grad_keys[:, place::window_size].unflatten(-1, (heads, -1)))
        for head in range(heads):  # one at a time: the product is as large as the result
            grad_weights[:, head, :count, place] = (grad[:, :count, head] * tokens[:, :, head]).sum(-1)
    return grad_keys, grad_weights


def _slices(speech: Tensor, keys: Tensor) -> list[slice]:
    """Ranges of frames such that B x frames x L entries are a slice's worth."""
    elements = SLICE_ELEMENTS.get(keys.device.type, SLICE_ELEMENTS["default"])
    step = max(MIN_FRAMES, elements // max(1, keys.shape[0] * keys.shape[1]))
    return [slice(start, start + step) for start in range(0, speech.shape[1], step)]


def _scores(queries: Tensor, keys: Tensor, context_mask: Tensor) -> Tensor:
    """One head's S: queries (B, t, d), keys (B, L, d) → (B, t, L), -inf at invalid tokens."""
    scores = torch.bmm(queries * queries.shape[-1] ** -0.5, keys.transpose(1, 2))
    return scores.masked_fill_(~context_mask.unsqueeze(1), -torch.inf)


def _log_salience(
    speech: Tensor, keys: Tensor, speech_mask: Tensor | None, context_mask: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """log a_j plus a constant (B, H, L), -inf at tokens that no valid frame has seen, and log Z_i (B, H, T)."""
    batch, frames, width = speech.shape
    salience = keys.new_empty((batch, heads, keys.shape[1]))
    log_z = keys.new_empty((batch, heads, frames))
    for head in range(heads):
        dims = slice(head * width // heads, (head + 1) * width // heads)
        peak, total = keys.new_full((batch, 1, keys.shape[1]), -torch.inf), keys.new_zeros((batch, 1, keys.shape[1]))
        for part in _slices(speech, keys):
            scores = _scores(speech[:, part, dims], keys[:, :, dims], context_mask)
            # a row of -inf has Z = -inf, and -inf - -inf is NaN: any finite Z leaves it at -inf
            z = scores.logsumexp(-1, keepdim=True).nan_to_num_(neginf=0.0)
            log_z[:, head, part] = z.squeeze(-1)
            if speech_mask is not None:
                z = z.masked_fill(~speech_mask[:, part, None], torch.inf)
            scores -= z
            new_peak = torch.maximum(peak, scores.amax(1, keepdim=True))
            reference = new_peak.nan_to_num(neginf=0.0)
            total = total * (peak - reference).exp() + scores.sub_(reference).exp_().sum(1, keepdim=True)
            peak = new_peak
        salience[:, head] = (total.log() + peak.nan_to_num(neginf=0.0)).squeeze(1)
    return salience, log_z


def _log_salience_backward(
    grad: Tensor,
    salience: Tensor,
    log_z: Tensor,
    speech: Tensor,
    keys: Tensor,
    speech_mask: Tensor | None,
    context_mask: Tensor,
    grad_keys: Tensor,
) -> Tensor:
    """The gradient for the speech; that for the keys is added to ``grad_keys``.

    With A_ij = exp(S_ij - Z_i), P_ij = exp(S_ij - Z_i - log a_j) (frame i's part in the salience of token j) and the
    incoming gradient g: dS_ij = g_j P_ij - A_ij Σ_k g_k P_ik.
    """
    heads, width = salience.shape[1], keys.shape[-1]
    salience = salience.nan_to_num(neginf=torch.inf)  # no frame has a part in an unseen token
    grad_speech = torch.empty_like(speech)
    for head in range(heads):
        dims = slice(head * width // heads, (head + 1) * width // heads)
        head_keys = keys[:, :, dims]
        for part in _slices(speech, keys):
            queries = speech[:, part, dims]
            attention = _scores(queries, head_keys, context_mask).sub_(log_z[:, head, part, None])
            part_of = (attention - salience[:, None, head]).exp_().mul_(grad[:, None, head])
            mass = part_of.sum(-1, keepdim=True)
            grad_scores = part_of.sub_(attention.exp_().mul_(mass))
            if speech_mask is not None:
                grad_scores.masked_fill_(~speech_mask[:, part, None], 0.0)
            scale = (width // heads) ** -0.5
            grad_speech[:, part, dims] = torch.bmm(grad_scores, head_keys).mul_(scale)
            grad_keys[:, :, dims].baddbmm_(grad_scores.transpose(1, 2), queries, alpha=scale)
    return grad_speech
