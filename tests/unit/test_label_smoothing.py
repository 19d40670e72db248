"""Trainers shift the labels of a causal language model; they must know that ours is one."""

from __future__ import annotations

import pytest
import torch
from model_rows import ROWS, labels_of
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from sap2 import SAP2Qwen2AudioForConditionalGeneration

ALMOST_NONE = 1e-9
"""Enough to make a trainer compute the loss itself."""


@pytest.fixture(params=["whole", "lora"])
def trained_model(tiny, request):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    return model if request.param == "whole" else get_peft_model(model, LoraConfig(target_modules=["q_proj"]))


def loss_of(model, inputs, smoothing, folder):
    arguments = TrainingArguments(folder, use_cpu=True, report_to=[], label_smoothing_factor=smoothing)
    trainer = Trainer(model=model, args=arguments)
    with torch.no_grad():
        return trainer.compute_loss(model.eval(), dict(inputs))


def test_smoothed_labels_are_shifted(trained_model, encode, tmp_path):
    inputs = encode(ROWS)
    inputs["labels"] = labels_of(inputs)
    plain = loss_of(trained_model, inputs, 0.0, tmp_path)
    torch.testing.assert_close(loss_of(trained_model, inputs, ALMOST_NONE, tmp_path), plain)
    smoothed = loss_of(trained_model, inputs, 0.1, tmp_path)
    assert smoothed != plain and abs(smoothed - plain) < 0.5
