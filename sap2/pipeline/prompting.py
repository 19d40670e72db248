"""From samples and a user's turn to the model's inputs, token for token as ms-swift's template makes them.

ms-swift is not imported, which takes longer than a short recording; a test holds the two equal.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sap2.audio import check_audio
from sap2.errors import InputError
from sap2.lengths import audio_token_count, pooled_length, speech_token_count
from sap2.model.context import Context, Expanded, expand_contexts, tokenize_terms
from sap2.model.processing import SAP2Qwen2AudioProcessor, pad_contexts
from sap2.prompts import AUDIO_BOS, AUDIO_EOS, AUDIO_TAG, AUDIO_TOKEN, CONTEXT_TOKEN, chat_text
from sap2.text import keep_list_results


class Heard(NamedTuple):
    """One audio: log-mel ``features`` (mel bins, frames), ``mask`` (frames), ``tokens`` it takes, its ``seconds``."""

    features: Tensor
    mask: Tensor
    tokens: int
    seconds: float


class Prompt(NamedTuple):
    """Token ids of a prompt, those of the context that its placeholders stand for, and the user's turn as it was."""

    input_ids: list[int]
    context: Context
    content: str


class Encoder:
    """Makes the inputs of one utterance; safe to use from several threads.

    Args:
        max_length: positions of the language model.

    Attributes:
        placeholder_ids: those of an embedding of speech and of one of the context.
    """

    def __init__(self, processor: SAP2Qwen2AudioProcessor, max_length: int, truncate_audio: bool = False):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.extractor = processor.feature_extractor
        self.max_length = max_length
        self.truncate_audio = truncate_audio
        self._compression = processor.compression
        self.placeholder_ids = tuple(self.tokenizer.convert_tokens_to_ids([AUDIO_TOKEN, CONTEXT_TOKEN]))
        # a fast tokenizer is one object with state of its own, not made for several threads at a time
        self._lock = threading.Lock()
        self._expand = keep_list_results(self._expand_context)

    @property
    def sampling_rate(self) -> int:
        """Samples per second."""
        return self.extractor.sampling_rate

    @property
    def window_seconds(self) -> float:
        """The longest audio that the model hears."""
        return self.extractor.n_samples / self.extractor.sampling_rate

    def hear(self, samples: np.ndarray, name: str) -> Heard:
        """Features of (samples,) at :attr:`sampling_rate`.

        Raises:
            InputError: too short, too long or not finite; the message has ``name``.
        """
        rate = self.sampling_rate
        samples = check_audio(samples, rate, self.extractor.n_samples, self.truncate_audio, name)
        features, mask = self._features(samples)
        return Heard(features, mask, audio_token_count(int(mask.sum())), len(samples) / rate)

    def _features(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features and mask as the extractor makes them of the whole window.

        The silence that fills the window is not worked through: all its frames are like the first that hears no sound.
        """
        extractor, hop = self.extractor, self.extractor.hop_length
        enough = -(-(len(samples) + 2 * extractor.n_fft) // hop) * hop
        made = extractor(
            [samples],
            sampling_rate=self.sampling_rate,
            max_length=min(enough, extractor.n_samples),
            return_attention_mask=True,
            return_tensors="pt",
        )
        features, mask = made["input_features"][0], made["attention_mask"][0]
        rest = (0, extractor.n_samples // hop - len(mask))
        return functional.pad(features, rest, value=float(features[0, -1])), functional.pad(mask, rest)

    def audio_tokens(self, seconds: float) -> int:
        """About how many tokens an audio of that length takes."""
        samples = min(round(seconds * self.sampling_rate), self.extractor.n_samples)
        shortest = 3 * self.extractor.hop_length  # of which the encoder makes a token
        return speech_token_count(max(samples, shortest), self.extractor.hop_length)

    def prompt(self, content: str, system: str, audio_tokens: int) -> Prompt:
        """Encode a user's turn with one audio and at most one context.

        Raises:
            InputError: the turn has not one audio tag, its context is malformed, it holds special tokens of audio or
                context, or it leaves no room for a reply.
        """
        if content.count(AUDIO_TAG) != 1:
            raise InputError(f"the row has {content.count(AUDIO_TAG)} {AUDIO_TAG} tags; allowed: one")
        audio = f"Audio 1: {AUDIO_BOS}{AUDIO_TOKEN * audio_tokens}{AUDIO_EOS}\n"
        with self._lock:
            expanded = self._expand(content)
            text = chat_text(system, expanded.texts[0].replace(AUDIO_TAG, audio))
            input_ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        (context,) = expanded.contexts
        expected = (audio_tokens, pooled_length(len(context.ids), *self._compression[:2]))
        if tuple(map(input_ids.count, self.placeholder_ids)) != expected:
            raise InputError(
                f"the text holds {AUDIO_TOKEN} or {CONTEXT_TOKEN} of its own; allowed: one {AUDIO_TAG} and plain text"
            )
        if len(input_ids) >= self.max_length:
            raise InputError(
                f"the prompt has {len(input_ids)} tokens and the model takes {self.max_length}, reply included; "
                f"allowed: a shorter keyword list"
            )
        return Prompt(input_ids, context, content)

    def _expand_context(self, content: str) -> Expanded:
        return expand_contexts([content], AUDIO_TAG, self.tokenizer, *self._compression)

    def tokenize_terms(self, terms: Sequence[str]) -> list[list[int]]:
        """The tokens of each term by itself."""
        with self._lock:
            return tokenize_terms(self.tokenizer, terms)

    def collate(self, prompts: Sequence[Prompt], device: torch.device) -> dict[str, Tensor]:
        """Pad prompts on the left, contexts on the right; row i of the contexts belongs to audio i."""
        rows = [torch.tensor(prompt.input_ids) for prompt in prompts]
        pad = self.tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.nn.utils.rnn.pad_sequence(rows, True, pad, "left"),
            "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True, 0, "left"),
        }
        if any(prompt.context.ids for prompt in prompts):
            inputs.update(pad_contexts([prompt.context for prompt in prompts], pad))
        return {name: tensor.to(device) for name, tensor in inputs.items()}
