"""What the model returns: upstream's outputs and the loss of what listens beside the language model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioCausalLMOutputWithPast


@dataclass
class SAP2ModelOutput(BaseModelOutputWithPast):
    """The language model's output, and the loss of the spotter and the retriever in training."""

    aside: Tensor | None = None


@dataclass
class SAP2CausalLMOutput(Qwen2AudioCausalLMOutputWithPast):
    """Upstream's output; ms-swift logs ``aux_loss``, the loss of the spotter and the retriever."""

    aux_loss: Tensor | None = None
