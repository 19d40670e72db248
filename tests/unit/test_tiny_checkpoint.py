"""The tiny checkpoint is complete, is what upstream's classes expect, and comes out the same every time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from sap2 import prompts
from sap2.tiny import checkpoint
from sap2.tiny.checkpoint import build_model, build_tokenizer, make_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint", seed=3)


@pytest.fixture(scope="module")
def loaded(folder):
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, output_loading_info=True)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes(folder, tmp_path):
    state = torch.random.get_rng_state()
    assert read_all(make_tiny(tmp_path / "again", seed=3)) == read_all(folder)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers must not move"
    other = read_all(make_tiny(tmp_path / "other", seed=4))
    assert [name for name, data in read_all(folder).items() if data != other[name]] == ["model.safetensors"]


def test_weights_have_the_names_of_the_hub(folder):
    weights = load_file(folder / "model.safetensors")
    hub = r"language_model\.(model\.(layers\.\d+|embed_tokens|norm)|lm_head)\.|audio_tower\.|multi_modal_projector\."
    assert [name for name in weights if not re.match(hub, name)] == []
    assert not any(".model.model." in name for name in weights)
    assert {"language_model.lm_head.weight", "audio_tower.conv1.weight", "multi_modal_projector.linear.bias"} <= set(
        weights
    )


def test_upstream_loads_every_tensor(folder, loaded):
    model, info = loaded
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    drawn = build_model(build_tokenizer(), seed=3).state_dict()
    assert drawn.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, drawn[name]), name
    on_disk = load_file(folder / "model.safetensors")
    assert sum(tensor.numel() for tensor in on_disk.values()) == sum(t.numel() for t in model.state_dict().values())


def test_size_and_shape(loaded):
    model, _ = loaded
    assert model.num_parameters() == 1_352_576
    assert 0.8e6 <= model.num_parameters() <= 1.5e6
    config = model.config
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (128, 4)
    assert (config.text_config.num_attention_heads, config.text_config.num_key_value_heads) == (4, 2)
    assert (config.audio_config.d_model, config.audio_config.encoder_layers) == (128, 3)
    assert config.text_config.max_position_embeddings >= 4096
    assert config.audio_config.dropout == config.text_config.attention_dropout == 0


def test_auto_classes_and_config(folder):
    config = AutoConfig.from_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    assert raw["model_type"] == "qwen2_audio"
    assert raw["architectures"] == ["Qwen2AudioForConditionalGeneration"]
    assert isinstance(AutoProcessor.from_pretrained(folder), Qwen2AudioProcessor)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert config.audio_token_index == tokenizer.convert_tokens_to_ids(prompts.AUDIO_TOKEN)
    generation = GenerationConfig.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(generation.eos_token_id) == ["<|im_end|>", "<|endoftext|>"]
    assert generation.pad_token_id == tokenizer.pad_token_id


def test_tokenizer(folder):
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for token in checkpoint.SPECIAL_TOKENS:
        assert tokenizer.encode(token) == [tokenizer.convert_tokens_to_ids(token)], token
        assert token in tokenizer.all_special_tokens
    assert config.text_config.vocab_size - len(tokenizer) >= 64
    assert tokenizer.add_special_tokens({"extra_special_tokens": list(prompts.SAP_TOKENS)}, False) == 3
    assert len(tokenizer) <= config.text_config.vocab_size


@pytest.mark.parametrize("text", ["two words", "ein Wörtchen 你好\n\t  🙂 \u200f عربي", "I'll I'm 'S 3.14", "a\x00b"])
def test_any_text_survives_the_tokenizer(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode()), "every byte is one token, also letters and spaces"
    assert tokenizer.decode(ids) == text


def test_prompts_are_short(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    context = prompts.format_context(["ab"])
    spelled = len(tokenizer.encode(context))
    for prompt in (prompts.asr_prompt(["ab"]), prompts.prune_prompt(["ab"]), prompts.joint_prompt(["ab"])):
        ids = tokenizer.encode(prompt)
        assert len(ids) == spelled + 2, "the phrase and the space after it"
        assert tokenizer.decode(ids) == prompt
    assert len(tokenizer.encode(prompts.joint_reply(["ab"], "cd"))) == len(" ab.\n cd") + 2


def test_chat_template(folder):
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "audio", "audio_url": "a.wav"}, {"type": "text", "text": "What?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_hears_eight_seconds(folder, loaded):
    model, _ = loaded
    processor = AutoProcessor.from_pretrained(folder)
    extractor = processor.feature_extractor
    assert extractor.n_samples == 8 * extractor.sampling_rate
    assert extractor.nb_max_frames == 2 * model.config.audio_config.max_source_positions
    audio = np.random.default_rng(0).standard_normal(2 * 16000).astype(np.float32)
    inputs = processor(text="<|AUDIO|>hi", audio=[audio], sampling_rate=16000, return_tensors="pt")
    assert inputs["input_features"].shape == (1, 128, 800)
    assert int((inputs["input_ids"] == model.config.audio_token_index).sum()) == 50  # 25 a second
    assert model.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]


def test_refuses_to_replace_what_it_did_not_make(folder, tmp_path):
    before = read_all(folder)
    with pytest.raises(ValueError, match=r"checkpoint is not empty; give a new folder, or --overwrite"):
        make_tiny(folder)
    stranger = tmp_path / "thesis"
    stranger.mkdir()
    (stranger / "chapter1").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis holds no config.json, so it was not made by this command"):
        make_tiny(stranger, overwrite=True)
    with pytest.raises(ValueError, match=r"chapter1 is a file; give a folder"):
        make_tiny(stranger / "chapter1", overwrite=True)
    assert read_all(folder) == before
    assert (stranger / "chapter1").read_text() == "years of work"


def test_overwrite_replaces_the_whole_folder(tmp_path):
    target = tmp_path / "checkpoint"
    target.mkdir()
    (target / "config.json").write_text("{}")
    (target / "old").write_text("")
    make_tiny(target, overwrite=True)
    assert not (target / "old").exists()
    assert json.loads((target / "config.json").read_text())["model_type"] == "qwen2_audio"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"], "no temporary folder is left"


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        make_tiny(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_bad_seed(tmp_path):
    with pytest.raises(ValueError, match=r"seed is -1; allowed: 0 to"):
        make_tiny(tmp_path / "checkpoint", seed=-1)


def test_a_weight_without_a_published_name_is_refused():
    with pytest.raises(ValueError, match=r"'model.new.weight' has no name in the published checkpoints"):
        checkpoint.hub_names({"model.new.weight": torch.zeros(1)})
