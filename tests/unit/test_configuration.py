"""The configuration: its settings are checked, saved with the weights, and found again."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, Qwen2AudioConfig

from sap2 import SAP2Qwen2AudioConfig
from sap2.model.configuration import SAP_FIELDS
from sap2.model.pooling import DEFAULT_POOLING, SpeechDrivenPooling


def small(**settings):
    text = {"model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    return SAP2Qwen2AudioConfig(text_config=text, **settings)


def test_defaults():
    config = SAP2Qwen2AudioConfig()
    assert config.model_type == "sap_qwen2_audio"
    assert isinstance(config, Qwen2AudioConfig)
    assert (config.sap_window_size, config.sap_pooling, config.sap_num_heads) == (2, "attention", 4)
    assert config.sap_hidden_size is None and config.sap_context_token_id is None
    assert config.sap_truncate_audio is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sap_window_size": 0}, r"sap_\*.*window_size is 0; allowed: an integer from 1"),
        ({"sap_window_size": -1}, r"window_size is -1; allowed: an integer from 1"),
        ({"sap_window_size": True}, r"window_size is True; allowed: an integer from 1"),
        ({"sap_num_heads": 0}, r"num_heads is 0; allowed: an integer from 1"),
        ({"sap_num_heads": 3}, r"num_heads 3 does not divide hidden_size 32"),
        ({"sap_pooling": "max"}, r"pooling is 'max'; allowed: attention, mean, salience"),
        ({"sap_hidden_size": 4096}, r"--compressor_hidden_size\) is 4096; .* only its width is allowed: 32"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


@pytest.mark.parametrize("value", ["x", "2", 2.5, None])
def test_window_size_is_an_integer(value):
    with pytest.raises(Exception, match=r"sap_window_size|window_size"):
        small(sap_window_size=value)


def test_saved_and_loaded(tmp_path):
    config = small(
        sap_window_size=4,
        sap_pooling="mean",
        sap_num_heads=8,
        sap_hidden_size=32,
        sap_spotter=True,
        sap_context_token_id=77,
        sap_truncate_audio=True,
    )
    config.save_pretrained(tmp_path)
    for loaded in (SAP2Qwen2AudioConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is SAP2Qwen2AudioConfig
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_type"] == "sap_qwen2_audio"
    assert {name: content[name] for name in SAP_FIELDS} == {
        "sap_window_size": 4,
        "sap_min_positions": None,
        "sap_pooling": "mean",
        "sap_num_heads": 8,
        "sap_hidden_size": 32,
        "sap_spotter": True,
        "sap_retriever": False,
    }


def test_the_default_is_the_papers_everywhere():
    layer = SpeechDrivenPooling(32, 4, 2)
    assert small().sap_pooling == layer.pooling == DEFAULT_POOLING == "attention"
    assert not list(layer.parameters())


@pytest.mark.parametrize(
    ("settings", "resolved"),
    [
        ({}, (0, False)),
        ({"sap_pooling": "mean", "sap_spotter": True}, (0, True)),
        ({"sap_pooling": "salience"}, (64, True)),
        ({"sap_pooling": "salience", "sap_min_positions": 0}, (0, True)),
    ],
)
def test_what_is_left_open_depends_on_the_pooling_and_is_recorded(tmp_path, settings, resolved):
    config = small(**settings)
    config.resolve_sap()
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["sap_min_positions"], saved["sap_spotter"]) == resolved


def test_an_impossible_saved_setting_is_refused(tmp_path):
    small().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sap_window_size": 0}))
    with pytest.raises(ValueError, match="window_size is 0"):
        SAP2Qwen2AudioConfig.from_pretrained(tmp_path)


def test_a_plain_qwen2_audio_becomes_ours(tiny):
    assert json.loads((tiny / "config.json").read_text())["model_type"] == "qwen2_audio"
    config = SAP2Qwen2AudioConfig.from_pretrained(tiny)
    assert config.model_type == "sap_qwen2_audio"
    assert config.sap_window_size == 2
    plain = Qwen2AudioConfig.from_pretrained(tiny)
    assert config.text_config.to_dict() == plain.text_config.to_dict()
    assert config.audio_config.to_dict() == plain.audio_config.to_dict()
    assert config.audio_token_id == plain.audio_token_id
    assert SAP2Qwen2AudioConfig.from_pretrained(tiny, sap_window_size=8).sap_window_size == 8


def test_no_field_hides_one_of_the_parts():
    """ms-swift reads hidden_size and the like from the top first; they must stay those of the language model."""
    added = set(small().to_dict()) - set(Qwen2AudioConfig().to_dict())
    assert all(name.startswith("sap_") for name in added)
