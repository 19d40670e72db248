"""From tokens, speech and contexts to the language model's output: Qwen2-Audio's inner model with contexts in it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioModel

from sap2.model.audios import Audios, Speech
from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.encoder import encode_audio
from sap2.model.merging import Source, fill_placeholders
from sap2.model.outputs import SAP2ModelOutput
from sap2.model.pooling import MOVING, SpeechDrivenPooling
from sap2.model.retriever import NO_TOKEN, TermRetriever, retrieval_loss, term_logits
from sap2.model.spotter import KeywordSpotter, SpotterLinear, spotting_loss


class SAP2Qwen2AudioModel(Qwen2AudioModel):
    """Audio tower, projector, spotter, retriever, pooling layer and language model."""

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
        # as many heads as the language model has: 32 of Qwen2-Audio-7B, as A2P was published
        heads = config.text_config.num_attention_heads
        self.retriever = TermRetriever(width, heads) if config.sap_retriever else None

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
        ids = audios.context_input_ids
        if ids.shape[0] != speech.embeddings.shape[0]:
            raise ValueError(
                f"context_input_ids has {ids.shape[0]} rows and there are {speech.embeddings.shape[0]} audios; "
                f"allowed: one row for each audio"
            )
        context = self.get_input_embeddings()(ids)
        speech = Speech(*(tensor.to(context.device) for tensor in speech))
        numbers, spellings, log_probs = (
            None if tensor is None else tensor.to(context.device)
            for tensor in (audios.context_keyword_numbers, audios.context_spellings, log_probs)
        )
        mask = None if numbers is None else numbers > 0
        return self.context_pooling(speech.embeddings, context, speech.mask, mask, numbers, spellings, log_probs)

    def embed(self, input_ids: Tensor, audios: Audios) -> Tensor:
        """What the language model reads (B, S, D): tokens (B, S), with speech and contexts in place of placeholders."""
        return self._read(input_ids, audios)[0]

    def listen(self, audios: Audios, part: str) -> Tensor:
        """The loss of the ``spotter`` on the transcripts of the audios, or of the ``retriever`` on their terms, without
        the language model; 0 without any."""
        embedding = self.get_input_embeddings().weight
        given = audios.completed(self.config.audio_config.num_mel_bins, embedding)
        speech = self.get_speech_features(*given.sound)
        return self._retrieve(speech, given, True) if part == "retriever" else self._spot(speech, given, True)[1]

    def _retrieve(self, speech: Speech, audios: Audios, every_module: bool) -> Tensor | None:
        """The loss of the retriever on the terms of the audios; None where it is not needed."""
        ids = audios.term_input_ids
        if self.retriever is None or (ids is None and not every_module):
            return None
        if ids is None:
            ids = torch.zeros((len(speech.mask), 1, 1), dtype=torch.long, device=speech.mask.device)
        tokens, places = ids.unique(return_inverse=True)
        embeddings = self.get_input_embeddings()(tokens.clamp(min=0)).detach()
        found = self.retriever.find(self.retriever.prepare(embeddings), speech.embeddings.detach(), speech.mask)
        logits = term_logits(found, places.to(found.device), (ids != NO_TOKEN).to(found.device))
        # without terms 0: ranks of a distributed run must use the same parameters
        return logits.sum() * 0.0 if audios.term_targets is None else retrieval_loss(logits, audios.term_targets)

    def _spot(
        self, speech: Speech, audios: Audios, every_module: bool, ranks: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the spotter hears (A, T, symbols), and its loss; None where neither is needed.

        Args:
            ranks: keywords are ranked by it, which an untrained one cannot do.
        """
        learns = self.training or audios.transcripts is not None
        if self.spotter is None or not (learns or every_module):
            return None, None
        log_probs = self.spotter(speech.embeddings.detach(), speech.mask, untrained=learns or not ranks)
        # 0 without a transcript: ranks of a distributed run must use the same parameters
        loss = log_probs.sum() * 0.0
        if audios.transcripts is not None:
            loss = loss + spotting_loss(log_probs, speech.mask, audios.transcripts).to(loss.device)
        return log_probs, loss

    def _read(self, input_ids: Tensor, audios: Audios, every_module: bool = False) -> tuple[Tensor, Tensor | None]:
        """What the language model reads (B, S, D), and the loss of the spotter and the retriever.

        Args:
            every_module: use every module, and in the same order, whatever the batch holds. Ranks of a distributed run
                wait for each other (under ZeRO-3 in each module), and their batches differ.

        Raises:
            ValueError: the number of placeholders is not that of the embeddings.
        """
        if audios.context_input_ids is not None and self.config.sap_context_token_id is None:
            raise ValueError("config.sap_context_token_id is None; allowed: the tokenizer's id of <|context|>")
        embeddings = self.get_input_embeddings()(input_ids)
        given = audios.completed(self.config.audio_config.num_mel_bins, embeddings) if every_module else audios
        speech = pooled = Speech(embeddings[:1, :0], embeddings.new_zeros((1, 0), dtype=torch.bool))
        loss, unused = None, []
        if given.heard:
            speech = self.get_speech_features(*given.sound)
            ranks = self.config.sap_pooling in MOVING and audios.context_input_ids is not None
            log_probs, loss = self._spot(speech, given, every_module, ranks)
            retrieved = self._retrieve(speech, given, every_module)
            loss = retrieved if loss is None else loss if retrieved is None else loss + retrieved.to(loss.device)
            if given.context_input_ids is not None:
                pooled = Speech(*self.pool_contexts(speech, given, log_probs))
        if given.heard and not audios.heard:
            unused, speech = [speech.embeddings], Speech(speech.embeddings[:, :0], speech.mask[:, :0])
        if audios.context_input_ids is None:
            unused, pooled = [*unused, pooled.embeddings], Speech(pooled.embeddings[:, :0], pooled.mask[:, :0])
        sources = {"audio": Source(input_ids == self.config.audio_token_id, *speech)}
        if self.config.sap_context_token_id is not None:
            sources["context"] = Source(input_ids == self.config.sap_context_token_id, *pooled)
        filled = fill_placeholders(embeddings, sources)
        for stand_in in unused:
            filled = filled + stand_in.sum().to(filled.device, filled.dtype) * 0.0
        return filled, loss

    def forward(
        self,
        input_ids: Tensor | None = None,
        audios: Audios | None = None,
        attention_mask: Tensor | None = None,
        past_key_values=None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ) -> SAP2ModelOutput:
        """See :meth:`SAP2Qwen2AudioForConditionalGeneration.forward`; returns the language model's output.

        The fields of ``audios`` are taken as keyword arguments too.
        """
        audios = Audios.take_from(kwargs) if audios is None else audios
        aside = None
        continues = past_key_values is not None and past_key_values.get_seq_length() > 0
        if inputs_embeds is None and continues and not audios.heard and input_ids.shape[1] == 1:
            inputs_embeds = self.get_input_embeddings()(input_ids)  # the next word of a reply
        elif inputs_embeds is None:
            every_module = self.training or (_several_ranks() and not continues)
            inputs_embeds, aside = self._read(input_ids, audios, every_module)
        outputs = self.language_model(
            attention_mask=attention_mask, past_key_values=past_key_values, inputs_embeds=inputs_embeds, **kwargs
        )
        return SAP2ModelOutput(**outputs, aside=aside)


def _several_ranks() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
