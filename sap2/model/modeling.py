"""Qwen2-Audio with speech-driven pooling of the context. Only what differs from upstream's model is written here."""

from __future__ import annotations

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
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioModel

from sap2.model.audios import Audios, Speech, rows_of_beams
from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.context import context_token_id
from sap2.model.encoder import FRAME_STEP, encode_audio
from sap2.model.merging import Source, fill_placeholders
from sap2.model.outputs import SAP2CausalLMOutput, SAP2ModelOutput
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.spotter import KeywordSpotter, SpotterLinear, spotting_loss
from sap2.model.weights import check_loaded, hub_renamings

_PER_AUDIO = tuple(name for name in Audios._fields if name != "transcripts")
"""Inputs whose rows are audios and not samples; used in the first step of a generation only."""

SPOTTER_WEIGHT = 0.1
"""Of the spotter's loss beside the language model's. It moves the spotter alone, so that only its learning rate would
change with it, and an adaptive optimizer evens that out."""


class SAP2Qwen2AudioModel(Qwen2AudioModel):
    """Audio tower, projector, spotter, pooling layer and language model."""

    config_class = SAP2Qwen2AudioConfig

    def __init__(self, config: SAP2Qwen2AudioConfig):
        super().__init__(config)
        config.resolve_sap()
        width = config.text_config.hidden_size
        self.context_pooling = SpeechDrivenPooling(
            width,
            config.sap_num_heads,
            config.sap_window_size,
            config.sap_pooling,
            config.sap_min_positions,
            KeywordSpotter(width) if config.sap_spotter else None,
        )

    @property
    def spotter(self) -> KeywordSpotter | None:
        """The spotter (``sap_spotter``). It is the model's; in checkpoints its tensors are named after the pooling."""
        return self.context_pooling.spotter

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, SpotterLinear):
            module.reset_parameters()  # its own untrained state, and not upstream's random numbers
        else:
            super()._init_weights(module)

    def encode_audio(self, input_features: Tensor, feature_attention_mask: Tensor) -> Tensor:
        """The audio tower's output (A, T, tower width) of log-mel spectrograms (A, mel bins, frames).

        ``feature_attention_mask`` (A, frames) has 1 for a valid frame.
        """
        return encode_audio(self.audio_tower, input_features, feature_attention_mask)

    def get_speech_features(
        self,
        input_features: Tensor | None,
        feature_attention_mask: Tensor,
        audio_hidden_states: Tensor | None = None,
    ) -> Speech:
        """Speech embeddings as the language model sees them.

        Args:
            input_features: (A, mel bins, frames) log-mel spectrograms; None where the tower's output is given.
            feature_attention_mask: (A, frames), 1 = valid.
            audio_hidden_states: what :meth:`encode_audio` made of the features, to save doing it again.
        """
        if audio_hidden_states is None:
            audio_hidden_states = self.encode_audio(input_features, feature_attention_mask)
        speech = self.multi_modal_projector(audio_hidden_states)
        lengths = feature_attention_mask.to(speech.device).sum(-1)
        _, tokens = self.audio_tower._get_feat_extract_output_lengths(lengths)
        speech_mask = torch.arange(speech.shape[1], device=speech.device)[None] < tokens[:, None]
        return Speech(speech, speech_mask)

    def pool_contexts(self, speech: Speech, audios: Audios, log_probs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed the contexts (A, L) and pool each with the speech of its audio → (A, N, D) and mask (A, N).

        Args:
            log_probs: what the spotter says of the speech, where it is known already.

        Raises:
            ValueError: there is not one context for each audio.
        """
        ids, numbers, spellings = audios.context_input_ids, audios.context_keyword_numbers, audios.context_spellings
        if ids.shape[0] != speech.embeddings.shape[0]:
            raise ValueError(
                f"context_input_ids has {ids.shape[0]} rows and there are {speech.embeddings.shape[0]} audios; "
                f"allowed: one row for each audio"
            )
        if self.config.sap_context_token_id is None:
            raise ValueError("config.sap_context_token_id is None; allowed: the tokenizer's id of <|context|>")
        context = self.get_input_embeddings()(ids)
        speech = Speech(*(tensor.to(context.device) for tensor in speech))
        numbers = None if numbers is None else numbers.to(context.device)
        spellings = None if spellings is None else spellings.to(context.device)
        return self.context_pooling(
            speech.embeddings,
            context,
            speech.mask,
            None if numbers is None else numbers > 0,
            numbers,
            spellings,
            log_probs,
        )

    def embed(self, input_ids: Tensor, audios: Audios) -> Tensor:
        """What the language model reads (B, S, D): tokens (B, S), with speech and contexts in place of placeholders."""
        return self.merge_inputs(input_ids, self.get_input_embeddings()(input_ids), audios)[0]

    def merge_inputs(self, input_ids: Tensor, inputs_embeds: Tensor, audios: Audios) -> tuple[Tensor, Tensor | None]:
        """Put speech and pooled contexts in the place of their placeholders. Also the spotter's loss, in training."""
        speech = self.get_speech_features(
            audios.input_features, audios.feature_attention_mask, audios.audio_hidden_states
        )
        log_probs, loss = None, None
        if self.training and self.spotter is not None:
            log_probs = self.spotter(speech.embeddings.detach(), speech.mask)
            # without a transcript too: ranks of a distributed run must use the same parameters
            loss = log_probs.sum() * 0.0
            if audios.transcripts is not None:
                loss = spotting_loss(log_probs, speech.mask, audios.transcripts.to(log_probs.device)) + loss
        sources = {"audio": Source(input_ids == self.config.audio_token_id, *speech)}
        # placeholders whose context got lost are an error
        pooled, pooled_mask = speech.embeddings[:, :0], speech.mask[:, :0]
        if audios.context_input_ids is not None:
            pooled, pooled_mask = self.pool_contexts(speech, audios, log_probs)
        if self.config.sap_context_token_id is not None:
            sources["context"] = Source(input_ids == self.config.sap_context_token_id, pooled, pooled_mask)
        return fill_placeholders(inputs_embeds, sources), loss

    def _touch_speech_modules(self, inputs_embeds: Tensor) -> Tensor:
        """Run tower and projector on silence, for nothing.

        Ranks of a distributed run must use the same parameters in each step, or those that wait for the gradients of
        the others wait forever; a batch without audio would leave these out.
        """
        tower_config = self.config.audio_config
        silence = inputs_embeds.new_zeros((1, tower_config.num_mel_bins, FRAME_STEP))
        speech, _ = self.get_speech_features(silence, silence.new_ones((1, FRAME_STEP), dtype=torch.long))
        if self.spotter is not None:
            speech = speech + self.spotter(speech.detach()).sum()
        return inputs_embeds + speech.sum().to(inputs_embeds.device, inputs_embeds.dtype) * 0.0

    def forward(
        self,
        input_ids: Tensor | None = None,
        audios: Audios | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ) -> SAP2ModelOutput:
        """See :meth:`SAP2Qwen2AudioForConditionalGeneration.forward`; returns the language model's output.

        The fields of ``audios`` are taken as keyword arguments too.
        """
        audios = Audios.take_from(kwargs) if audios is None else audios
        spotter_loss = None
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if audios.heard:
                inputs_embeds, spotter_loss = self.merge_inputs(input_ids, inputs_embeds, audios)
            elif self.training:
                inputs_embeds = self._touch_speech_modules(inputs_embeds)
        outputs = self.language_model(attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)
        return SAP2ModelOutput(**outputs, spotter_loss=spotter_loss)


class SAP2Qwen2AudioForConditionalGeneration(Qwen2AudioForConditionalGeneration):
    """Qwen2-Audio that reads a context compressed by the speech (SAP², arXiv 2511.11139)."""

    config_class = SAP2Qwen2AudioConfig
    # not every model uses the spotter of a checkpoint
    _keys_to_ignore_on_load_unexpected = (r"context_pooling\.",)

    def __init__(self, config: SAP2Qwen2AudioConfig):
        # Not upstream's own __init__: it would make the 7B of its inner model first.
        Qwen2AudioPreTrainedModel.__init__(self, config)
        self.model = SAP2Qwen2AudioModel(config)
        self.lm_head = torch.nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        """Load a Qwen2-Audio or a SAP² checkpoint.

        Raises:
            InputError: a tensor is missing or has another shape, or is none of the model's. (transformers would go on
                with random numbers.)
        """
        kwargs["ignore_mismatched_sizes"] = True  # refused below, by name
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if not isinstance(loaded, tuple):
            return loaded  # ms-swift's model without weights
        model, info = loaded
        check_loaded(pretrained_model_name_or_path, model.state_dict(), info)
        if model.config.sap_context_token_id is None:
            model.config.sap_context_token_id = context_token_id(
                pretrained_model_name_or_path, model.config.text_config.vocab_size, **kwargs
            )
        return (model, info) if output_loading_info else model

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
            labels: (B, S), -100 = ignored; or of the positions that ``logits_to_keep`` keeps.
            logits_to_keep: the last n positions, or a boolean or index tensor of the positions, for which logits are
                computed; 0: all.

        Returns:
            The loss is the mean over the labels (or their sum over ``num_items_in_batch``, where a trainer gives it).

        Raises:
            ValueError: the number of placeholders is not that of the embeddings.
        """
        outputs = self.model(
            input_ids=input_ids,
            audios=Audios(
                input_features,
                feature_attention_mask,
                audio_hidden_states,
                context_input_ids,
                context_keyword_numbers,
                context_spellings,
                transcripts,
            ),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
            if outputs.spotter_loss is not None:
                loss = loss + SPOTTER_WEIGHT * outputs.spotter_loss.to(loss.device)
        return SAP2CausalLMOutput(
            loss=loss,
            aux_loss=outputs.spotter_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

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
