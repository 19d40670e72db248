"""Base weights once in memory: the adapter in two halves, and the model without its language model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft.utils import load_peft_weights
from pipeline_helpers import TOWER_TOO, make_adapter
from pipeline_rows import LISTS
from safetensors.torch import load_file, save_file

from sap2.audio import load_samples
from sap2.errors import InputError
from sap2.pipeline.adapters import split_adapter
from sap2.pipeline.asking import Hearing
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.stages import stage_content
from sap2.shipped import resolve_name


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sap2" / "adapters"


def test_the_halves_together_are_the_adapter(prune):
    whole, halves = load_peft_weights(str(prune), device="cpu"), split_adapter(str(prune))
    hearing, language = (load_peft_weights(folder, device="cpu") for folder in (halves.hearing, halves.language))
    assert hearing.keys().isdisjoint(language) and halves.rank == 8
    assert {name for name in whole if "language_model" in name} == set(language) != set(whole)
    assert all(torch.equal(whole[name], tensor) for name, tensor in {**hearing, **language}.items())
    assert len(whole) == len(hearing) + len(language)


def test_the_cache_knows_an_adapter_by_what_it_holds(prune, cache, tmp_path):
    first = split_adapter(str(prune))
    copied = shutil.copytree(prune, tmp_path / "copy")
    assert split_adapter(str(copied)) == first and len(list(cache.iterdir())) == 1
    weights = load_file(copied / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, copied / "adapter_model.safetensors")
    assert split_adapter(str(copied)) != first
    assert sorted(path.name for path in cache.iterdir()) == sorted(
        {half.split("/")[-2] for adapter in (first, split_adapter(str(copied))) for half in adapter[:2]}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "has use_dora"),
        ("base_model.model.lm_head.weight", r"changes base_model\.model\.lm_head\.weight"),
        ("base_model.model.model.language_model.embed_tokens.weight", r"changes .*embed_tokens\.weight"),
    ],
)
def test_what_is_no_lora_on_the_layers_is_refused(prune, cache, tmp_path, change, message):
    folder = shutil.copytree(prune, tmp_path / "changed")
    if isinstance(change, str):
        weights = load_file(folder / "adapter_model.safetensors") | {change: torch.zeros(2, 2)}
        save_file(weights, folder / "adapter_model.safetensors")
    else:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=f"{message}, which --engine vllm cannot apply; allowed: .*merge_lora"):
        split_adapter(str(folder))
    assert not cache.exists() or not list(cache.iterdir())


def embedded(loaded, wavs, stage):
    encoder = Encoder(loaded.processor, 8192)
    heard = [encoder.hear(load_samples(wav, 16_000), wav) for wav in wavs]
    contents = [stage_content(stage, keywords) for keywords in LISTS]
    prompts = [encoder.prompt(content, "", item.tokens) for content, item in zip(contents, heard, strict=True)]
    with torch.inference_mode():
        return [prompt.embeddings for prompt in Hearing(loaded, heard).embed(stage, encoder, prompts)]


@pytest.fixture(params=["made here", "shipped", "on the tower too"])
def adapters(request, tiny, prune, asr, tmp_path):
    """Model, and adapter of each stage: with attention, with a spotter, and with one that changes the tower."""
    if request.param == "shipped":
        return resolve_name("sap2-tiny"), {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"}
    if request.param == "on the tower too":
        return str(tiny), {"prune": make_adapter(tiny, tmp_path / "t", targets=TOWER_TOO), "asr": None}
    return str(tiny), {"prune": prune, "asr": asr}


def test_without_its_language_model_the_model_embeds_the_same(adapters, wavs):
    model, folders = adapters
    whole, part = LoadedModel(model, folders), LoadedModel(model, folders, language_model=False)
    for stage in folders:
        expected, found = embedded(whole, wavs, stage), embedded(part, wavs, stage)
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert part.tower_shared == whole.tower_shared
    assert [part.calibration(stage) for stage in folders] == [whole.calibration(stage) for stage in folders]
    assert not [name for name, _ in part.model.named_parameters() if "layers" in name and "language_model" in name]
    assert not hasattr(part.model, "lm_head")
    assert part.model.generation_config.to_dict() == whole.model.generation_config.to_dict()


def test_the_base_model_alone_needs_no_halves(tiny):
    part = LoadedModel(str(tiny), {"asr": None}, language_model=False)
    assert part.halves == {} and part.tower_shared
