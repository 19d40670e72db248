"""The language model of a Qwen2-Audio or SAP² checkpoint as a model of vLLM, read from the checkpoint as it is."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper

from sap2.pipeline.engines.merging import merge_lora
from sap2.pipeline.engines.vllm_plugin import MERGED

NAMES = WeightsMapper(
    orig_to_new_prefix={
        # what stays on our side, by the names of the hub and by those of transformers
        "audio_tower.": None,
        "multi_modal_projector.": None,
        "model.audio_tower.": None,
        "model.multi_modal_projector.": None,
        "model.context_pooling.": None,
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
        "model.language_model.": "model.",
    }
)
"""Names of tensors in a checkpoint, and of modules in an adapter, to those of the language model alone."""


class SAP2LanguageModel(Qwen2ForCausalLM):
    """Qwen2, filled with the language model's tensors of a whole checkpoint; a missing one is an error of vLLM's."""

    hf_to_vllm_mapper = NAMES | Qwen2ForCausalLM.hf_to_vllm_mapper

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Names of the parameters that were filled."""
        if (folder := getattr(self.config, MERGED, None)) is not None:
            weights = merge_lora(weights, folder)
        return AutoWeightsLoader(self).load_weights(weights, mapper=NAMES)
