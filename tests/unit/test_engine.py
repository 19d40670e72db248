"""ms-swift's engine with adapters: shipped names, settings that come along, and named adapters side by side."""

from __future__ import annotations

import json
import types

import pytest
import soundfile
from peft import PeftModel
from swift.infer_engine import AdapterRequest, InferRequest, RequestConfig, TransformersEngine

from sap2 import SAP2Qwen2AudioProcessor
from sap2.model.adapters import LAYERS
from sap2.model.settings import recorded_settings
from sap2.ms_swift.engine import patch_engine
from sap2.pipeline.stages import stage_content
from sap2.shipped import FOLDER
from sap2.tiny.speech import speak

KEYWORDS = ["nailveek", "wailtol", "zolden", "emily"]
SAID = ["the product of nailveek is simple", "now wailtol gives the road again"]


def is_heard(replies):
    """The sentences but for a letter of a name: which one, changes with the model."""
    pairs = zip(replies, SAID, strict=False)
    return all(len(set(reply.split()) & set(said.split())) >= len(set(said.split())) - 1 for reply, said in pairs)


PRUNE, ASR = AdapterRequest("one", "sap2-tiny-prune"), AdapterRequest("two", "sap2-tiny-asr")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    paths = [str(folder / f"{number}.wav") for number in range(len(SAID))]
    for path, text in zip(paths, SAID, strict=True):
        soundfile.write(path, speak(text), 16_000)
    return paths


@pytest.fixture(scope="module")
def ask(recordings):
    """Replies of an engine to the recordings in one batch, and to a row without audio if asked for."""

    def ask(engine, stage, adapter=None, text=None):
        content = stage_content(stage, KEYWORDS)
        rows = [InferRequest([{"role": "user", "content": content}], audios=[path]) for path in recordings]
        rows += [InferRequest([{"role": "user", "content": text}])] if text else []
        config = RequestConfig(max_tokens=40, temperature=0)
        replies = engine.infer(rows, config, use_tqdm=False, adapter_request=adapter)
        return [reply.choices[0].message.content for reply in replies]

    return ask


def test_an_engine_takes_shipped_names_and_their_settings(ask):
    engine = TransformersEngine("sap2-tiny", adapters=["sap2-tiny-asr"], max_batch_size=4)
    assert engine.model.config.sap_window_size == 32
    assert is_heard(ask(engine, "asr"))


def test_an_args_json_that_says_little_has_a_chat_template(ask, tmp_path):
    """As the shipped ones were; without it every reply is noise."""
    for path in (FOLDER / "sap2-tiny-asr").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    args = json.loads((tmp_path / "args.json").read_text())
    del args["use_chat_template"]
    (tmp_path / "args.json").write_text(json.dumps(args))
    assert is_heard(ask(TransformersEngine("sap2-tiny", adapters=[str(tmp_path)], max_batch_size=4), "asr"))


@pytest.fixture(scope="module")
def named():
    """An engine without an adapter of its own, with the settings of the named ones, as ``swift deploy`` makes it."""
    settings = recorded_settings(FOLDER / "sap2-tiny-asr").settings
    return TransformersEngine(
        "sap2-tiny", model_type="sap_qwen2_audio", sap_settings=settings, torch_dtype=None, max_batch_size=4
    )


def test_named_adapters_answer_in_turn(named, ask):
    """Each batch has its adapter, whatever was asked before, and one of its rows has no audio."""
    picked, said = ask(named, "prune", PRUNE, "hi"), ask(named, "asr", ASR, "hi")
    assert "nailveek" in picked[0] and not is_heard(picked)
    assert is_heard(said) and said[2] != picked[2]
    plain = ask(named, "asr", None, "hi")
    assert plain != said, "the base model without an adapter"
    assert ask(named, "prune", PRUNE, "hi") == picked and ask(named, "asr", ASR, "hi") == said
    assert ask(named, "asr", None, "hi") == plain


def test_a_batch_of_peft_mixes_them(named, ask, recordings):
    """PEFT's own way: an adapter for each row, where each row has one audio."""
    expected = [ask(named, "prune", PRUNE)[0], ask(named, "asr", ASR)[1]]
    assert isinstance(named.model, PeftModel)
    processor: SAP2Qwen2AudioProcessor = named.processor
    template = named.template
    rows = [
        {"messages": [{"role": "user", "content": stage_content(stage, KEYWORDS)}], "audios": [path]}
        for stage, path in zip(("prune", "asr"), recordings, strict=True)
    ]
    inputs = template.data_collator([template.encode(row) for row in rows])
    inputs.pop("labels", None)
    ids = named.model.generate(**inputs, adapter_names=["one", "two"], max_new_tokens=40, do_sample=False)
    replies = processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert replies == expected


def test_the_shipped_adapters_name_single_layers():
    for name in ("sap2-tiny-asr", "sap2-tiny-prune"):
        saved = json.loads((FOLDER / name / "adapter_config.json").read_text())["modules_to_save"]
        assert saved and set(saved) <= set(LAYERS["sap_spotter"])


# --- engines of other models


class Engine:
    def __init__(self, adapters):
        self.adapters, self.model_type = adapters, None
        self.model_meta = types.SimpleNamespace(model_type="qwen2_audio")

    def _get_model_processor(self, model_id_or_path, **kwargs):
        return model_id_or_path, kwargs

    def _get_adapter_names(self, adapter_request):
        return adapter_request


@pytest.fixture
def patched():
    engine = type("TransformersEngine", (Engine,), {})
    patch_engine(engine)
    patch_engine(engine)  # the second time changes nothing
    return engine


def test_settings_that_are_given_are_not_read_again(patched, tmp_path):
    (tmp_path / "args.json").write_text('{"model_type": "sap_qwen2_audio", "sap_window_size": 8}')
    made = patched([str(tmp_path)])
    assert made._get_model_processor("base") == ("base", {"sap_settings": {"sap_window_size": 8}})
    assert made.model_type == "sap_qwen2_audio"
    given = {"sap_settings": {"sap_window_size": 2}}
    assert made._get_model_processor("base", **given) == ("base", given), "the commands have resolved them already"


def test_other_models_are_left_alone(patched, tmp_path):
    (tmp_path / "args.json").write_text('{"model_type": "qwen2_audio"}')
    for adapters in ([], [str(tmp_path)]):
        made = patched(adapters)
        assert made._get_model_processor("base", torch_dtype=None) == ("base", {"torch_dtype": None})
        assert made.model_type is None
        assert made._get_adapter_names("x") == "x"
