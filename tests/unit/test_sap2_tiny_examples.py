"""How sap2-tiny is trained beyond ``swift sft``: its tower on noise, and its spotter alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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


@pytest.mark.parametrize("noise", [[], ["--loud"]])
def test_the_tower_alone_learns_and_goes_on_where_it_was(examples, utterances, tmp_path, monkeypatch, noise):
    import tower

    monkeypatch.setattr(tower, "SAVE_STEPS", 2)
    arguments = [
        "sap2-tiny",
        utterances,
        str(tmp_path / "model"),
        "--adapter",
        "sap2-tiny-asr",
        "--workers",
        "0",
        *noise,
    ]
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


def adapter(folder: Path, **tensors: float) -> Path:
    folder.mkdir()
    save_file({name: torch.full((2,), value) for name, value in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "elsewhere"}')
    (folder / "args.json").write_text('{"model_type": "sap_qwen2_audio", "output_dir": "of this machine"}')
    return folder


def test_the_mean_of_adapters_is_exported(examples, tmp_path, capsys):
    import export

    first, second = adapter(tmp_path / "1", a=1.0, b=0.5), adapter(tmp_path / "2", a=2.0, b=0.5)
    assert export.main([str(first), str(second), str(tmp_path / "mean")]) == 0
    mean = load_file(tmp_path / "mean" / "adapter_model.safetensors")
    assert mean["a"].tolist() == [1.5, 1.5] and mean["b"].tolist() == [0.5, 0.5] and mean["a"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "mean" / "adapter_config.json").read_text())["base_model_name_or_path"] == "sap2-tiny"
    assert "of this machine" not in (tmp_path / "mean" / "args.json").read_text()

    other = adapter(tmp_path / "3", a=1.0)
    assert export.main([str(first), str(other), str(tmp_path / "no")]) == 2
    assert f"{other} has other tensors than {first}" in capsys.readouterr().err
    assert export.main([str(first), str(MODEL), str(tmp_path / "no")]) == 2
    assert f"{MODEL} is no adapter" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
