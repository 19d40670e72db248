"""The audio tower without the silence that fills its window: the same embeddings, less work."""

from __future__ import annotations

import pytest
import torch

from sap2.model.encoder import FRAME_STEP, encode_audio, trim_features


@pytest.fixture(scope="module")
def heard(processor, speeches):
    made = processor.feature_extractor(speeches, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    return made["input_features"], made["attention_mask"]


def test_trimmed_audio_gives_the_embeddings_of_the_whole_window(model, heard):
    tower = model.model.audio_tower
    features, mask = trim_features(*heard)
    assert features.shape[-1] == mask.shape[-1] < heard[0].shape[-1] / 2
    assert features.shape[-1] % FRAME_STEP == 0 and mask.sum() == heard[1].sum()
    with torch.no_grad():
        whole, short = encode_audio(tower, *heard), encode_audio(tower, features, mask)
    _, tokens = tower._get_feat_extract_output_lengths(mask.sum(-1))
    for row, count in enumerate(tokens):
        torch.testing.assert_close(short[row, :count], whole[row, :count])


@pytest.mark.parametrize("frames", [795, 797, 800])
def test_audio_that_fills_the_window_is_not_trimmed(model, frames):
    mask = torch.zeros(1, 800, dtype=torch.long)
    mask[:, :frames] = 1
    features, trimmed = trim_features(torch.randn(1, 128, 800), mask)
    assert features.shape[-1] == trimmed.shape[-1] == 800
    with torch.no_grad():
        assert encode_audio(model.model.audio_tower, features, trimmed).shape[1] == 200


def test_gradients_are_those_of_the_whole_window(model, heard):
    tower = model.model.audio_tower
    weight = tower.layers[0].fc1.weight
    grads = []
    for features, mask in (heard, trim_features(*heard)):
        _, tokens = tower._get_feat_extract_output_lengths(mask.sum(-1))
        states = encode_audio(tower, features, mask)
        valid = torch.arange(states.shape[1])[None] < tokens[:, None]
        (grad,) = torch.autograd.grad((states * valid.unsqueeze(-1)).square().sum(), weight)
        grads.append(grad)
    torch.testing.assert_close(*grads)


def test_layers_that_may_be_dropped_hear_the_whole_window(model, heard, monkeypatch):
    tower = model.model.audio_tower
    monkeypatch.setattr(tower, "layerdrop", 0.5)
    monkeypatch.setattr(tower, "training", True)
    assert encode_audio(tower, *trim_features(*heard)).shape[1] == 200


def test_more_than_the_window_is_refused(model):
    with pytest.raises(ValueError, match="input_features has 832 mel frames; allowed: up to 800"):
        encode_audio(model.model.audio_tower, torch.zeros(1, 128, 832), torch.ones(1, 832))
