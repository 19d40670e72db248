"""The template: a row of ms-swift to the inputs of the model."""

from __future__ import annotations

import atexit
import base64
import io
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from swift.template import MaxLengthError, Template
from swift.template.vision_utils import load_file

from sap2.audio import check_audio, load_samples, unreadable_audio
from sap2.audio_urls import load_audio
from sap2.errors import InputError
from sap2.lengths import audio_token_count, pooled_length
from sap2.model.context import NO_CONTEXT, Context, expand_contexts
from sap2.model.encoder import trim_features
from sap2.model.pooling import MOVING
from sap2.model.processing import pad_contexts
from sap2.model.spotter import pad_transcripts
from sap2.ms_swift.noise import COLUMN, TrainingNoise
from sap2.ms_swift.parts import train_alone
from sap2.ms_swift.terms import collate_terms, spoken_terms
from sap2.ms_swift.transcripts import transcript_of
from sap2.prompts import (
    AUDIO_BOS,
    AUDIO_EOS,
    AUDIO_TAG,
    AUDIO_TOKEN,
    CONTEXT_TOKEN,
    SAP_TOKENS,
)
from sap2.rows import is_url, lift_inline_audio

_HEARD = ("input_features", "feature_attention_mask")
_SKIP_CELLS = 1 << 20  # one byte each; two of a thousand bad rows share one in every second run


class RowTooLongError(MaxLengthError, InputError):
    """A row longer than ``--max_length``; ms-swift knows it as its own error."""


class SAP2Qwen2AudioTemplate(Template):
    """Qwen2-Audio's template that also expands contexts.

    All lengths are final here: each ``<audio>`` becomes as many ``<|AUDIO|>`` as the speech has embeddings, each
    context as many ``<|context|>`` as it is pooled to, and the model fills them.
    """

    support_padding_free = False
    prompts_only = False
    """Rows may come without a reply in training too: GRPO, GKD and PPO have the model write it."""
    _skipped: torch.Tensor | None = None

    accumulated_steps = 1
    """Steps that the trainer accumulates before it updates the weights."""
    train_alone: str | None = None
    """``--sap_train spotter`` or ``retriever``."""
    opens_addresses = False
    """Whether rows come from files of the operator, and may name ``s3://…``. Requests to a server may not."""
    noise: TrainingNoise | None = None
    """``--sap_noise``."""

    def register_post_encode_hook(self, models) -> None:
        """Called when a training begins, for each of its models."""
        super().register_post_encode_hook(models)
        for model in models:
            base = self.get_base_model(model)
            base.backward_scale = 1 / self.accumulated_steps
            base.train_alone = self.train_alone
            if self.train_alone is not None:
                train_alone(model, self.train_alone)

    def init_processor(self, processor) -> None:
        if processor is not None and not self._processor_inited:
            # a list of its own: upstream's belongs to the class, and every template of the process adds to it
            self.placeholder_tokens = [CONTEXT_TOKEN]
        super().init_processor(processor)

    def replace_tag(self, media_type, index, inputs) -> list[str]:
        if media_type != "audio":
            raise InputError(f"the row has an {media_type}; allowed: audios only")
        tokens = f"{AUDIO_BOS}{AUDIO_TOKEN}{AUDIO_EOS}\n"
        return [f"Audio {index + 1}: {tokens}" if self.use_chat_template else tokens]

    def encode(self, inputs, *args, **kwargs) -> dict[str, Any]:
        try:
            return super().encode(inputs, *args, **kwargs)
        except Exception:
            if self._skipped is not None and self.is_training:
                self._skipped[zlib.crc32(repr(inputs).encode(errors="replace")) % _SKIP_CELLS] = 1
            raise

    def _encode_truncated(self, inputs) -> dict[str, Any]:
        try:
            encoded = super()._encode_truncated(inputs)
            labels = encoded.get("labels")
            if self.is_training and not self.prompts_only and labels is not None and not _has_label(labels):
                raise InputError("the row has no reply to learn from; allowed: a last turn of the assistant")
            return encoded
        except MaxLengthError as error:
            raise RowTooLongError(
                f"{_row_name(inputs)}: {error} Allowed: a larger --max_length, a shorter list or audio, or "
                f"--strict false, which skips such rows and counts them"
            ) from None
        except InputError as error:
            raise InputError(f"{_row_name(inputs)}: {error}") from None

    def _rlhf_encode(self, *args, **kwargs):
        """As upstream; nobody said the rejected reply, so that the spotter does not learn from it."""
        encoded = super()._rlhf_encode(*args, **kwargs)
        encoded.pop("rejected_transcript", None)
        return encoded

    def _kto_encode(self, *args, **kwargs):
        encoded = super()._kto_encode(*args, **kwargs)
        if not encoded.get("label", True):
            encoded.pop("chosen_transcript", None)
        return encoded

    def _truncate(self, input_ids, labels, encoded, *args, **kwargs):
        """As upstream, which keeps all placeholders: what it cuts may be the whole reply, and still not be enough."""
        strategy = f"--truncation_strategy {self.truncation_strategy}"
        whole = len(input_ids)
        input_ids, labels = super()._truncate(input_ids, labels, encoded, *args, **kwargs)
        if len(input_ids) > self.max_length:
            raise MaxLengthError(
                f"{whole} tokens, and {strategy} cannot cut them to the max_length({self.max_length}): audio and "
                f"context are {len(input_ids)}."
            )
        if self.is_training and labels is not None and not _has_label(labels):
            raise MaxLengthError(f"{whole} tokens, and {strategy} to the max_length({self.max_length}) cuts the reply.")
        return input_ids, labels

    def _preprocess_inputs(self, inputs) -> None:
        if self.mode in {"vllm", "lmdeploy", "sglang"}:
            raise InputError(f"backend {self.mode} would decode without the context; allowed: transformers (or pt)")
        _lift_inline_audio(inputs)
        _check_tags(inputs)
        super()._preprocess_inputs(inputs)
        inputs.sap_contexts = self._expand_contexts(inputs)
        inputs.sap_audio_inputs = self._hear(inputs) if inputs.audios else {}
        frames = inputs.sap_audio_inputs.get("feature_attention_mask", torch.zeros(0, 1)).sum(-1).tolist()
        inputs.sap_audio_tokens = [audio_token_count(int(count)) for count in frames]

    def _expand_contexts(self, inputs) -> list[Context]:
        """Replace the contexts of the user's turns in place; the context of each audio."""
        user_turns = [m for m in inputs.messages if m["role"] == "user" and isinstance(m["content"], str)]
        for text in [inputs.system, *(m["content"] for m in inputs.messages if m["role"] != "user")]:
            token = next((token for token in SAP_TOKENS if isinstance(text, str) and token in text), None)
            if token is not None:
                raise InputError(f"{token} stands outside the user's turns; allowed: contexts in user turns only")
        closed = self.config.sap_pooling in MOVING
        expanded = expand_contexts([m["content"] for m in user_turns], AUDIO_TAG, self.tokenizer, None, closed=closed)
        if len(expanded.contexts) != len(inputs.audios):
            raise InputError(
                f"the row has {len(expanded.contexts)} {AUDIO_TAG} tags and {len(inputs.audios)} audios; "
                f"allowed: one tag for each audio"
            )
        for message, text in zip(user_turns, expanded.texts, strict=True):
            message["content"] = text
        return expanded.contexts

    def _hear(self, inputs) -> dict[str, torch.Tensor]:
        """Log-mel features (A, mel bins, frames) and their mask (A, frames) of the audios of a row."""
        extractor = self.processor.feature_extractor
        rate, most = extractor.sampling_rate, extractor.n_samples
        samples = [
            check_audio(
                _load_audio(audio, rate, self.opens_addresses),
                rate,
                most,
                self.config.sap_truncate_audio,
                _audio_name(audio),
            )
            for audio in inputs.audios
        ]
        row = inputs.extra_kwargs.get(COLUMN)
        if self.noise is not None and self.is_training and row is not None:
            samples = [self.noise(heard, rate, f"{row}/{place}", most) for place, heard in enumerate(samples)]
        features = extractor(
            samples, sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="pt"
        )
        return dict(zip(_HEARD, (features["input_features"], features["attention_mask"]), strict=True))

    def _encode(self, inputs) -> dict[str, Any]:
        encoded = super()._encode(inputs)
        compression = self.config.sap_window_size, self.config.sap_min_positions
        contexts = [pooled_length(len(context.ids), *compression) for context in inputs.sap_contexts if context.ids]
        self._repeat(encoded, AUDIO_TOKEN, self.config.audio_token_id, inputs.sap_audio_tokens)
        self._repeat(encoded, CONTEXT_TOKEN, self.config.sap_context_token_id, contexts)
        encoded.update(inputs.sap_audio_inputs)
        if contexts:
            encoded["contexts"] = inputs.sap_contexts
        if self.is_training and (self.config.sap_spotter or self.config.sap_retriever):
            encoded["transcript"] = _transcript(inputs)
        if self.is_training and self.config.sap_retriever:
            keywords = [keyword for context in inputs.sap_contexts for keyword in context.keywords]
            encoded["terms"] = spoken_terms(keywords, encoded["transcript"])
        return encoded

    def _repeat(self, encoded: dict[str, Any], token: str, token_id: int, counts: list[int]) -> None:
        """Repeat the n-th placeholder ``counts[n]`` times: repeated ids are quicker than tokenising repeated text."""
        places = [place for place, value in enumerate(encoded["input_ids"]) if value == token_id]
        if len(places) != len(counts):
            raise InputError(f"the text holds {token} of its own; allowed: {AUDIO_TAG} tags and plain text")
        extended = self._extend_tokens(
            encoded["input_ids"],
            encoded["labels"],
            encoded["loss_scale"],
            places,
            lambda index: [token_id] * counts[index],
        )
        encoded["input_ids"], encoded["labels"], encoded["loss_scale"] = extended

    def _data_collator_mm_data(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Audios of the batch one below the other; row i of the contexts belongs to audio i."""
        collated = super()._data_collator_mm_data(batch)
        rows = [row for row in batch if row.get("input_features") is not None]
        if not rows:
            return collated
        features, mask = (torch.concat([row[name] for row in rows]) for name in _HEARD)
        collated.update(zip(_HEARD, trim_features(features, mask), strict=True))
        if any(row.get("contexts") for row in rows):
            contexts = [c for row in rows for c in row.get("contexts") or [NO_CONTEXT] * len(row["input_features"])]
            collated.update(pad_contexts(contexts, self.tokenizer.pad_token_id))
        if self.config.sap_retriever:
            collated.update(collate_terms(rows, self.tokenizer))
        if self.config.sap_spotter and any(row.get("transcript") for row in rows):
            # of a row with several audios nobody knows which of them says what
            spoken = [row.get("transcript", "") if len(row["input_features"]) == 1 else "" for row in rows]
            counts = [len(row["input_features"]) for row in rows]
            collated["transcripts"] = pad_transcripts(spoken, counts)
        return collated

    def count_skipped_rows(self) -> None:
        """Count the rows that ms-swift skips (``--strict false``) and print their number at the end.

        The table is shared with the workers of the data loader; a row that is met again is counted once.
        """
        self._skipped = torch.zeros(_SKIP_CELLS, dtype=torch.uint8).share_memory_()
        atexit.register(_print_skipped, self._skipped)


def _has_label(labels: list[int]) -> bool:
    """Whether a token is predicted; nothing predicts the first."""
    return any(label != -100 for label in labels[1:])


def _transcript(inputs) -> str:
    """What is said in the audio of a row: its column, or what its prompt and reply tell; empty where neither does."""
    column = inputs.extra_kwargs.get("transcript")
    return column or transcript_of(inputs.messages) or ""


def _print_skipped(skipped: torch.Tensor) -> None:
    count = int(skipped.sum())
    if count:
        print(f"sap2: {count} bad rows were skipped (--strict false); the log above has the reasons", file=sys.stderr)


def _lift_inline_audio(inputs) -> None:
    """``<audio>/path.wav</audio>`` in a user's turn (the rows of the released data) to a tag and an audio.

    Raises:
        InputError: the row has an ``audios`` that is not what the text says.
    """
    inline: list[str] = []
    for message in inputs.messages:
        if message["role"] == "user" and isinstance(message["content"], str):
            message["content"], paths = lift_inline_audio(message["content"])
            inline += paths
    audios = [audio.get("path") if isinstance(audio, dict) else audio for audio in inputs.audios]
    if inline and audios and audios != inline:
        raise InputError(f"the text names the audios {inline}, and 'audios' is {audios}; allowed: the same")
    if inline:
        inputs.audios = inline


def _check_tags(inputs) -> None:
    """Refuse a row with some tags and more audios: ms-swift would put the others first, and the contexts would move to
    other audios. (Without any tag, all audios come first.)"""
    tags = sum(m["content"].count(AUDIO_TAG) for m in inputs.messages if isinstance(m["content"], str))
    if 0 < tags < len(inputs.audios):
        raise InputError(
            f"the row has {tags} {AUDIO_TAG} tags and {len(inputs.audios)} audios; allowed: one tag for each audio"
        )


def _load_audio(audio: Any, sampling_rate: int, opens_addresses: bool) -> np.ndarray:
    """Samples of a file, of bytes, of what ms-swift fetches (http, base64), or where it is allowed of fsspec."""
    name = _audio_name(audio)
    if isinstance(audio, dict):
        audio = audio.get("bytes") or audio.get("path")
    if is_url(audio) and not audio.startswith(("http://", "https://")):
        if not opens_addresses:
            raise InputError(f"audio {name} is an address, which only rows of a file may name; send the audio itself")
        return load_audio(audio, sampling_rate)
    if isinstance(audio, str) and _looks_like_path(audio):
        return load_samples(Path(audio).expanduser(), sampling_rate, name=name)
    try:
        data = load_file(audio)
    except Exception as error:  # of requests, of base64, of ms-swift
        raise unreadable_audio(name, error) from None
    if not isinstance(data, io.BytesIO):
        raise InputError(f"audio {name} is a {type(data).__name__}; allowed: a file, a URL, base64 or bytes")
    return load_samples(data, sampling_rate, name=name)


def _looks_like_path(audio: str) -> bool:
    """Anything but a URL and base64 (which ms-swift takes with and without ``data:``)."""
    if audio.startswith(("http://", "https://", "data:")):
        return False
    if len(audio) < 1024:
        return True
    try:
        base64.b64decode(audio[:1024], validate=True)
    except ValueError:
        return True
    return False


def _audio_name(audio: Any) -> str:
    if isinstance(audio, dict):
        audio = audio.get("path") or audio.get("bytes")
    if isinstance(audio, str) and (audio.startswith("http") or _looks_like_path(audio)):
        return audio
    return f"({type(audio).__name__} of {len(audio)} characters)" if isinstance(audio, (str, bytes)) else repr(audio)


def _row_name(inputs) -> str:
    """The row's id, or else its audio, or else the beginning of its text."""
    row_id = inputs.extra_kwargs.get("id")
    if row_id:
        return f"row {row_id}"
    if inputs.audios:
        return f"row with audio {_audio_name(inputs.audios[0])}"
    text = next((m["content"] for m in inputs.messages if isinstance(m["content"], str)), "")
    return f"row {text[:60]!r}"
