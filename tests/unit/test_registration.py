"""What ms-swift knows of the model: its registration, and loading through ms-swift."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from swift.model import MODEL_MAPPING, get_model_processor
from swift.template import TEMPLATE_MAPPING
from swift.utils import get_multimodal_target_regex

from sap2 import SAP2Qwen2AudioConfig, SAP2Qwen2AudioForConditionalGeneration, _autoload
from sap2.errors import InputError
from sap2.ms_swift.template import SAP2Qwen2AudioTemplate


def test_registration():
    meta = MODEL_MAPPING["sap_qwen2_audio"]
    assert meta.is_multimodal is True
    assert meta.architectures == ["SAP2Qwen2AudioForConditionalGeneration"]
    template_meta = TEMPLATE_MAPPING[meta.template]
    assert type(template_meta.template_cls(None, template_meta)) is SAP2Qwen2AudioTemplate
    assert template_meta.template_cls.use_model is SAP2Qwen2AudioTemplate.use_model
    assert {"register_arguments", "register_model", "register_template"} <= set(_autoload.status["done"])
    assert _autoload.status["errors"] == []


@pytest.fixture(scope="module")
def loaded(tiny):
    return get_model_processor(str(tiny), model_type="sap_qwen2_audio", sap_settings={"sap_window_size": 8})


def test_loading_through_ms_swift(tiny, loaded):
    model, processor = loaded
    assert type(model) is SAP2Qwen2AudioForConditionalGeneration
    assert model.config.sap_window_size == model.model.context_pooling.window_size == processor.sap_window_size == 8
    assert model.config.sap_context_token_id == processor.context_token_id
    reference = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in model.state_dict().items())


def test_lora_trains_language_model_and_projector_alone(loaded):
    """``--freeze_llm false --freeze_vit true --freeze_aligner false``, the flags of the original README."""
    model, _ = loaded
    regex = get_multimodal_target_regex(model, freeze_llm=False, freeze_vit=True, freeze_aligner=False)
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    matched = {name for name, _ in model.named_modules() if re.fullmatch(regex, name)}
    projections = {name for name in linears if name.startswith("model.language_model.")}
    assert len(projections) == 4 * 7
    assert matched == projections | {"model.multi_modal_projector.linear"}
    towers = re.compile(get_multimodal_target_regex(model, freeze_llm=True, freeze_vit=False, freeze_aligner=True))
    matched = {name for name in linears if towers.fullmatch(name)}
    assert matched and all(name.startswith("model.audio_tower.") for name in matched)


def test_missing_weights_are_refused_through_ms_swift(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    del weights["language_model.lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing \(lm_head\.weight\)"):
        get_model_processor(str(folder), model_type="sap_qwen2_audio")


def test_settings_from_the_environment(tiny, monkeypatch):
    """The way of ``--external_plugins`` and ``--model_kwargs``, where the flags are not there."""
    monkeypatch.setenv("SAP_WINDOW_SIZE", "3")
    monkeypatch.setenv("SAP_POOLING", "mean")
    _, processor = get_model_processor(str(tiny), model_type="sap_qwen2_audio", load_model=False)
    assert processor.sap_window_size == processor.model_info.config.sap_window_size == 3
    assert processor.model_info.config.sap_pooling == "mean"
    monkeypatch.setenv("SAP_WINDOW_SIZE", "x")
    with pytest.raises(InputError, match="--sap_window_size is 'x'"):
        get_model_processor(str(tiny), model_type="sap_qwen2_audio", load_model=False)


def test_saved_settings_are_those_of_the_run(loaded, tmp_path):
    loaded[0].save_pretrained(tmp_path)
    assert SAP2Qwen2AudioConfig.from_pretrained(tmp_path).sap_window_size == 8
