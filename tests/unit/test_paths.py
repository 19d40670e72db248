"""Mistyped datasets, models and adapters end at once, with what was probably meant."""

from __future__ import annotations

import json

import pytest
from model_rows import row
from swift.arguments import ExportArguments, InferArguments, SftArguments
from swift.utils import parse_args, safe_snapshot_download

from sap2.errors import InputError
from sap2.ms_swift.paths import is_here
from sap2.shipped import FOLDER


@pytest.fixture
def parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps(row("<audio>x", ["a.wav"])) + "\n")

    def parse(command, *flags):
        return parse_args(command, ["--model_type", "sap_qwen2_audio", *flags])[0]

    return parse


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("trian.jsonl", r"--dataset trian\.jsonl does not exist \(did you mean train\.jsonl\?\); allowed: a file"),
        ("train.json", r"does not exist \(did you mean train\.jsonl\?\)"),
        ("other.parquet", r"--dataset other\.parquet does not exist; allowed"),
        ("./nothere", r"--dataset \./nothere does not exist"),
        ("a/b/c", r"--dataset a/b/c does not exist"),
        ("trian.jsonl#100", r"--dataset trian\.jsonl does not exist"),
    ],
)
def test_a_dataset_that_is_not_there(parse, dataset, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(SftArguments, "--model", "sap2-tiny", "--output_dir", "out", "--dataset", dataset)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message.replace("--dataset", "--val_dataset")):
        parse(InferArguments, "--model", "sap2-tiny", "--val_dataset", dataset)


@pytest.mark.parametrize("dataset", ["train.jsonl", "train.jsonl#1", "modelscope/some-set", "hf::a/b.json"])
def test_what_may_be_a_dataset(parse, dataset):
    args = parse(SftArguments, "--model", "sap2-tiny", "--output_dir", "out", "--dataset", dataset)
    assert args.dataset == [dataset]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "sap2_tiny"], r"there is no model sap2_tiny \(did you mean sap2-tiny\?\); allowed: a folder"),
        (["--model", "./nothere"], r"\./nothere does not exist; allowed: a folder, a hub name, or sap2-tiny"),
        (["--model", "sap2-tiny", "--adapters", "./sap2-tiny-asr"], r"did you mean sap2-tiny-asr\?"),
        (["--model", "sap2-tiny", "--adapters", "sap2-tiny-asrr"], r"did you mean sap2-tiny-asr\?"),
        (["--model", "sap2-tiny-asr"], r"--model sap2-tiny-asr is an adapter; allowed: --adapters sap2-tiny-asr"),
        (["--adapters", "sap2-tiny"], r"--adapters sap2-tiny is a whole model; allowed: --model sap2-tiny"),
    ],
)
def test_a_model_that_is_not_there(parse, flags, message):
    with pytest.raises(InputError, match=message):
        parse(InferArguments, *flags)


def test_whoever_asks_for_a_checkpoint_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"did you mean sap2-tiny-prune\?"):
        safe_snapshot_download("sap2-tiny-prun")
    assert safe_snapshot_download("sap2-tiny") == str(FOLDER / "sap2-tiny")


def test_no_hub_is_asked_about_what_is_here(parse, tiny):
    for model in ("sap2-tiny", str(tiny)):
        args = parse(SftArguments, "--model", model, "--output_dir", "out", "--dataset", "train.jsonl")
        assert args.check_model is False and args.training_args.check_model is False


def test_is_here(tmp_path):
    assert is_here("sap2-tiny") and is_here(str(tmp_path))
    assert not is_here("Qwen/Qwen2-Audio-7B-Instruct") and not is_here(None)


@pytest.mark.parametrize("command", [ExportArguments, InferArguments])
def test_nothing_is_written_into_the_package(parse, command, tmp_path):
    args = parse(command, "--adapters", "sap2-tiny-asr", "--merge_lora", "true")
    assert args.output_dir == str(tmp_path / "sap2-tiny-asr-merged")
    own = parse(command, "--adapters", "sap2-tiny-asr")
    assert getattr(own, "output_dir", None) is None


def test_results_go_to_the_current_folder(parse, tmp_path):
    args = parse(InferArguments, "--adapters", "sap2-tiny-asr", "--val_dataset", "train.jsonl")
    assert args.result_path.startswith(str(tmp_path / "sap2-tiny-asr" / "infer_result"))


def test_a_checkpoint_of_ones_own_keeps_its_folder(parse, tmp_path):
    own = tmp_path / "checkpoint-1"
    own.mkdir()
    for path in (FOLDER / "sap2-tiny-asr").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    args = parse(ExportArguments, "--adapters", str(own), "--merge_lora", "true")
    assert args.output_dir == f"{own}-merged"
