"""One adapter of all stages is merged into float32 weights: fewer products, the same replies, nothing on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pipeline_helpers import TOWER_TOO, make_adapter
from talk_rows import utterances_of_talks

from sap2.audio import load_samples
from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
from sap2.pipeline.adapters import shared_adapter, split_adapter
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.merging import can_merge, merge_lora
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.stages import plan_stages
from sap2.pipeline.utterances import Job


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def job(path, keywords):
    return Job(str(path), lambda: load_samples(str(path), 16_000), keywords)


def has_lora(model):
    return any("lora_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("scaled", [{}, {"use_rslora": True}])
def test_weights_are_merged_as_peft_merges_them(tiny, asr, tmp_path, scaled):
    folder = shutil.copytree(asr, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | scaled))
    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    expected = PeftModel.from_pretrained(base, str(folder)).merge_and_unload().state_dict()
    merged = dict(merge_lora(weights.items(), split_adapter(str(folder)).language))
    changed = {name for name in weights if not torch.equal(merged[name], weights[name])}
    assert merged.keys() == weights.keys() and changed and all("language_model.layers" in name for name in changed)
    for name in changed:
        torch.testing.assert_close(merged[name], expected[name])
    hub = {name.replace("model.language_model.", "language_model.model."): tensor for name, tensor in weights.items()}
    again = dict(merge_lora(hub.items(), split_adapter(str(folder)).language))
    assert all(torch.equal(one, other) for one, other in zip(again.values(), merged.values(), strict=True))


def test_an_adapter_of_other_layers_is_an_error(tiny, asr):
    weights = {"language_model.model.layers.0.self_attn.q_proj.weight": torch.zeros(128, 128)}
    with pytest.raises(ValueError, match=r"the model has no layer layers\.0\.mlp\.down_proj, which the adapter"):
        dict(merge_lora(weights.items(), split_adapter(str(asr)).language))


def test_scales_that_differ_are_not_merged(asr, tmp_path):
    folder = shutil.copytree(asr, tmp_path / "adapter")
    assert can_merge(str(folder))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"alpha_pattern": {"q_proj": 4}}))
    assert not can_merge(str(folder))


def test_an_adapter_is_shared_where_every_stage_has_it():
    assert shared_adapter({"asr": "a"}, ["asr"]) == shared_adapter({"prune": "a", "asr": "a"}, ["prune", "asr"]) == "a"
    assert shared_adapter({"asr": "a"}, ["prune", "asr"]) is None
    assert shared_adapter({"prune": "b", "asr": "a"}, ["prune", "asr"]) is None
    assert shared_adapter({}, ["asr"]) is None
    # stage one has none of its own where it asks nobody
    assert plan_stages("prune,asr", None, "a", ["spot"]).adapters == {"asr": "a"}
    assert plan_stages("prune,asr", "b", "a").adapters == {"prune": "b", "asr": "a"}


@pytest.mark.parametrize("stages", [("asr",), ("prune", "asr")])
def test_a_model_with_one_adapter_has_it_in_its_weights(tiny, wavs, tmp_path, stages):
    """Also an adapter that changes the tower, which then hears once for all stages."""
    adapter = make_adapter(tiny, tmp_path / "tower", seed=2, targets=TOWER_TOO)
    one = LoadedModel(str(tiny), dict.fromkeys(stages, adapter))
    beside = LoadedModel(str(tiny), {**dict.fromkeys(stages, adapter), "joint": None})
    assert has_lora(beside.model) and not has_lora(one.model)
    assert one.tower_shared and all(one.has_adapter(stage) for stage in stages)
    outcomes = []
    for loaded in (one, beside):
        decoder = Decoder(loaded, stages, 12)
        outcomes.append(decoder.decode([decoder.prepare(job(wav, ["emily", "bob"])) for wav in wavs]))
    assert [outcome.replies for outcome in outcomes[0]] == [outcome.replies for outcome in outcomes[1]]
    assert {outcome.audio_tower_runs for outcome in outcomes[0]} == {1}


def test_other_number_types_would_be_rounded_and_stay_apart(tiny, asr):
    assert has_lora(LoadedModel(str(tiny), {"asr": asr}, dtype="bfloat16").model)


def test_every_transcript_of_the_talks_is_the_same(tmp_path):
    rows = [json.loads(line) for line in Path(utterances_of_talks(tmp_path)).read_text(encoding="utf-8").splitlines()]
    jobs = [job(row["audio"], row["keywords"]) for row in rows]
    texts = []
    for stages in ({"asr": "sap2-tiny-asr"}, {"asr": "sap2-tiny-asr", "joint": None}):
        loaded = LoadedModel("sap2-tiny", stages)
        assert has_lora(loaded.model) is (len(stages) > 1) and loaded.has_spotter("asr")
        decoder = Decoder(loaded, ("asr",), 48)
        texts.append([outcome.reading.text for outcome in decoder.decode([decoder.prepare(one) for one in jobs])])
    assert len(jobs) >= 16 and texts[0] == texts[1]
