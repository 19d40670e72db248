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

from sap2.model.pooling.salience import mean_at, spend_budget
from sap2.model.spotter import KeywordSpotter, keyword_salience

POOLINGS = ("attention", "mean", "salience")

SLICE_ELEMENTS = {"cpu": 1 << 20, "default": 1 << 24}
"""Entries of S held at a time. A CPU is fastest while a slice stays in its cache; a GPU while its cores are busy."""
MIN_FRAMES = 32
"""Frames of a slice at least: each slice reads all keys again."""


class SpeechDrivenPooling(nn.Module):
    """Pool each window of ``window_size`` context embeddings into one, guided by the speech.

    Has no parameters, but for the spotter of ``salience``.

    Args:
        hidden_size: width D of speech and context embeddings.
        num_heads: attention heads; each pools its own slice of D/num_heads dimensions.
        window_size: context tokens that become one embedding; 1 leaves the context as it is.
        pooling: ``attention`` weighs the tokens of a window by the attention that the speech gives them;
            ``mean`` weighs them equally and ignores the speech. ``salience`` makes as many embeddings, but no windows:
            the keywords that the speech holds keep their tokens, and the others share what is left
            (:func:`sap2.model.pooling.salience.spend_budget`).
        min_positions: with ``salience``, embeddings that a context is compressed to at least: short lists stay whole.

    Raises:
        ValueError: a value is not a positive integer, the heads do not divide the width, or the pooling is unknown.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, window_size: int, pooling: str = "attention", min_positions: int = 0
    ):
        super().__init__()
        check_pooling(hidden_size, num_heads, window_size, pooling, min_positions)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.window_size = window_size
        self.pooling = pooling
        self.min_positions = min_positions
        self.spotter = KeywordSpotter(hidden_size) if pooling == "salience" else None

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
        else:
            # padding may hold anything, infinities too, and 0 · inf is not 0
            context = context.masked_fill(~context_mask.unsqueeze(-1), 0)
        if self.window_size == 1 or length == 0:
            return context, context_mask
        if self.spotter is not None:
            if keyword_numbers is None or spellings is None:
                raise ValueError("pooling 'salience' needs keyword_numbers and spellings")
            log_probs = self.spotter(speech.detach()) if log_probs is None else log_probs
            return self._spend(log_probs, speech_mask, context, context_mask, keyword_numbers, spellings)
        window_mask = _windows(context_mask, self.window_size, False)
        if speech_mask is not None:
            speech = speech.masked_fill(~speech_mask.unsqueeze(-1), 0)
        compute = torch.promote_types(context.dtype, torch.float32)
        guide = speech.to(compute) if self.pooling == "attention" and speech.shape[1] else None
        pooled = _Pool.apply(guide, context.to(compute), speech_mask, context_mask, window_mask, self.num_heads)
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


def pooled_length(length: int, window_size: int, min_positions: int = 0) -> int:
    """Embeddings that ``length`` context tokens become: ceil(L/w), but no fewer than ``min_positions`` (or all)."""
    return max(-(-length // window_size), min(length, min_positions))


def _windows(values: Tensor, window_size: int, fill: float) -> Tensor:
    """(…, L) → (…, N, w), the last window filled up."""
    missing = -values.shape[-1] % window_size
    padded = nn.functional.pad(values, (0, missing), value=fill) if missing else values
    return padded.unflatten(-1, (-1, window_size))


class _Pool(torch.autograd.Function):
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
    scores = _windows(salience, window_mask.shape[-1], -torch.inf).masked_fill(~mask, -torch.inf)
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
