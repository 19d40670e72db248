"""Qwen2-Audio with speech-driven pooling of the context: loss, generation, loading. Only what differs from upstream's
model is written here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioPreTrainedModel,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sap2.errors import InputError
from sap2.model.adapters import watch_adapters
from sap2.model.audios import Audios, rows_of_beams
from sap2.model.configuration import OPENED_WITH, SAP2Qwen2AudioConfig
from sap2.model.context import context_token_id
from sap2.model.inner import SAP2Qwen2AudioModel
from sap2.model.outputs import SAP2CausalLMOutput
from sap2.model.riding import ride_on_loss, ride_on_states, share_of_batch
from sap2.model.weights import check_loaded, claimed_parts, hub_renamings, lacking, may_lack, tensors_of
from sap2.shipped import find_checkpoint

_PER_AUDIO = tuple(name for name in Audios._fields if name not in {"transcripts", "term_input_ids", "term_targets"})
"""Inputs whose rows are audios and not samples; used in the first step of a generation only."""

README = f"""# SAP² model

This is a Qwen2-Audio with speech-driven pooling of the context (SAP², arXiv 2511.11139). It needs the Python package
`sap2`: {OPENED_WITH}. Without it, transformers does not know the model type `sap_qwen2_audio`.

```python
import sap2
from transformers import AutoModelForCausalLM, AutoProcessor

model = AutoModelForCausalLM.from_pretrained("this folder")
processor = AutoProcessor.from_pretrained("this folder")
```
"""
SPOTTER_WEIGHT = 0.1
"""Of the spotter's loss, and the retriever's, beside the language model's. It moves these parts alone, so that only
their learning rate would change with it, and an adaptive optimizer evens that out."""


class SAP2Qwen2AudioForConditionalGeneration(Qwen2AudioForConditionalGeneration):
    """Qwen2-Audio that reads a context compressed by the speech (SAP², arXiv 2511.11139)."""

    config_class = SAP2Qwen2AudioConfig
    # not every model uses the spotter and the retriever of a checkpoint
    _keys_to_ignore_on_load_unexpected = (r"context_pooling\.|\.retriever\.",)
    keys_to_ignore_at_inference = ("past_key_values", "aux_loss")
    lacks: frozenset[str] = frozenset()
    """The parts (:data:`sap2.model.configuration.PARTS`) that the checkpoint did not have: they are untrained."""
    train_alone: str | None = None
    """``spotter`` or ``retriever``: give its loss for the loss, without the language model."""
    backward_scale = 1.0
    """What a trainer that makes its loss of the logits scales that loss with before its backward pass: 1 over the steps
    that it accumulates."""

    def __init__(self, config: SAP2Qwen2AudioConfig):
        # Not upstream's own __init__: it would make the 7B of its inner model first.
        Qwen2AudioPreTrainedModel.__init__(self, config)
        watch_adapters()
        self.model = SAP2Qwen2AudioModel(config)
        self.lm_head = torch.nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        """Load a Qwen2-Audio or a SAP² checkpoint, also by the name of one that comes with the package.

        Raises:
            InputError: a tensor is missing or has another shape, or is none of the model's. (transformers would go on
                with random numbers.)
        """
        pretrained_model_name_or_path = find_checkpoint(pretrained_model_name_or_path)
        kwargs["ignore_mismatched_sizes"] = True  # refused below, by name
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if not isinstance(loaded, tuple):
            return loaded  # ms-swift's model without weights
        model, info = loaded
        lost = model.lacks and model.lacks & claimed_parts(pretrained_model_name_or_path, **kwargs)
        names = model.state_dict()
        check_loaded(pretrained_model_name_or_path, info, [name for part in lost for name in tensors_of(part, names)])
        if model.config.sap_context_token_id is None:
            model.config.sap_context_token_id = context_token_id(
                pretrained_model_name_or_path, model.config.text_config.vocab_size, **kwargs
            )
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As upstream; the folder's README says what it takes to open it, unless there is one."""
        super().save_pretrained(save_directory, *args, **kwargs)
        readme = Path(save_directory) / "README.md"
        if not readme.exists():
            readme.write_text(README, encoding="utf-8")

    def _adjust_missing_and_unexpected_keys(self, loading_info) -> None:
        """As upstream, and a missing spotter or retriever is no news: a plain Qwen2-Audio has none."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        names, missing = self.state_dict(), set(loading_info.missing_keys)
        self.lacks = frozenset(lacking(names, missing))
        loading_info.missing_keys = missing - may_lack(names, missing)

    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_keyword_numbers: Tensor | None = None,
        audio_hidden_states: Tensor | None = None,
        context_spellings: Tensor | None = None,
        transcripts: Tensor | None = None,
        term_input_ids: Tensor | None = None,
        term_targets: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values=None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> SAP2CausalLMOutput:
        """Language modelling with speech and context.

        Args:
            input_ids: (B, S) with one placeholder for each speech embedding and each pooled context embedding.
            input_features: (A, mel bins, frames) of the A audios of the batch, in the order of their placeholders.
            feature_attention_mask: (A, frames), 1 = valid.
            context_input_ids: (A, L) token ids of the context of each audio; None where the batch has no context.
            context_keyword_numbers: (A, L) number of the keyword that a token belongs to, from 1 (or just 1 = valid,
                but for ``salience``); 0 = padding; None: all valid. A row of zeros: an audio without context.
            audio_hidden_states: (A, T, tower width), in place of ``input_features``: what
                :meth:`SAP2Qwen2AudioModel.encode_audio` made of them.
            context_spellings: (A, K, n) symbols of the keywords (:func:`sap2.model.spotter.pad_spellings`), for
                ``salience``.
            transcripts: (A, n) symbols of what is said, 0 = padding, to train the spotter; a row of zeros: unknown.
            term_input_ids: (A, K, n) token ids of terms, -1 = padding, to train the retriever.
            term_targets: (A, K), 1 = that term is spoken in that audio, 0 = it is not, -100 = padding.
            labels: (B, S), -100 = ignored; or of the positions that ``logits_to_keep`` keeps.
            logits_to_keep: the last n positions, or a boolean or index tensor of the positions, for which logits are
                computed; 0: all.

        Returns:
            The loss is the mean over the labels (or their sum over ``num_items_in_batch``, where a trainer gives it):
            the language model's alone. That of the spotter and the retriever is ``aux_loss``; its gradient comes along
            (:mod:`sap2.model.riding`).

        Raises:
            ValueError: the number of placeholders is not that of the embeddings.
        """
        audios = Audios(
            input_features,
            feature_attention_mask,
            audio_hidden_states,
            context_input_ids,
            context_keyword_numbers,
            context_spellings,
            transcripts,
            term_input_ids,
            term_targets,
        )
        if self.train_alone is not None:
            loss = self.model.listen(audios, self.train_alone)
            learnt = transcripts if self.train_alone == "spotter" else term_targets
            return SAP2CausalLMOutput(loss=loss, aux_loss=None if learnt is None else loss.detach())
        outputs = self.model(
            input_ids=input_ids,
            audios=audios,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        states, aside = outputs.last_hidden_state[:, kept], outputs.aside
        if labels is None and aside is not None and self.training:
            states = ride_on_states(states, aside, SPOTTER_WEIGHT * self.backward_scale)
        logits, loss = self.lm_head(states), None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
            if aside is not None and self.training:
                loss = ride_on_loss(
                    loss, aside, SPOTTER_WEIGHT * share_of_batch(labels, kwargs.get("num_items_in_batch"))
                )
        return SAP2CausalLMOutput(
            loss=loss,
            aux_loss=None if aside is None or (transcripts is None and term_targets is None) else aside.detach(),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def generate(self, inputs=None, generation_config=None, **kwargs):
        """As upstream.

        Raises:
            InputError: the prompt is to be read in chunks (``prefill_chunk_size``): speech and context would be lost.
        """
        chosen = generation_config or self.generation_config
        if kwargs.get("prefill_chunk_size", chosen.prefill_chunk_size) is not None:
            raise InputError("prefill_chunk_size would part a prompt from its speech and context; allowed: None")
        return super().generate(inputs, generation_config=generation_config, **kwargs)

    # transformers looks for a variadic argument of exactly this name, and for inputs_embeds
    def prepare_inputs_for_generation(self, *args, inputs_embeds=None, is_first_iteration=False, **kwargs):
        inputs = super().prepare_inputs_for_generation(
            *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            # upstream drops only the names it knows; the audio is in the cache by now
            for name in _PER_AUDIO:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs):
        """Repeat each sample for its beams, and its audios and contexts, which are rows of their own, with it."""
        per_audio = {name: kwargs.pop(name) for name in _PER_AUDIO if kwargs.get(name) is not None}
        if expand_size > 1 and "feature_attention_mask" in per_audio:
            rows = self._audio_rows(input_ids, per_audio["feature_attention_mask"], expand_size)
            per_audio = {name: values[rows.to(values.device)] for name, values in per_audio.items()}
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **per_audio}

    def _audio_rows(self, input_ids: Tensor, feature_attention_mask: Tensor, expand_size: int) -> Tensor:
        """Index of the audio of each row after every sample was repeated ``expand_size`` times."""
        _, tokens = self.model.audio_tower._get_feat_extract_output_lengths(feature_attention_mask.sum(-1).cpu())
        sample_ends = (input_ids == self.config.audio_token_id).sum(-1).cpu().cumsum(0)
        return rows_of_beams(tokens.cumsum(0) - tokens, sample_ends, expand_size)


def _register() -> None:
    """Load and save with the names of the hub's tensors (transformers renames them only for classes it knows)."""
    mapping = hub_renamings()
    for name in (SAP2Qwen2AudioForConditionalGeneration.__name__, SAP2Qwen2AudioConfig.model_type):
        register_checkpoint_conversion_mapping(name, mapping, overwrite=True)
    # where trainers look up whether labels are shifted (label smoothing)
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[SAP2Qwen2AudioConfig.model_type] = SAP2Qwen2AudioForConditionalGeneration.__name__
    AutoModel.register(SAP2Qwen2AudioConfig, SAP2Qwen2AudioModel)
    for auto_class in (AutoModelForMultimodalLM, AutoModelForSeq2SeqLM, AutoModelForCausalLM):
        auto_class.register(SAP2Qwen2AudioConfig, SAP2Qwen2AudioForConditionalGeneration)


_register()
