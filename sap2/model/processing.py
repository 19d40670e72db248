"""Processor of SAP² for plain transformers: text with contexts and audio in, expanded inputs out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import AutoProcessor, BatchFeature, Qwen2AudioProcessor

from sap2.audio import check_audio
from sap2.errors import InputError
from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.context import Context, add_sap_tokens, expand_contexts
from sap2.model.pooling import DEFAULT_POOLING, MOVING
from sap2.model.spotter import pad_spellings
from sap2.shipped import find_checkpoint


class SAP2Qwen2AudioProcessor(Qwen2AudioProcessor):
    """Qwen2-Audio's processor that also expands contexts.

    Args:
        sap_window_size: context tokens that become one embedding; the model's ``config.sap_window_size``.
        sap_min_positions: embeddings that a context is compressed to at least; the model's
            ``config.sap_min_positions``.
        sap_pooling: the model's ``config.sap_pooling``: one that moves keywords needs a separator after each.
        sap_truncate_audio: hear the beginning of too long an audio instead of refusing it.
        embedding_rows: rows of the model's token embedding, to refuse a tokenizer that does not fit it; None: trust.
    """

    def __init__(
        self,
        feature_extractor=None,
        tokenizer=None,
        chat_template=None,
        audio_token="<|AUDIO|>",
        audio_bos_token="<|audio_bos|>",
        audio_eos_token="<|audio_eos|>",
        sap_window_size: int = 2,
        sap_min_positions: int = 0,
        sap_truncate_audio: bool = False,
        sap_pooling: str = DEFAULT_POOLING,
        embedding_rows: int | None = None,
    ):
        super().__init__(feature_extractor, tokenizer, chat_template, audio_token, audio_bos_token, audio_eos_token)
        self.sap_window_size = sap_window_size
        self.sap_min_positions = sap_min_positions
        self.sap_truncate_audio = sap_truncate_audio
        self.sap_pooling = sap_pooling
        self.embedding_rows = embedding_rows
        self.context_token_id = add_sap_tokens(tokenizer, embedding_rows or len(tokenizer) + 3)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Load from a Qwen2-Audio or SAP² folder; the model's configuration there gives the settings."""
        pretrained_model_name_or_path = find_checkpoint(pretrained_model_name_or_path)
        config = SAP2Qwen2AudioConfig.from_pretrained(pretrained_model_name_or_path)
        config.resolve_sap()
        kwargs.setdefault("sap_window_size", config.sap_window_size)
        kwargs.setdefault("sap_min_positions", config.sap_min_positions)
        kwargs.setdefault("sap_truncate_audio", config.sap_truncate_audio)
        kwargs.setdefault("sap_pooling", config.sap_pooling)
        kwargs.setdefault("embedding_rows", config.text_config.vocab_size)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def __call__(self, text=None, audio=None, **kwargs) -> BatchFeature:
        """Encode texts and audios.

        Args:
            text: one text or a batch, with one ``<|AUDIO|>`` per audio and any contexts in place.
            audio: arrays of samples at the feature extractor's rate, in the order of the texts; one array or a list.

        Returns:
            Upstream's inputs, with those of :func:`pad_contexts` where there is a context: row i belongs to audio i.

        Raises:
            InputError: bad contexts or audio; the message names the text by its number.
        """
        texts = [text] if isinstance(text, str) else list(text)
        audios = [] if audio is None else [audio] if isinstance(audio, np.ndarray) else list(audio)
        extractor = self.feature_extractor
        audios = [
            check_audio(samples, extractor.sampling_rate, extractor.n_samples, self.sap_truncate_audio, str(i))
            for i, samples in enumerate(audios, 1)
        ]
        contexts: list[Context] = []
        for i, content in enumerate(texts):
            try:
                expanded = expand_contexts([content], self.audio_token, self.tokenizer, *self.compression)
            except InputError as error:
                raise InputError(f"text {i + 1}: {error}") from None
            texts[i] = expanded.texts[0]
            contexts += expanded.contexts
        if len(contexts) != len(audios):
            raise InputError(
                f"the texts hold {len(contexts)} {self.audio_token} and there are {len(audios)} audios; "
                f"allowed: one for each audio"
            )
        kwargs.setdefault("sampling_rate", extractor.sampling_rate)
        inputs = super().__call__(text=texts, audio=audios or None, **kwargs)
        if any(context.ids for context in contexts):
            inputs.update(pad_contexts(contexts, self.tokenizer.pad_token_id))
        return inputs

    @property
    def compression(self) -> tuple[int, int, bool]:
        """Window, least positions, and whether keywords are closed, as :func:`expand_contexts` takes them."""
        return self.sap_window_size, self.sap_min_positions, self.sap_pooling in MOVING

    @property
    def model_input_names(self):
        return [*super().model_input_names, "context_input_ids", "context_keyword_numbers", "context_spellings"]


def pad_contexts(contexts: Sequence[Context], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Contexts of each audio → the model's inputs, all int64 and padded on the right.

    ``context_input_ids`` (audios, longest), ``context_keyword_numbers`` with the number of the keyword that each token
    belongs to, from 1, and 0 for padding, and ``context_spellings`` (audios, most keywords, longest spelling).
    """

    distinct = {id(context): context for context in contexts}  # a list that several audios share is spelled once
    places = {key: place for place, key in enumerate(distinct)}
    rows = torch.tensor([places[id(context)] for context in contexts])

    def pad(given: Iterable[Sequence[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row, dtype=torch.int64) for row in given]
        return torch.nn.utils.rnn.pad_sequence(tensors, True, value)[rows]

    return {
        "context_input_ids": pad((context.ids for context in distinct.values()), pad_token_id),
        "context_keyword_numbers": pad((context.numbers for context in distinct.values()), 0),
        "context_spellings": pad_spellings([_each_once(context.keywords) for context in distinct.values()])[rows],
    }


def _each_once(keywords: Sequence[str]) -> list[str]:
    """The keywords with nothing in the place of a repeat, which is not to be kept twice."""
    first = {keyword.strip(): place for place, keyword in reversed(list(enumerate(keywords)))}
    return [keyword if first[keyword.strip()] == place else "" for place, keyword in enumerate(keywords)]


AutoProcessor.register(SAP2Qwen2AudioConfig, SAP2Qwen2AudioProcessor)
