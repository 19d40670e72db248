"""Training steps of the model: gradients, batches of every kind, precision."""

from __future__ import annotations

import re

import pytest
import torch
from model_rows import ROWS, labels_of
from transformers.utils import find_labels

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.model.audios import Audios, Speech

TEXT_PREFIX = r"model\.language_model\."


def gradients(model, inputs, **kwargs):
    model.zero_grad()
    model(**inputs, labels=labels_of(inputs), **kwargs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny, encode, reentrant):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).train()
    inputs = encode(ROWS)
    plain = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys() - frozen(model)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_trainers_find_the_one_input_that_holds_the_labels():
    """By its name. With another one beside it, which not every batch has, no evaluation has a loss."""
    assert find_labels(SAP2Qwen2AudioForConditionalGeneration) == ["labels"]


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_the_context_trains_through_the_speech(model, encode):
    """The loss of a reply reaches the projector through the pooling too: with the speech itself held out of it."""
    model.train()
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        speech, mask = model.model.get_speech_features(inputs["input_features"], inputs["feature_attention_mask"])
    guide = speech.clone().requires_grad_()
    pooled, _ = model.model.pool_contexts(Speech(guide, mask), Audios.take_from(dict(inputs)))
    (gradient,) = torch.autograd.grad(pooled.square().sum(), guide)
    assert gradient[mask].abs().sum() > 0 and gradient[~mask].abs().sum() == 0


@pytest.mark.parametrize("rows", [[ROWS[1]], [ROWS[2]], [ROWS[0], ROWS[1]]], ids=["text", "audio", "mixed"])
def test_every_batch_uses_the_same_parameters(model, encode, rows):
    """Or the ranks of a distributed run wait for each other forever."""
    model.train()
    found = gradients(model, encode(rows))
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if rows == [ROWS[1]]:
        touched = [gradient for name, gradient in found.items() if not re.match(f"{TEXT_PREFIX}|lm_head", name)]
        assert len(touched) > 10 and all(gradient.abs().sum() == 0 for gradient in touched)


def test_silence_changes_no_number(model, encode):
    """The pass of a batch without audio through the tower is for the ranks alone."""
    inputs = encode([ROWS[1]])
    with torch.no_grad():
        assert torch.equal(model.train()(**inputs).logits, model.eval()(**inputs).logits)


@pytest.mark.parametrize("rows", [ROWS, [ROWS[1]]], ids=["mixed", "text"])
def test_bfloat16(tiny, encode, rows):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, dtype=torch.bfloat16).train()
    inputs = encode(rows)
    output = model(**inputs, labels=labels_of(inputs))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    precise = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).train()
    torch.testing.assert_close(output.loss.float(), precise(**inputs, labels=labels_of(inputs)).loss, atol=0.1, rtol=0)
