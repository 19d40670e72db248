"""The model without its language model: it hears, pools and embeds, and something else generates."""

from __future__ import annotations

import copy

from transformers import Qwen2AudioPreTrainedModel

from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioModel


class SAP2Qwen2AudioListener(SAP2Qwen2AudioForConditionalGeneration):
    """Audio tower, projector, pooling layer and embedding table, filled from a whole checkpoint.

    It has no layers and no output layer of the language model, so that it embeds prompts and cannot generate.
    """

    _keys_to_ignore_on_load_unexpected = (
        r"context_pooling\.|\.retriever\.|language_model\.(model\.)?layers\.|lm_head\.",
    )
    _tied_weights_keys = None

    def __init__(self, config: SAP2Qwen2AudioConfig):
        config = copy.deepcopy(config)
        config.text_config.num_hidden_layers = 0
        config.text_config.layer_types = []
        Qwen2AudioPreTrainedModel.__init__(self, config)
        self.model = SAP2Qwen2AudioModel(config)
        self.post_init()
