"""Greedy decoding of a batch as ``swift infer --temperature 0`` does it: its settings, and ids back to text."""

from __future__ import annotations

import copy

from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from sap2.pipeline.prompting import IM_END

STOP_WORDS = ("<|endoftext|>", IM_END)
"""Where a reply ends, beside the tokenizer's own end of text."""


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


def decode_replies(generated: Tensor, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[bool]]:
    """Texts of the generated ids (B, new tokens), and whether each reply came to its end.

    Padding and the token that ends the reply are left out; special tokens within a reply stay visible.
    """
    pad = tokenizer.pad_token_id
    ends = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, IM_END])
    rows = generated.tolist()
    texts = []
    for row in rows:
        ids = [token for token in row if token != pad]
        for end in ends:
            ids = ids[:-1] if ids and ids[-1] == end else ids
        texts.append(tokenizer.decode(ids, skip_special_tokens=False, spaces_between_special_tokens=False))
    return texts, [not {pad, *ends}.isdisjoint(row) for row in rows]
