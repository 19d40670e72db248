"""A checkpoint whose spotter has learnt nothing: what needs one says so before anything is heard, the rest works."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import sap2
from safetensors.torch import load_file, save_file

from sap2 import Transcriber
from sap2.errors import InputError
from sap2.explain.explaining import explain
from sap2.explain.page import page_data
from sap2.explain.types import ExplainOptions
from sap2.shipped import resolve_name
from sap2.tiny.speech import speak


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """The shipped model with a spotter as it was before its training."""
    folder = shutil.copytree(resolve_name("sap2-tiny"), tmp_path_factory.mktemp("untrained") / "model")
    config = json.loads((folder / "config.json").read_text())
    settings = {"model_type": "sap_qwen2_audio", "sap_spotter": True, "sap_pooling": "attention", "sap_window_size": 1}
    (folder / "config.json").write_text(json.dumps(config | settings))
    weights = load_file(folder / "model.safetensors")
    silenced = {name: torch.zeros_like(tensor) for name, tensor in weights.items() if "spotter.symbols" in name}
    assert silenced
    save_file(weights | silenced, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def transcriber(untrained):
    return Transcriber(untrained, device="cpu")


def test_words_are_explained_without_times(transcriber):
    explanation = explain(
        transcriber, speak("we read the first page"), ["page", "wozniak"], options=ExplainOptions(masks=6, steps=0)
    )
    (segment,) = explanation.segments
    assert [word.text for word in segment.words] == explanation.text.split() and len(segment.words) > 2
    for word in segment.words:
        assert word.start is None and set(word.without) == {"page", "wozniak"} and np.abs(word.silenced).max() > 0
    assert all(keyword.salience is None and keyword.pooled is not None for keyword in segment.keywords)
    (shown,) = page_data(explanation)["segments"]
    assert not shown["timed"] and all(word[2] < word[3] for word in shown["words"])


def test_what_needs_the_spotter_says_so_first(transcriber, untrained, wavs, tmp_path, capsys):
    assert not transcriber.times_words
    refused = re.escape(
        f"needs a spotter, and {untrained} has none that is trained; allowed: a checkpoint trained with"
    )
    with pytest.raises(InputError, match=f"^word_timestamps {refused}"):
        transcriber.transcribe(np.zeros(32_000, np.float32), word_timestamps=True)
    assert sap2("transcribe", wavs[2], "--model", untrained, "--keywords", "bob", "--pruner", "spot") == 2
    assert re.search(rf"--pruner spot {refused}", capsys.readouterr().err)
    assert sap2("transcribe", wavs[2], "--model", untrained, "--format", "ctm") == 2
    assert re.search(rf"--format ctm {refused}", capsys.readouterr().err)
    output = tmp_path / "out.json"
    assert sap2("transcribe", wavs[2], "--model", untrained, "--word-timestamps", "--output", output) == 0
    assert "--word-timestamps: the model has no trained spotter" in capsys.readouterr().err
    assert '"start"' in output.read_text() and '"words"' not in output.read_text()
