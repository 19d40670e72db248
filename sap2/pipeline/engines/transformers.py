"""Greedy decoding by ``generate`` of transformers, as ``swift infer --temperature 0`` does it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from sap2.pipeline.engines.base import EmbeddedPrompt, Reply
from sap2.pipeline.loading import LoadedModel
from sap2.prompts import IM_END

STOP_WORDS = ("<|endoftext|>", IM_END)
"""Where a reply ends, beside the tokenizer's own end of text."""


class TransformersEngine:
    """The model that is in memory already, batch by batch; see :class:`sap2.pipeline.engines.base.Engine`."""

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded
        self._tokenizer = loaded.processor.tokenizer
        self.max_length: int = loaded.model.config.text_config.max_position_embeddings

    def close(self) -> None:
        """Nothing to give back: the model is the caller's."""

    @torch.inference_mode()
    def generate(self, stage: str, prompts: Sequence[EmbeddedPrompt], max_new_tokens: int) -> list[Reply]:
        """Replies in the order of the prompts."""
        inputs, recorder = self._collate(prompts), _RecordLogProbs()
        with self._loaded.use(stage) as model:
            output = model.generate(
                **inputs,
                generation_config=greedy_config(model.generation_config, self._tokenizer, max_new_tokens),
                logits_processor=LogitsProcessorList([recorder]),
            )
        generated = output[:, inputs["input_ids"].shape[1] :]
        return read_replies(generated, recorder.steps, self._tokenizer)

    def _collate(self, prompts: Sequence[EmbeddedPrompt]) -> dict[str, Tensor]:
        """Pad on the left."""

        def padded(rows: Sequence[Tensor], value: float) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(rows, True, value, "left").to(self._loaded.device)

        ids = [torch.tensor(prompt.input_ids) for prompt in prompts]
        return {
            "input_ids": padded(ids, self._tokenizer.pad_token_id),
            "attention_mask": padded([torch.ones_like(row) for row in ids], 0),
            "inputs_embeds": padded([prompt.embeddings for prompt in prompts], 0.0),
        }


class _RecordLogProbs(LogitsProcessor):
    """Keeps the log probability of the likeliest token of each step, which greedy decoding takes; changes nothing.

    (``output_scores`` would keep a float for every entry of the vocabulary and step.)
    """

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores.float().log_softmax(-1).amax(-1))
        return scores


def greedy_config(base: GenerationConfig, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """The model's own generation settings (a repetition penalty, say) without sampling and without beams.

    Source: ``prepare_generation_config`` of ms-swift, whose result this equals.
    """
    config = copy.deepcopy(base)
    config.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=50, num_beams=1, length_penalty=1.0)
    config.update(max_new_tokens=max_new_tokens, max_length=None, num_return_sequences=1)
    ends = base.eos_token_id if base.eos_token_id is not None else []
    ends = list(ends) if isinstance(ends, (list, tuple)) else [ends]
    stops = tokenizer.convert_tokens_to_ids([*STOP_WORDS, tokenizer.eos_token])
    config.eos_token_id = list(dict.fromkeys([*ends, *stops]))
    config.pad_token_id = tokenizer.pad_token_id
    return config


def read_replies(generated: Tensor, steps: Sequence[Tensor], tokenizer: PreTrainedTokenizerBase) -> list[Reply]:
    """Replies of the generated ids (B, new tokens).

    Padding and the token that ends the reply are left out; special tokens within a reply stay visible.

    Args:
        steps: for each new token, the log probabilities (B,).
    """
    rows = zip(generated.tolist(), torch.stack(list(steps), 1).tolist(), strict=True)
    return [read_reply(ids, log_probs, tokenizer) for ids, log_probs in rows]


def read_reply(generated: Sequence[int], log_probs: Sequence[float], tokenizer: PreTrainedTokenizerBase) -> Reply:
    """One reply of its ids and their log probabilities; see :func:`read_replies`."""
    pad = tokenizer.pad_token_id
    ends = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, IM_END])
    ids = [token for token in generated if token != pad]
    spoken = [log_prob for token, log_prob in zip(generated, log_probs, strict=True) if token != pad]
    pieces = [tokenizer.decode([token]) for token in ids]
    for end in ends:
        ids = ids[:-1] if ids and ids[-1] == end else ids
    text = tokenizer.decode(ids, skip_special_tokens=False, spaces_between_special_tokens=False)
    return Reply(text, not {pad, *ends}.isdisjoint(generated), pieces, spoken)
