"""How sap2-tiny is trained beyond ``swift sft``: its tower on noise, and its spotter alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sap2.rowfiles import write_rows
from sap2.shipped import resolve_name

FOLDER = Path(__file__).parents[2] / "examples" / "sap2_tiny"
MODEL, ADAPTER = Path(resolve_name("sap2-tiny")), Path(resolve_name("sap2-tiny-asr"))


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def utterances(tmp_path, wavs):
    texts = ["hi guys i'm emily wozniak", "the wozniak machine hears two words", "short"]
    rows = [{"id": str(n), "audio": wavs[n], "text": text} for n, text in enumerate(texts)]
    write_rows(tmp_path / "utterances.jsonl", rows)
    return str(tmp_path / "utterances.jsonl")


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors that are others, or new."""
    old, new = load_file(before), load_file(after)
    assert set(old) <= set(new)
    return {name for name, tensor in new.items() if name not in old or not torch.equal(old[name], tensor)}


def test_the_tower_alone_learns_and_goes_on_where_it_was(examples, utterances, tmp_path, monkeypatch, capsys):
    import tower

    monkeypatch.setattr(tower, "SAVE_STEPS", 2)
    arguments = ["sap2-tiny", utterances, str(tmp_path / "model"), "--adapter", "sap2-tiny-asr", "--workers", "0"]
    monkeypatch.setattr(tower, "save", lambda *args: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        tower.main([*arguments, "--steps", "2"])
    assert torch.load(tmp_path / "model.state", weights_only=True)["done"] == 2
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(FOLDER))
    steps = []
    step = tower.Training.step
    monkeypatch.setattr(tower.Training, "step", lambda self, loss: (steps.append(loss.item()), step(self, loss))[1])
    assert tower.main([*arguments, "--steps", "5"]) == 0
    assert len(steps) == 3 and all(0 < loss < 100 for loss in steps)
    names = changed(MODEL / "model.safetensors", tmp_path / "model" / "model.safetensors")
    assert names and all(".audio_tower." in f".{name}" and "embed_positions" not in name for name in names)
    assert not (tmp_path / "model.state").exists()


@pytest.mark.parametrize("noise", [[], ["--noise"]])
def test_the_spotter_alone_learns(examples, utterances, tmp_path, noise):
    import spotter

    arguments = ["sap2-tiny", utterances, str(tmp_path / "adapter"), "--adapter", "sap2-tiny-asr", "--steps", "2"]
    assert spotter.main([*arguments, *noise]) == 0
    names = changed(ADAPTER / "adapter_model.safetensors", tmp_path / "adapter" / "adapter_model.safetensors")
    assert names and all(".spotter." in name for name in names)
    assert "around" in json.dumps(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()))
