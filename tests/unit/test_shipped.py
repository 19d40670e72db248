"""The checkpoints of the package: found by name, small, complete, without paths of a machine."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from sap2 import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor
from sap2.cli import main
from sap2.errors import InputError
from sap2.pipeline.loading import LoadedModel
from sap2.shipped import FOLDER, SHIPPED, resolve_name

ADAPTERS = sorted(name for name in SHIPPED if name != "sap2-tiny")


def test_names_become_folders_and_paths_stay(tmp_path, monkeypatch):
    assert resolve_name("sap2-tiny") == str(FOLDER / "sap2-tiny")
    assert resolve_name("Qwen/Qwen2-Audio-7B-Instruct") == "Qwen/Qwen2-Audio-7B-Instruct"
    assert resolve_name(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sap2-tiny").mkdir()
    assert resolve_name("sap2-tiny") == "sap2-tiny"  # a folder of the user's


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "sap2_tiny"], "there is no model sap2_tiny (did you mean sap2-tiny?)"),
        (["--model", "sap2-tiny", "--asr-adapter", "sap2-tiny-ars"], "sap2-tiny-ars (did you mean sap2-tiny-asr?)"),
        (["--model", "./nothere"], "./nothere does not exist; allowed: a folder, a hub name"),
        (["--model", "sap2-tiny-asr"], "--model sap2-tiny-asr is an adapter; allowed: a model"),
        (
            ["--model", "sap2-tiny", "--asr-adapter", "sap2-tiny"],
            "allowed: the folder of a LoRA checkpoint (a merged or fully trained model goes to --model",
        ),
    ],
)
def test_a_mistyped_or_misplaced_name_is_told(args, message, tmp_path, monkeypatch, capsys):
    """Before any hub is asked."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    soundfile.write(tmp_path / "a.wav", np.ones(16_000) * 0.1, 16_000)
    assert main(["transcribe", str(tmp_path / "a.wav"), "--keywords", "emily", *args]) == 2
    assert message in capsys.readouterr().err


def test_the_check_and_python_know_mistyped_names_too(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert main(["data", "check", str(tmp_path / "rows.jsonl"), "--model", "sap2_tiny"]) == 2
    assert "did you mean sap2-tiny?" in capsys.readouterr().err
    for loader in (SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor):
        with pytest.raises(InputError, match=r"did you mean sap2-tiny\?"):
            loader.from_pretrained("sap2_tiny")


def test_the_command_prints_the_folder(capsys):
    assert main(["path"]) == 0
    assert capsys.readouterr().out.strip() == str(FOLDER / "sap2-tiny")
    assert main(["path", "sap2-tiny-asr"]) == 0
    assert capsys.readouterr().out.strip() == str(FOLDER / "sap2-tiny-asr")


def test_all_together_are_small():
    assert sorted(folder.name for folder in FOLDER.iterdir()) == sorted(SHIPPED)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 12e6


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_bfloat16_and_nothing_names_a_machine(name):
    (weights,) = (FOLDER / name).glob("*.safetensors")
    with safe_open(weights, "pt") as stored:
        assert {stored.get_tensor(key).dtype for key in stored.keys()} == {torch.bfloat16}  # noqa: SIM118
        assert stored.metadata() == {"format": "pt"}
    for path in (FOLDER / name).glob("*onfig.json"):
        assert not [line for line in path.read_text().splitlines() if '"/' in line], path


def test_the_base_is_a_plain_qwen2_audio():
    config = json.loads((FOLDER / "sap2-tiny" / "config.json").read_text())
    assert config["model_type"] == "qwen2_audio" and not [key for key in config if key.startswith("sap_")]


def test_adapters_name_their_base():
    for name in ADAPTERS:
        config = json.loads((FOLDER / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "sap2-tiny"
        args = json.loads((FOLDER / name / "args.json").read_text())
        assert (args["model"], args["model_type"], args["tuner_type"]) == ("sap2-tiny", "sap_qwen2_audio", "lora")


def test_base_and_adapters_load_together():
    loaded = LoadedModel("sap2-tiny", {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"}, "cpu")
    assert loaded.tower_shared
    assert next(loaded.model.parameters()).dtype == torch.float32
    for stage in ("prune", "asr"):
        with loaded.use(stage) as model:
            assert model.model.context_pooling.spotter.symbols.weight.any()  # trained


def test_ms_swift_knows_the_names_whoever_imported_its_function_before():
    code = """
import swift.utils.hub_utils as hub
from swift.utils import safe_snapshot_download as early
import swift.model, swift.arguments
print(early("sap2-tiny"), hub.safe_snapshot_download("sap2-tiny-asr"), sep="\\n")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert found.stdout.split()[-2:] == [str(FOLDER / "sap2-tiny"), str(FOLDER / "sap2-tiny-asr")]


def test_from_pretrained_takes_the_names():
    from sap2 import SAP2Qwen2AudioConfig, SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor

    assert SAP2Qwen2AudioForConditionalGeneration.from_pretrained("sap2-tiny").name_or_path == str(FOLDER / "sap2-tiny")
    config = SAP2Qwen2AudioConfig.from_pretrained("sap2-tiny")
    processor = SAP2Qwen2AudioProcessor.from_pretrained("sap2-tiny")
    assert processor.embedding_rows == config.text_config.vocab_size


def test_check_counts_tokens_of_the_names(tmp_path, capsys):
    from sap2 import cli

    messages = [{"role": "user", "content": "<audio>x"}, {"role": "assistant", "content": "hi"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages, "audios": ["a.wav"]}) + "\n")
    outputs = []
    for model in ("sap2-tiny", str(FOLDER / "sap2-tiny")):
        cli.main(["data", "check", str(tmp_path / "rows.jsonl"), "--model", model])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "token" in outputs[0]
