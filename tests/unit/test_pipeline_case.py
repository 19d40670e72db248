"""The case of a checkpoint's training in both commands, and adapters that are given for another stage."""

from __future__ import annotations

import json

import pytest
from pipeline_helpers import make_adapter
from pipeline_rows import TOKENS, prune_row, write_jsonl

from sap2 import Transcriber
from sap2.pipeline.loading import LoadedModel, read_settings
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.stages import stage_content
from sap2.rowfiles import read_rows
from sap2.spelling import Writing


@pytest.fixture(scope="module")
def lower(tiny, tmp_path_factory):
    """An adapter whose rows were lower case."""
    folder = tmp_path_factory.mktemp("lower") / "asr"
    return make_adapter(tiny, folder, seed=5, sap_case="lower", sap_stages=["asr"])


@pytest.fixture
def told(monkeypatch):
    """The user's turns that the model is asked."""
    contents = []
    prompt = Encoder.prompt

    def recording(self, content, *args):
        contents.append(content)
        return prompt(self, content, *args)

    monkeypatch.setattr(Encoder, "prompt", recording)
    return contents


@pytest.mark.parametrize(("case", "expected"), [(None, ["emily", "wozniak"]), ("keep", ["Emily", "WOZNIAK"])])
def test_a_list_is_told_in_the_case_of_the_training(told, tiny, lower, wavs, case, expected):
    transcriber = Transcriber(tiny, asr_adapter=lower, max_new_tokens=TOKENS, vad="energy", case=case)
    transcript = transcriber.transcribe(wavs[0], keywords=["Emily", "WOZNIAK"])
    assert told == [stage_content("asr", expected)]
    assert transcript.picked_keywords == ["Emily", "WOZNIAK"]


@pytest.mark.parametrize(("case", "expected"), [(None, ["emily", "wozniak"]), ("upper", ["EMILY", "WOZNIAK"])])
def test_rows_are_told_in_the_case_of_the_training_too(told, tiny, lower, wavs, tmp_path, case, expected):
    row = prune_row("u1", stage_content("asr", ["Emily", "WOZNIAK"])) | {"audios": [wavs[0]]}
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    result = tmp_path / "result.jsonl"
    run_pipeline(PipelineOptions(path, str(result), str(tiny), None, str(lower), max_new_tokens=TOKENS, case=case))
    assert told[-1] == stage_content("asr", expected)
    assert next(read_rows(result))[1]["keywords"] == ["Emily", "WOZNIAK"]
    assert json.loads((tmp_path / "result.settings.json").read_text())["case"] == case


def test_without_a_record_keywords_are_told_as_they_stand(tiny, asr):
    assert LoadedModel(str(tiny), {"asr": asr}).writing("asr") == Writing()


@pytest.mark.parametrize(
    ("case", "expected"), [(None, ["gpt 4", "o'brien", "++"]), ("keep", ["GPT-4", "O'Brien", "++"])]
)
def test_punctuation_that_the_training_never_saw_is_not_told(told, tiny, wavs, tmp_path, case, expected):
    adapter = make_adapter(tiny, tmp_path / "a", seed=5, sap_case="lower", sap_punctuation="none", sap_stages=["asr"])
    transcriber = Transcriber(tiny, asr_adapter=adapter, max_new_tokens=TOKENS, vad="energy", case=case)
    transcript = transcriber.transcribe(wavs[0], keywords=["GPT-4", "O'Brien", "++"])
    assert told == [stage_content("asr", expected)]
    assert transcript.picked_keywords == ["GPT-4", "O'Brien", "++"]


def test_shipped_adapters_know_their_case_and_stage():
    _, recorded = read_settings("sap2-tiny", {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"})
    assert {stage: args["sap_case"] for stage, args in recorded.items()} == {"prune": "lower", "asr": "lower"}
    message = "sap2-tiny-asr was trained on rows of the stage asr, and is given for the stage prune; .*swapped"
    with pytest.raises(ValueError, match=message):
        read_settings("sap2-tiny", {"prune": "sap2-tiny-asr", "asr": "sap2-tiny-prune"})


def test_an_unknown_spelling_is_refused(tiny):
    with pytest.raises(ValueError, match="spelling 'slides' is unknown; allowed: keywords, model"):
        Transcriber(tiny, spelling="slides")
