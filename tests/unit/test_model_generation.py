"""Generation: batched = alone, beams, cache."""

from __future__ import annotations

import pytest
import torch
from model_rows import NEW_TOKENS, ROWS, replies


@pytest.mark.parametrize("arguments", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
def test_batched_generation_equals_one_by_one(model, encode, arguments):
    together = replies(model, encode, ROWS, **arguments)
    alone = [reply for row in ROWS for reply in replies(model, encode, [row], **arguments)]
    assert together == alone
    assert len({tuple(reply) for reply in together}) > 1


def test_generation_without_cache_is_the_same(model, encode):
    assert replies(model, encode, ROWS[2:5], use_cache=False) == replies(model, encode, ROWS[2:5])


def test_generation_equals_repeated_forward(model, encode, processor):
    inputs = dict(encode([ROWS[3]]))
    expected = []
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            token = model(**inputs).logits[:, -1:].argmax(-1)
            expected.append(token.item())
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert replies(model, encode, [ROWS[3]]) == [expected]


def test_speech_and_context_are_used_in_the_first_step_alone(model, encode):
    """They are in the cache then; masks handed on would be expanded and moved in each step for nothing."""
    names = ("input_features", "feature_attention_mask", "context_input_ids", "context_keyword_numbers")
    steps = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: steps.append([kwargs.get(name) is not None for name in names]), with_kwargs=True
    )
    try:
        replies(model, encode, ROWS)
    finally:
        hook.remove()
    assert steps == [[True] * 4] + [[False] * 4] * (NEW_TOKENS - 1)
