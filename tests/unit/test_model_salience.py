"""The model with ``sap_pooling`` salience: rows do not disturb each other, and the spotter is trained."""

from __future__ import annotations

import pytest
import torch
from model_rows import AUDIO, ROWS, assert_rows_as_alone, context, labels_of, replies

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.model.audios import Audios
from sap2.model.spotter import pad_transcripts

TRANSCRIPT = "hi guys i'm emily wozniak"


@pytest.fixture
def model(tiny):
    """With a spotter that finds something, whatever it is."""
    model = load(tiny).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.model.spotter.symbols.weight, std=5.0)
    torch.nn.init.normal_(model.model.spotter.around.weight, std=0.02)
    return model


def load(folder):
    """With salience that compresses short lists too."""
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(folder, sap_pooling="salience", sap_min_positions=0)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_of_a_mixed_batch_equals_the_row_alone(model, encode, side):
    assert_rows_as_alone(model, encode, side)


def test_batched_generation_equals_one_by_one(model, encode):
    assert replies(model, encode, ROWS) == [reply for row in ROWS for reply in replies(model, encode, [row])]
    beams = replies(model, encode, ROWS, num_beams=2)
    assert beams == [reply for row in ROWS for reply in replies(model, encode, [row], num_beams=2)]


def test_the_speech_decides(model, encode):
    text = f"{AUDIO}{context('emily, jacob, donna, steve, uhura, pavel, zelda, quinn, frank, wyatt')} transcribe"
    with torch.no_grad():
        kept = [
            model.model.pool_contexts(
                model.model.get_speech_features(inputs["input_features"], inputs["feature_attention_mask"]),
                Audios.take_from(inputs),
            )[0]
            for inputs in (dict(encode([(text, [0])])), dict(encode([(text, [2])])))
        ]
    assert kept[0].shape == kept[1].shape and not torch.equal(*kept)


def test_the_spotter_learns_from_transcripts_and_changes_nothing_else(model, encode):
    inputs = encode([ROWS[0]])
    labels = labels_of(inputs)
    spotter = model.model.spotter
    gradients = []
    for transcripts in (None, pad_transcripts([TRANSCRIPT], [1])):
        model.train().zero_grad()
        output = model(**inputs, labels=labels, transcripts=transcripts)
        output.loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    without, with_transcript = gradients
    assert without.keys() == with_transcript.keys()  # or ranks would wait for each other
    for name, gradient in without.items():
        if ".spotter." in name:
            assert not gradient.any()
        else:
            assert torch.equal(gradient, with_transcript[name]), name
    assert with_transcript["model.context_pooling.spotter.symbols.weight"].any()
    assert output.aux_loss > 0
    with torch.no_grad():
        quiet = model(**inputs, labels=labels)
    assert torch.equal(output.loss, quiet.loss)
    assert spotter.hidden.weight.grad is not None
    with torch.no_grad():
        assert model.eval()(**inputs, labels=labels).aux_loss is None


@pytest.mark.parametrize("rows", [[ROWS[1]], [ROWS[2]], [ROWS[0], ROWS[1]]], ids=["text", "audio", "mixed"])
def test_every_batch_uses_the_same_parameters(model, encode, rows):
    model.train()
    inputs = encode(rows)
    model(**inputs, labels=labels_of(inputs)).loss.backward()
    used = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert used == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_an_adapter_carries_its_spotter(tiny, model, encode, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["context_pooling.spotter"])
    trained = get_peft_model(model, config).eval()
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        expected = trained(**inputs).logits
        trained.save_pretrained(tmp_path)
        base = load(tiny)
        again = PeftModel.from_pretrained(base, tmp_path).eval()
        assert torch.equal(again(**inputs).logits, expected)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected)
        assert merged.model.spotter.symbols.weight.any()


def test_half_precision(model, encode):
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        assert model.to(torch.bfloat16)(**inputs).logits.isfinite().all()


def test_contexts_without_spellings_are_an_error(model, encode):
    inputs = encode([ROWS[0]])
    del inputs["context_spellings"]
    with pytest.raises(ValueError, match="keyword_numbers and spellings"):
        model(**inputs)
