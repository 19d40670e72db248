"""Greedy decoding by ``generate`` of transformers, as ``swift infer --temperature 0`` does it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)
from transformers.generation.streamers import BaseStreamer

from sap2.pipeline.engines.base import EmbeddedPrompt, Reply
from sap2.pipeline.engines.replies import TokenQueue, read_replies, read_stream
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

    def generate(self, stage: str, prompts: Sequence[EmbeddedPrompt], max_new_tokens: int) -> list[Reply]:
        """Replies in the order of the prompts."""
        recorder = _RecordLogProbs()
        generated = self._generate(stage, prompts, max_new_tokens, recorder)
        return read_replies(generated, recorder.steps, self._tokenizer)

    def stream(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Generator[str, None, Reply]:
        """The text of one reply in pieces, as they come; returns the reply."""
        tokens, left, recorder = TokenQueue(), threading.Event(), _RecordLogProbs()

        def generate() -> None:
            try:
                more = {"streamer": _Streamer(tokens, recorder), "stopping_criteria": [_ReaderLeft(left)]}
                self._generate(stage, [prompt], max_new_tokens, recorder, **more)
            except BaseException as error:
                tokens.end(error)  # raised where it is read

        threading.Thread(target=generate, name="generate", daemon=True).start()
        try:
            return (yield from read_stream(tokens, self._tokenizer))
        finally:
            left.set()

    @torch.inference_mode()
    def _generate(
        self,
        stage: str,
        prompts: Sequence[EmbeddedPrompt],
        max_new_tokens: int,
        recorder: _RecordLogProbs,
        **more: Any,
    ) -> Tensor:
        """The generated ids (B, new tokens)."""
        inputs = self._collate(prompts)
        with self._loaded.use(stage) as model:
            output = model.generate(
                **inputs,
                generation_config=greedy_config(model.generation_config, self._tokenizer, max_new_tokens),
                logits_processor=LogitsProcessorList([recorder]),
                **more,
            )
        return output[:, inputs["input_ids"].shape[1] :]

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


class _Streamer(BaseStreamer):
    """Hands on each token of the one reply with its log probability."""

    def __init__(self, tokens: TokenQueue, recorder: _RecordLogProbs):
        self._tokens, self._recorder = tokens, recorder
        self._count = -1  # the prompt comes first

    def put(self, value: Tensor) -> None:
        if self._count >= 0:
            self._tokens.put(value.tolist(), self._recorder.steps[self._count].tolist())
        self._count += 1

    def end(self) -> None:
        self._tokens.end()


class _ReaderLeft(StoppingCriteria):
    """Ends a reply that nobody reads any more."""

    def __init__(self, left: threading.Event):
        self._left = left

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return input_ids.new_full((len(input_ids),), self._left.is_set(), dtype=torch.bool)


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
