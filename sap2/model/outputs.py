"""What the model returns: upstream's outputs and the loss of the spotter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioCausalLMOutputWithPast


@dataclass
class SAP2ModelOutput(BaseModelOutputWithPast):
    """The language model's output, and the loss of the spotter in training."""

    spotter_loss: Tensor | None = None


@dataclass
class SAP2CausalLMOutput(Qwen2AudioCausalLMOutputWithPast):
    """Upstream's output; ms-swift logs ``aux_loss``, the loss of the spotter."""

    aux_loss: Tensor | None = None
