"""What the model gets for the audios of a batch: one small type that travels through it as a whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sap2.model.encoder import FRAME_STEP


class Speech(NamedTuple):
    """Speech as the language model sees it: ``embeddings`` (A, T, D) and ``mask`` (A, T), True = valid."""

    embeddings: Tensor
    mask: Tensor


class Audios(NamedTuple):
    """The A audios of a batch, in the order of their placeholders. Row i of each tensor belongs to audio i.

    The fields are the keyword arguments of the model's ``forward``, where they are described.
    """

    input_features: Tensor | None = None
    feature_attention_mask: Tensor | None = None
    audio_hidden_states: Tensor | None = None
    context_input_ids: Tensor | None = None
    context_keyword_numbers: Tensor | None = None
    context_spellings: Tensor | None = None
    transcripts: Tensor | None = None
    term_input_ids: Tensor | None = None
    term_targets: Tensor | None = None

    @classmethod
    def take_from(cls, inputs: dict[str, object]) -> Audios:
        """Take the fields out of the keyword arguments of a model."""
        return cls(**{name: inputs.pop(name) for name in cls._fields if name in inputs})

    @property
    def sound(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Features, their mask, and the tower's output."""
        return self.input_features, self.feature_attention_mask, self.audio_hidden_states

    @property
    def heard(self) -> bool:
        """Whether there is any audio."""
        return self.input_features is not None or self.audio_hidden_states is not None

    def completed(self, mel_bins: int, like: Tensor) -> Audios:
        """With silence and empty contexts where there is none: every module has work. Of the type of ``like``."""
        given = self
        if not given.heard:
            silence = like.new_zeros((1, mel_bins, FRAME_STEP))
            given = Audios(silence, silence.new_ones((1, FRAME_STEP), dtype=torch.long))
        if given.context_input_ids is None:
            nothing = torch.zeros((len(given.feature_attention_mask), 1), dtype=torch.long, device=like.device)
            given = given._replace(
                context_input_ids=nothing, context_keyword_numbers=nothing, context_spellings=nothing.unsqueeze(-1)
            )
        return given


def rows_of_beams(starts: Tensor, sample_ends: Tensor, expand_size: int) -> Tensor:
    """Index of the audio of each row after every sample was repeated ``expand_size`` times.

    Args:
        starts: (A,) placeholders of the batch before the first one of each audio.
        sample_ends: (B,) placeholders of the batch up to the end of each sample.
    """
    owners = torch.searchsorted(sample_ends, starts, right=True)
    audios = torch.arange(len(owners))
    samples = torch.arange(len(sample_ends)).repeat_interleave(expand_size)
    return torch.cat([audios[owners == sample] for sample in samples])
