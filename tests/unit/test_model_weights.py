"""Every tensor of a checkpoint is in its place, under the hub's names, or the checkpoint is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_rows import ROWS, replies, same_tensors
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    Qwen2AudioProcessor,
)

from sap2 import (
    SAP2Qwen2AudioConfig,
    SAP2Qwen2AudioForConditionalGeneration,
    SAP2Qwen2AudioModel,
    SAP2Qwen2AudioProcessor,
)
from sap2.errors import InputError
from sap2.prompts import CONTEXT_TOKEN


def test_every_tensor_of_a_hub_checkpoint_is_in_place(tiny, model, upstream):
    on_disk = load_file(tiny / "model.safetensors")
    assert "language_model.model.embed_tokens.weight" in on_disk and "language_model.lm_head.weight" in on_disk
    assert same_tensors(model.state_dict(), upstream.state_dict())
    assert len(on_disk) == len(model.state_dict())
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


def with_spotter(folder, **settings):
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(folder, sap_spotter=True, **settings)


def test_loading_report_is_clean(tiny):
    _, info = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, output_loading_info=True)
    assert not any(info.get(name) for name in ("unexpected_keys", "mismatched_keys", "missing_keys"))
    _, info = with_spotter(tiny, output_loading_info=True)
    assert not any(info.get(name) for name in ("unexpected_keys", "mismatched_keys", "missing_keys"))


def test_a_spotter_that_a_plain_model_lacks_is_no_news(tiny, capfd):
    assert with_spotter(tiny).lacks == {"sap_spotter"}
    output = "".join(capfd.readouterr())
    assert "MISSING" not in output and "newly initialized" not in output


def test_a_checkpoint_that_lost_its_spotter_is_refused(tiny, tmp_path):
    with_spotter(tiny, sap_pooling="mean").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "context_pooling" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"6 missing \(model\.context_pooling\.spotter"):
        SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    config = SAP2Qwen2AudioConfig.from_pretrained(tmp_path)
    config.sap_spotter = False
    SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, config=config)


def test_a_spotter_can_be_added_to_a_model_that_has_none(tiny, tmp_path):
    SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).save_pretrained(tmp_path)
    assert with_spotter(tmp_path).lacks == {"sap_spotter"}


@pytest.mark.parametrize(
    ("settings", "spotter"),
    [
        ({}, False),
        ({"sap_pooling": "mean"}, False),
        ({"sap_pooling": "salience"}, True),
        ({"sap_pooling": "salience", "sap_spotter": False}, True),
        ({"sap_pooling": "mean", "sap_spotter": True}, True),
    ],
)
def test_which_models_have_a_spotter(tiny, settings, spotter):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, **settings)
    assert (model.model.spotter is not None) is model.config.sap_spotter is spotter
    assert model.config.sap_min_positions == (64 if settings.get("sap_pooling") == "salience" else 0)


def test_a_checkpoint_without_a_spotter_gets_an_untrained_one(tiny):
    one, other = (with_spotter(tiny).model.context_pooling for _ in "ab")
    assert not one.spotter.symbols.weight.any() and not one.spotter.symbols.bias.any()
    assert one.spotter.hidden.weight.any() and same_tensors(one.state_dict(), other.state_dict())


def test_a_spotter_from_before_it_heard_neighbours_is_the_same_as_then(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "before")
    weights = load_file(folder / "model.safetensors")
    spotter = with_spotter(tiny).model.spotter
    torch.nn.init.normal_(spotter.symbols.weight)
    old = {name: value for name, value in spotter.state_dict().items() if not name.startswith("around")}
    weights.update({f"model.context_pooling.spotter.{name}": value for name, value in old.items()})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded, speech = with_spotter(folder).model.spotter, torch.randn(1, 5, spotter.hidden.in_features)
    heard = torch.nn.functional.layer_norm(speech, speech.shape[-1:])
    expected = spotter.symbols(spotter.hidden(heard).relu()).log_softmax(-1)
    torch.testing.assert_close(loaded(speech), expected)


def test_a_spotter_of_which_a_part_is_missing_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    spotter = with_spotter(tiny).model.spotter
    weights["model.context_pooling.spotter.hidden.weight"] = spotter.hidden.weight.detach()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"tensors 3 missing \(model\.context_pooling\.spotter\.hidden\.bias"):
        with_spotter(folder)


@pytest.mark.parametrize("pooling", ["attention", "mean", "salience"])
def test_a_trained_spotter_is_saved_and_loaded_and_can_be_left_out(tiny, tmp_path, pooling):
    model = with_spotter(tiny, sap_pooling=pooling)
    torch.nn.init.normal_(model.model.spotter.symbols.weight)
    model.save_pretrained(tmp_path)
    again = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert same_tensors(again.state_dict(), model.state_dict())
    config = SAP2Qwen2AudioConfig.from_pretrained(tmp_path)
    config.sap_pooling, config.sap_min_positions, config.sap_spotter = "mean", 0, False
    plain = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, config=config)
    assert plain.model.spotter is None


def changed_checkpoint(tiny, folder, change):
    shutil.copytree(tiny, folder)
    weights = load_file(tiny / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


LAYER = "language_model.model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(LAYER), r"1 missing \(model\.language_model\.layers\.1\.mlp\.up_proj\.weight\)"),
        (lambda w: w.pop("language_model.lm_head.weight"), r"1 missing \(lm_head\.weight\)"),
        (lambda w: w.pop("audio_tower.conv1.bias"), r"1 missing \(model\.audio_tower\.conv1\.bias\)"),
        (lambda w: w.pop("multi_modal_projector.linear.weight"), r"1 missing \(model\.multi_modal_projector\.linear"),
        (lambda w: w.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda w: w.update({LAYER + "s": w.pop(LAYER)}), r"1 missing \(.*\); 1 unexpected \(.*up_proj\.weights\)"),
        (lambda w: w.update({LAYER: torch.zeros(3, 5)}), r"1 of another shape \(model.*up_proj\.weight\)"),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("language_model.")],
            r"\d\d missing \(lm_head\.weight, .*, …\)",
        ),
    ],
    ids=["layer", "head", "tower", "projector", "extra", "renamed", "shape", "language-model"],
)
def test_a_checkpoint_with_other_tensors_is_refused(tiny, tmp_path, change, message):
    folder = changed_checkpoint(tiny, tmp_path / "changed", change)
    with pytest.raises(InputError, match=message) as caught:
        SAP2Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "allowed: every tensor" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saved_under_the_names_of_the_hub(tiny, model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert same_tensors(load_file(tmp_path / "model.safetensors"), load_file(tiny / "model.safetensors"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "sap_qwen2_audio"
    assert config["architectures"] == ["SAP2Qwen2AudioForConditionalGeneration"]
    again = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert same_tensors(again.state_dict(), model.state_dict())
    assert again.config.sap_context_token_id == processor.context_token_id


def test_auto_classes(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is SAP2Qwen2AudioConfig
    for auto_class in (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForMultimodalLM):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is SAP2Qwen2AudioForConditionalGeneration
        assert same_tensors(loaded.state_dict(), model.state_dict())
    assert isinstance(AutoModel.from_config(model.config), SAP2Qwen2AudioModel)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is SAP2Qwen2AudioProcessor


def test_settings_of_the_checkpoint_reach_the_layer(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(
        tmp_path, sap_window_size=8, sap_pooling="mean", sap_num_heads=2
    )
    layer = loaded.model.context_pooling
    assert (layer.window_size, layer.pooling, layer.num_heads) == (8, "mean", 2)
    loaded.save_pretrained(tmp_path / "again")
    assert SAP2Qwen2AudioConfig.from_pretrained(tmp_path / "again").sap_window_size == 8


def test_tokens_that_do_not_fit_the_embedding_are_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "full")
    config = json.loads((folder / "config.json").read_text())
    tokens = len(Qwen2AudioProcessor.from_pretrained(tiny).tokenizer)
    config["text_config"]["vocab_size"] = tokens + 2
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        weights[name] = weights[name][: tokens + 2].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (SAP2Qwen2AudioProcessor.from_pretrained, SAP2Qwen2AudioForConditionalGeneration.from_pretrained):
        with pytest.raises(InputError, match=rf"need ids up to {tokens + 2}, but the token embedding has {tokens + 2}"):
            load(folder)


# --- adapters


def test_peft_adapter_survives_saving(tiny, encode, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    targets = r"model\.(language_model\..*\.(q|v)_proj|multi_modal_projector\.linear)"
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)).eval()
    inputs = encode(ROWS)
    with torch.no_grad():
        expected = model(**inputs).logits
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny), tmp_path).eval()
        assert torch.equal(again(**inputs).logits, expected)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
    loaded = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert same_tensors(loaded.state_dict(), merged.state_dict())
    assert Path(tmp_path, "adapter_model.safetensors").is_file()
    assert replies(loaded, encode, ROWS) == replies(merged, encode, ROWS)


def test_the_placeholder_is_no_word(model, processor):
    assert processor.tokenizer.convert_tokens_to_ids(CONTEXT_TOKEN) == model.config.sap_context_token_id


def test_weights_without_a_tokenizer_have_no_placeholder_yet(tiny, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny / name, tmp_path)
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert model.config.sap_context_token_id is None
