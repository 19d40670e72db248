"""The settings of an adapter travel with it, in plain PEFT too."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, PeftModel, get_peft_model

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.errors import InputError
from sap2.shipped import resolve_name

TRAINED = {"sap_window_size": 4, "sap_pooling": "salience", "sap_min_positions": 8}


def load(folder, **settings):
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(folder, **settings)


@pytest.fixture(scope="module", params=["CAUSAL_LM", None], ids=["causal", "no task"])
def adapter(request, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type=request.param)
    get_peft_model(load(tiny, **TRAINED), config).save_pretrained(folder)
    return folder


def test_they_stand_in_its_configuration(adapter):
    recorded = json.loads((adapter / "adapter_config.json").read_text())["auto_mapping"]["sap2"]
    assert recorded == {
        **TRAINED,
        "sap_num_heads": 4,
        "sap_hidden_size": 128,
        "sap_spotter": True,
        "sap_retriever": False,
    }


def test_a_model_with_the_same_takes_it(tiny, adapter):
    # the width may be named or left out
    model = PeftModel.from_pretrained(load(tiny, **TRAINED, sap_hidden_size=128), adapter)
    PeftModel.from_pretrained(load(tiny, **TRAINED), adapter)
    model.load_adapter(adapter, adapter_name="again")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**TRAINED, "sap_window_size": 2}, r"trained with sap_window_size 4, and the model has sap_window_size 2; "),
        ({**TRAINED, "sap_min_positions": 64}, r"sap_min_positions 8, and the model has sap_min_positions 64"),
        ({}, r"sap_min_positions 8, sap_pooling salience, sap_spotter True, sap_window_size 4, and the model has"),
    ],
)
def test_a_model_with_others_refuses_it(tiny, adapter, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        PeftModel.from_pretrained(load(tiny, **settings), adapter)
    assert "\n" not in str(caught.value)
    model = get_peft_model(load(tiny, **settings), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(InputError, match=message):
        model.load_adapter(adapter, adapter_name="other")


def test_a_model_may_have_a_spotter_that_the_adapter_does_not_need(tiny, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(load(tiny), config).save_pretrained(tmp_path)
    PeftModel.from_pretrained(load(tiny, sap_spotter=True), tmp_path)


def test_an_adapter_made_before_passes(tiny, adapter, tmp_path):
    for path in adapter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**content, "auto_mapping": None}))
    PeftModel.from_pretrained(load(tiny), tmp_path)


@pytest.mark.parametrize("name", ["sap2-tiny-asr", "sap2-tiny-prune"])
def test_the_shipped_adapters_are_refused_by_a_model_with_other_settings(name):
    with pytest.raises(InputError, match="the adapter was trained with sap_"):
        PeftModel.from_pretrained(load(resolve_name("sap2-tiny")), resolve_name(name))


def test_other_models_are_left_alone():
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert get_peft_model(model, LoraConfig(target_modules=["0"])).peft_config["default"].auto_mapping is None


def test_a_saved_model_says_what_it_takes_to_open_it(tiny, tmp_path):
    load(tiny).save_pretrained(tmp_path)
    assert "import sap2" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "import sap2" in json.loads((tmp_path / "config.json").read_text())["sap_opened_with"]
    (tmp_path / "README.md").write_text("mine")
    load(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
