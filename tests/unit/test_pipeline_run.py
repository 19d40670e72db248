"""A run over a test set: bad rows, going on, what changed since, refusals before anything is overwritten."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
import soundfile
from commands import sap2
from pipeline_helpers import make_adapter
from pipeline_rows import prune_row, prune_rows, write_jsonl

from sap2.errors import EngineError
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines import choice
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.stages import stage_content


@pytest.fixture(scope="module")
def rows(wavs):
    return prune_rows(wavs)


def test_bad_rows_are_reported_and_a_second_run_skips_what_is_done(monkeypatch, tiny, asr, rows, tmp_path):
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(100), 16_000)
    bad = [prune_row("gone"), prune_row("short") | {"audios": [str(short)]}, prune_row("u0"), {"id": "x"}]
    path = write_jsonl(tmp_path / "rows.jsonl", [bad[0], *rows, *bad[1:]])
    options = PipelineOptions(path, str(tmp_path / "r.jsonl"), str(tiny), None, str(asr), max_new_tokens=4)
    report = run_pipeline(options)
    assert (report.rows, report.failed, report.resumed) == (7, 4, 0)
    errors = [json.loads(line) for line in (tmp_path / "r.errors.jsonl").read_text().splitlines()]
    found = {(row["row"], row["id"]): row["error"] for row in errors}
    assert "/a.wav does not exist" in found[1, "gone"]
    assert "0.00625 s long" in found[5, "short"]
    assert "second time" in found[6, "u0"]
    assert "neither messages nor an audio" in found[7, "x"]
    before = (tmp_path / "r.jsonl").read_bytes()
    assert [json.loads(line)["id"] for line in before.splitlines()] == ["u0", "u1", "u2"]
    with monkeypatch.context() as patch:  # what is left to do needs the model, bad rows alone do not
        patch.setattr(LoadedModel, "__init__", lambda *_: pytest.fail("the model was loaded"))
        finished = dataclasses.replace(options, val_dataset=write_jsonl(tmp_path / "done.jsonl", [*rows, bad[3]]))
        assert run_pipeline(finished).resumed == 3
    again = run_pipeline(options)
    assert (again.resumed, again.failed) == (3, 4)
    assert (tmp_path / "r.jsonl").read_bytes() == before


def test_what_is_wrong_with_the_input_is_found_before_anything_is_overwritten(tiny, asr, rows, tmp_path):
    path, result = write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "r.jsonl"
    result.write_text("precious\n")
    good = PipelineOptions(path, str(result), str(tiny), None, str(asr), overwrite=True)
    for change in ({"val_dataset": "gone.jsonl"}, {"model": str(tmp_path)}, {"asr_adapter": "gone"}):
        with pytest.raises((ValueError, OSError)):
            run_pipeline(dataclasses.replace(good, **change))
        assert result.read_text() == "precious\n"


def test_the_command_ends_with_1_where_a_row_failed(tiny, asr, rows, tmp_path, capsys):
    from sap2.cli import main

    path = write_jsonl(tmp_path / "rows.jsonl", [rows[0], prune_row("gone")])
    given = ["pipeline", "--val_dataset", path, "--result_path", str(tmp_path / "r.jsonl"), "--model", str(tiny)]
    given += ["--asr-adapter", str(asr), "--max_new_tokens", "4"]
    assert main(given) == 1
    assert "2 rows, 1 failed" in capsys.readouterr().out
    assert main([*given, "--stages", "prune,asr"]) == 2
    assert "needs --prune-adapter" in capsys.readouterr().err


def results_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def begun(tiny, asr, rows, wavs, tmp_path):
    """A run that is done, on copies of the audio."""
    audios = [shutil.copy2(wav, tmp_path / f"copy{number}.wav") for number, wav in enumerate(wavs)]
    rows = [row | {"audios": [str(audio)]} for row, audio in zip(rows, audios, strict=True)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    options = PipelineOptions(path, str(tmp_path / "r.jsonl"), str(tiny), None, str(asr), max_new_tokens=4)
    run_pipeline(options)
    return options, rows, audios, tmp_path / "r.jsonl"


def test_a_row_with_other_keywords_or_another_reference_is_decoded_again(begun):
    options, rows, _, path = begun
    before = results_of(path)
    changed = [rows[0], prune_row("u1", stage_content("prune", ["zoe"])) | {"audios": rows[1]["audios"]}, rows[2]]
    changed[2] = {"id": "u2", "audio": rows[2]["audios"][0], "text": "short", "keywords": before[2]["keywords"]}
    write_jsonl(path.parent / "rows.jsonl", changed)
    report = run_pipeline(options)
    assert (report.resumed, report.changed) == (1, 2)
    assert "1 done before, 2 made again since their rows changed" in str(report)
    after = results_of(path)
    assert after[0] == before[0] and after[1]["keywords"] == ["zoe"] and after[2]["labels"] == "short"
    assert run_pipeline(options).resumed == 3


def test_a_row_whose_audio_file_changed_is_decoded_again(begun, wavs):
    options, _, audios, path = begun
    before = results_of(path)
    os.utime(audios[0])
    shutil.copy2(wavs[1], audios[2])
    assert run_pipeline(options).changed == 2
    after = results_of(path)
    assert after[0]["response"] == before[0]["response"] and after[2]["audio_seconds"] == before[1]["audio_seconds"]


def test_results_without_fingerprints_are_compared_by_what_they_hold(begun):
    options, rows, audios, path = begun
    old = [{name: value for name, value in row.items() if name != "fingerprint"} for row in results_of(path)]
    write_jsonl(path, old)
    settings = path.with_suffix(".settings.json")
    recorded = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in recorded.items() if not k.endswith("_weights")}))
    os.utime(audios[0])  # which such a result cannot know
    other = prune_row("u1", stage_content("prune", ["zoe"])) | {"audios": rows[1]["audios"]}
    write_jsonl(path.parent / "rows.jsonl", [rows[0], other, rows[2]])
    report = run_pipeline(options)
    assert (report.resumed, report.changed) == (2, 1)
    assert json.loads(settings.read_text()) == recorded


def test_a_test_set_that_lacks_an_id_changes_nothing(begun):
    options, rows, audios, path = begun
    before = path.read_bytes()
    os.utime(audios[0])
    write_jsonl(path.parent / "rows.jsonl", rows[:2])
    with pytest.raises(ValueError, match="1 ids that the test set lacks"):
        run_pipeline(options)
    assert path.read_bytes() == before


def test_an_adapter_that_was_trained_again_in_its_folder_is_noticed(begun, tiny, tmp_path):
    options, _, _, path = begun
    folder = make_adapter(tiny, tmp_path / "again", seed=1)
    options = dataclasses.replace(options, asr_adapter=str(folder), overwrite=True)
    run_pipeline(options)
    make_adapter(tiny, folder, seed=2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"other settings: asr_adapter_weights '\w{16}' \(now '\w{16}'\)"):
        run_pipeline(dataclasses.replace(options, overwrite=False))
    assert path.read_bytes() == before


def with_vllm(monkeypatch):
    """As if vLLM were there, and did not start."""

    def start(*_):
        raise EngineError("no room")

    monkeypatch.setattr(choice, "check_vllm", lambda: None)
    monkeypatch.setattr(choice, "_open_vllm", start)


def test_engines_are_mixed_in_float32_alone(begun, monkeypatch):
    options, _, _, path = begun
    with_vllm(monkeypatch)
    assert run_pipeline(dataclasses.replace(options, engine="vllm")).resumed == 3
    options = dataclasses.replace(options, torch_dtype="bfloat16", overwrite=True)
    run_pipeline(options)
    options, before = dataclasses.replace(options, overwrite=False), path.read_bytes()
    with pytest.raises(ValueError, match=r"other settings: engine 'transformers' \(now 'vllm'\); --overwrite"):
        run_pipeline(dataclasses.replace(options, engine="vllm"))
    settings = path.with_suffix(".settings.json")
    recorded = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: recorded[name] for name in recorded if name != "engine"}))
    with pytest.raises(ValueError, match=r"engine 'transformers' \(now 'vllm'\)"):  # a file of an earlier version
        run_pipeline(dataclasses.replace(options, engine="vllm"))
    assert run_pipeline(options).resumed == 3 and path.read_bytes() == before


def test_auto_goes_on_with_the_engine_that_began(begun, monkeypatch, capsys):
    """It took transformers when vLLM did not start; today vLLM would start, and its replies may differ."""
    options, _, audios, path = begun
    with_vllm(monkeypatch)
    options = dataclasses.replace(options, torch_dtype="bfloat16", engine="auto", engine_args={"seed": 1})
    run_pipeline(dataclasses.replace(options, overwrite=True))
    monkeypatch.setattr(choice, "_open_vllm", lambda *_: pytest.fail("vLLM was started"))
    os.utime(audios[0])  # its result is to be made again
    capsys.readouterr()
    report = run_pipeline(options)
    assert (report.resumed, report.changed, report.failed) == (2, 1, 0)
    assert f"transformers generates, which {path} was begun with; --engine vllm --overwrite" in capsys.readouterr().err
    assert json.loads(path.with_suffix(".settings.json").read_text())["engine"] == "transformers"


def test_the_engine_that_auto_took_in_the_end_is_recorded(begun, monkeypatch):
    options, _, audios, path = begun
    with_vllm(monkeypatch)
    options = dataclasses.replace(options, torch_dtype="bfloat16", engine="auto", overwrite=True)
    assert run_pipeline(options).failed == 0
    settings = path.with_suffix(".settings.json")
    recorded = json.loads(settings.read_text())
    assert recorded["engine"] == "transformers"
    settings.write_text(json.dumps(recorded | {"engine": "vllm"}))
    os.utime(audios[0])  # its result is to be made again
    with pytest.raises(ValueError, match=r"r\.jsonl was begun with vLLM, which does not start now"):
        run_pipeline(dataclasses.replace(options, overwrite=False))


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_says_what_is_done_and_goes_on(tiny, asr, rows, tmp_path, monkeypatch, capsys, end):
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    result = tmp_path / "r.jsonl"
    options = PipelineOptions(path, str(result), str(tiny), None, str(asr), max_new_tokens=4, batch_size=1)
    decode = Decoder.decode

    def decode_one(self, prepared):
        if result.exists() and result.stat().st_size:
            raise end
        return decode(self, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "decode", decode_one)
        with pytest.raises(type(end)):
            run_pipeline(options)
    said = "sap2: note: interrupted; 1 of 3 rows have a result, the same command goes on\n"
    assert capsys.readouterr().err.endswith(said)
    assert run_pipeline(options).resumed == 1


def test_a_missing_test_set_and_a_mistyped_model_are_one_line(tiny, rows, tmp_path, capsys):
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    given = ["--result_path", str(tmp_path / "r.jsonl")]
    assert sap2("pipeline", "--val_dataset", "gone.jsonl", "--model", tiny, *given) == 2
    expected = "--val_dataset gone.jsonl: no such file; allowed: rows or utterances, .jsonl, .json or .parquet\n"
    assert capsys.readouterr().err == f"sap2: error: {expected}"
    assert sap2("pipeline", "--val_dataset", path, "--model", "/no/model", *given) == 2
    assert "/no/model does not exist; allowed: a folder, a hub name" in capsys.readouterr().err


def test_too_long_an_audio_is_cut_by_the_flag_that_its_refusal_names(tiny, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, np.random.default_rng(0).normal(0, 0.1, 9 * 16_000), 16_000)
    path = write_jsonl(tmp_path / "rows.jsonl", [prune_row("u1") | {"audios": [str(long)]}])
    given = ["pipeline", "--val_dataset", path, "--model", tiny, "--stages", "asr", "--max_new_tokens", "2"]
    given += ["--result_path", tmp_path / "r.jsonl"]
    assert sap2(*given) == 1
    (error,) = results_of(tmp_path / "r.errors.jsonl")
    (flag,) = re.findall(r"--\w+ true", error["error"])
    assert sap2(*given, "--overwrite", *flag.split()) == 0
    assert sap2(*given, "--overwrite", flag.split()[0]) == 0
