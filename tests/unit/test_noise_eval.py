"""The comparison under noise: its conditions, their audio, what is decoded, and the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import noise
import noise_report
import numpy as np
import pytest
import soundfile
from noise_report import CLEAN, Cell, Condition

from sap2.errors import InputError
from sap2.rowfiles import read_rows, write_rows


@pytest.fixture
def utterances(tmp_path, wavs):
    texts = ["hi guys i'm emily wozniak", "the wozniak machine hears two words", "short"]
    rows = [
        {"id": f"{talk}{n}", "session": talk, "audio": wavs[n], "text": texts[n], "keywords": [f"{talk}k", "wozniak"]}
        for talk in ("s", "t")
        for n in range(3)
    ]
    write_rows(tmp_path / "utterances.jsonl", rows)
    return tmp_path / "utterances.jsonl"


def settings(utterances, output, **more):
    chosen = {"kinds": ("noise", "room"), "distances": (10, 0), "ways": ("spot", "whole", "long"), "per_talk": 2}
    adapters = {"shipped": "sap2-tiny-asr"}
    Path(output).mkdir(exist_ok=True)
    return noise.Settings(utterances, output, "sap2-tiny", adapters, noise_dir=None, batch_size=4, **{**chosen, **more})


def test_conditions_and_cells(utterances, tmp_path):
    planned = list(noise.cells(settings(utterances, tmp_path)))
    names = [condition.name for condition in noise.conditions(settings(utterances, tmp_path))]
    assert names == ["clean", "noise-10", "noise-0", "room"]
    assert [cell.condition.name for cell in planned if cell.way == "long"] == ["clean", "noise-10"]
    assert len(planned) == 4 + 4 + 2 and planned[0].name == "shipped.clean.spot"


def test_the_audio_of_a_condition(utterances, tmp_path, wavs):
    chosen = settings(utterances, tmp_path / "out")
    rows = noise.prepare(chosen)
    assert [row["id"] for row in rows] == ["s0", "s1", "t0", "t1"]
    own = [row for _, row in read_rows(tmp_path / "out" / "noise-10.own.jsonl")]
    clean, noisy = soundfile.read(wavs[1])[0], soundfile.read(own[1]["audio"])[0]
    clean = clean * (np.dot(clean, noisy) / np.dot(clean, clean))  # a loud outcome is made quieter
    assert 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2)) == pytest.approx(10, abs=0.5)
    made = Path(own[1]["audio"]).stat().st_mtime_ns
    noise.prepare(chosen)
    assert Path(own[1]["audio"]).stat().st_mtime_ns == made, "what is there is not made again"
    noise.prepare(dataclasses.replace(chosen, seed=1))
    other = soundfile.read(next(read_rows(tmp_path / "out" / "noise-10.own.jsonl"))[1]["audio"])[0]
    assert not np.array_equal(other, soundfile.read(own[0]["audio"])[0]), "another seed is other noise"
    long = [row for _, row in read_rows(tmp_path / "out" / "clean.long.jsonl")]
    assert {"sk", "tk", "wozniak"} == set(long[0]["keywords"]) and long[0]["audio"] == wavs[0]


def test_a_run_decodes_and_reports(utterances, tmp_path, capsys):
    flags = ["--kinds", "noise", "--distances", "10", "--ways", "spot", "--per-talk", "1", "--batch-size", "4"]
    output = tmp_path / "out"
    assert noise.main([str(utterances), str(output), *flags]) == 0
    table = (output / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [line[:3] for line in lines] == [["clean", "shipped", "spot"], ["noise, 10 dB", "shipped", "spot"]]
    found = json.loads((output / "figures.json").read_text())
    assert found["utterances"] == 2 and set(found["cells"]) == {"shipped.clean.spot", "shipped.noise-10.spot"}
    for cell in found["cells"].values():
        assert cell["rates"]["wer"][0] >= 0 and 0 < cell["letters"] < 200
    assert (output / "plot.png").stat().st_size > 1000


def test_one_talk_has_no_other(utterances, tmp_path):
    write_rows(tmp_path / "one.jsonl", [row for _, row in read_rows(utterances)][:2])
    with pytest.raises(InputError, match="holds 1 talks; allowed: 2 or more"):
        noise.prepare(settings(tmp_path / "one.jsonl", tmp_path / "out"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adapter", "shipped"], "--adapter 'shipped'; allowed: NAME=DIR"),
        (["--adapter", "=x"], "allowed: NAME=DIR"),
        (["--kinds", "rain"], "--kinds is 'rain'; allowed: noise, babble"),
    ],
)
def test_bad_options(utterances, tmp_path, capsys, flags, message):
    assert noise.main([str(utterances), str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_names_for_people():
    assert CLEAN.title == "clean" and Condition("babble", 5).title == "babble, 5 dB"
    assert Cell(Condition("room", None), "a", "spot").name == "a.room.spot"
    assert noise_report.RANK == "recall at 10"
