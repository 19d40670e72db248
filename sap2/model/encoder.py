"""Qwen2-Audio's audio tower without the silence that fills up its window.

Upstream's extractor fills every audio up to the window (30 s), and upstream's tower computes all of it, though the
positions of the filling are masked and nobody reads them. Most utterances of a talk are a few seconds long.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from sap2.lengths import FRAMES_PER_TOKEN, convolved_length

FRAME_STEP = 32
"""Batches are cut to multiples of this many mel frames, so that few shapes occur."""


def trim_features(input_features: Tensor, feature_attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut what no audio of the batch fills off the end of (A, mel bins, frames) features and their (A, frames) mask.

    At least one embedding beyond the longest audio stays: the convolutions at its end see what upstream's see.
    """
    longest = int(feature_attention_mask.sum(-1).max()) + FRAMES_PER_TOKEN
    frames = -(-longest // FRAME_STEP) * FRAME_STEP
    return input_features[..., :frames], feature_attention_mask[..., :frames]


def encode_audio(tower: Qwen2AudioEncoder, input_features: Tensor, feature_attention_mask: Tensor) -> Tensor:
    """The tower's output (A, T, width) of log-mel spectrograms (A, mel bins, frames), of a whole window or less.

    ``feature_attention_mask`` (A, frames) has 1 for a valid frame. The embeddings of valid frames are upstream's.

    Raises:
        ValueError: there are more frames than the window has.
    """
    window, frames = 2 * tower.max_source_positions, input_features.shape[-1]
    if frames > window:
        raise ValueError(f"input_features has {frames} mel frames; allowed: up to {window}")
    # upstream's own forward can also drop layers at random, which no published checkpoint asks for
    drops_layers = tower.training and tower.layerdrop > 0
    if drops_layers and frames < window:
        silence = input_features[..., -1:].expand(-1, -1, window - frames)
        input_features = torch.cat([input_features, silence], -1)
    input_features = input_features.to(tower.device, tower.conv1.weight.dtype)
    positions, _ = tower._get_feat_extract_output_lengths(feature_attention_mask.to(tower.device).sum(-1))
    valid = torch.arange(convolved_length(input_features.shape[-1]), device=tower.device)[None] < positions[:, None]
    attention_mask = create_bidirectional_mask(
        config=tower.config,
        inputs_embeds=input_features.new_zeros((*valid.shape, 1)),
        attention_mask=valid.long(),
    )
    if drops_layers:
        return tower(input_features, attention_mask=attention_mask).last_hidden_state
    return _encode(tower, input_features, attention_mask)


def _encode(tower: Qwen2AudioEncoder, input_features: Tensor, attention_mask: Tensor | None) -> Tensor:
    """``Qwen2AudioEncoder.forward``, also for fewer frames than the window, which upstream's refuses.

    For all lengths: under ZeRO-3 ranks must call the same modules, and their audios differ in length.
    """
    gelu, dropout = torch.nn.functional.gelu, torch.nn.functional.dropout
    states = gelu(tower.conv2(gelu(tower.conv1(input_features)))).permute(0, 2, 1)
    places = torch.arange(states.shape[1], device=states.device)
    states = dropout(states + tower.embed_positions(places), p=tower.dropout, training=tower.training)
    for layer in tower.layers:
        states = layer(states, attention_mask)
    states = tower.avg_pooler(states.permute(0, 2, 1)).permute(0, 2, 1)
    return tower.layer_norm(states)
