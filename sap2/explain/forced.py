"""Forced decoding: how likely a reply is, token by token, given another audio or another list of keywords.

Notation: B copies of an utterance, R tokens of its reply, S positions of its prompt, F mel frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sap2.model.audios import Audios, Speech
from sap2.model.encoder import trim_features
from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder, Heard, Prompt


class ForcedReply:
    """One utterance and the reply that the model gave, to be read again under other conditions.

    Args:
        loaded: model and adapters.
        encoder: makes token ids.
        stage: whose adapter speaks.
        heard: the utterance.
        prompt: that the reply was given to.
        reply_ids: R tokens of the reply.

    Attributes:
        features: (mel bins, F) of the utterance, with the silence that the audio tower hears after it.
        frames: valid ones of F.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        stage: str,
        heard: Heard,
        prompt: Prompt,
        reply_ids: Sequence[int],
    ):
        self.loaded, self.encoder, self.stage = loaded, encoder, stage
        self.heard, self.prompt, self.reply_ids = heard, prompt, list(reply_ids)
        features, self._mask = trim_features(heard.features[None], heard.mask[None])
        self.features = features[0].to(loaded.device)
        self._mask = self._mask.to(loaded.device)
        self.frames = int(self._mask.sum())

    @torch.no_grad()
    def speech(self) -> Speech:
        """Embeddings (1, T, D) of the utterance as the language model sees them, and their mask (1, T)."""
        with self.loaded.use(self.stage) as model:
            return model.model.get_speech_features(self.features[None], self._mask)

    def log_probs(self, features: Tensor) -> Tensor:
        """Log probability of each token of the reply where the model hears something else; differentiable.

        Args:
            features: (B, mel bins, F).

        Returns:
            (B, R) float32.
        """
        return self._log_probs([self.prompt] * len(features), {"input_features": features})

    def log_probs_told(self, prompts: Sequence[Prompt]) -> Tensor:
        """Log probability of each token of the reply where the model is told something else: (B, R) of B prompts."""
        with self.loaded.use(self.stage) as model:
            states = model.model.encode_audio(self.features[None], self._mask)
        return self._log_probs(prompts, {"audio_hidden_states": states.expand(len(prompts), -1, -1)})

    def _log_probs(self, prompts: Sequence[Prompt], sound: dict[str, Tensor]) -> Tensor:
        inputs = self._collate(prompts)
        inputs["feature_attention_mask"] = self._mask.expand(len(prompts), -1)
        kept = len(self.reply_ids) + 1  # the position before a token predicts it
        with self.loaded.use(self.stage) as model:
            logits = model(**inputs, **sound, logits_to_keep=kept, use_cache=False).logits[:, :-1]
        ids = torch.tensor(self.reply_ids, device=logits.device).expand(len(prompts), -1)
        return logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)

    def _collate(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        spoken = [prompt._replace(input_ids=[*prompt.input_ids, *self.reply_ids]) for prompt in prompts]
        return self.encoder.collate(spoken, self.loaded.device)

    @torch.no_grad()
    def attention(self) -> Tensor:
        """Where the language model looks when it writes each token: (layers, heads, R, S + R), float32.

        Row r is that of the position that predicts token r, which is the one before it; what comes later is 0.
        """
        inputs = self._collate([self.prompt])
        ids, split = inputs["input_ids"], len(self.prompt.input_ids) - 1
        inputs |= {"input_features": self.features[None], "feature_attention_mask": self._mask}
        with self.loaded.use(self.stage) as model:
            embeddings = model.model.embed(ids, Audios.take_from(inputs))
            language_model = model.model.language_model
            # the prompt's own rows are as many as they are long, and nobody reads them
            past = language_model(inputs_embeds=embeddings[:, :split], use_cache=True).past_key_values
            with eager_attention(model):
                rows = language_model(
                    inputs_embeds=embeddings[:, split:-1], past_key_values=past, output_attentions=True
                )
        stacked = torch.stack([layer[0].float() for layer in rows.attentions])
        return torch.nn.functional.pad(stacked, (0, ids.shape[1] - stacked.shape[-1]))


@contextmanager
def eager_attention(model: SAP2Qwen2AudioForConditionalGeneration) -> Iterator[None]:
    """The language model's attention is computed so that its weights can be seen."""
    language_model = model.model.language_model
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        language_model.set_attn_implementation(before)
