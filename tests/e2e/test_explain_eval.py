"""``eval/explain.py`` from utterances to tables, on the shipped model."""

from __future__ import annotations

import explain as command
import pytest
import soundfile

from sap2.rowfiles import read_rows, write_rows
from sap2.tiny.speech import speak

SMALL = ("--per-talk", "1", "--masks", "12", "--gradient-steps", "1", "--batch-size", "16")


@pytest.fixture
def utterances(tmp_path):
    rows = []
    for number, text in enumerate(("now zolden makes the teacher", "please look at droldol now")):
        soundfile.write(tmp_path / f"{number}.wav", speak(text), 16_000)
        audio = {"id": str(number), "audio": str(tmp_path / f"{number}.wav"), "text": text}
        rows.append({**audio, "keywords": ["zolden", "droldol", "krapix"], "session": f"talk{number}"})
    write_rows(tmp_path / "two.jsonl", rows)
    write_rows(tmp_path / "one.jsonl", rows[:1])
    return tmp_path


def test_from_utterances_to_tables(utterances, capsys):
    arguments = [str(utterances / "two.jsonl"), str(utterances / "out"), *SMALL]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 utterances of 2 talks, ") and "| attention, layer 4 |" in printed
    assert (utterances / "out" / "plot.png").exists()
    measured = [row for _, row in read_rows(utterances / "out" / "figures.jsonl")]
    assert [row["session"] for row in measured] == ["talk0", "talk1"]
    for row in measured:
        assert len(row["words"]) == len(row["text"].split()) and row["lists"]["pairs"]
        assert {"silenced", "attention", "gradients", "spotter", "random"} <= set(row["words"][0]["died"])
    assert command.main(arguments) == 0
    assert capsys.readouterr().out == printed, "a run goes on where it was stopped: nothing is measured again"


def test_one_talk_is_too_few(utterances, capsys):
    assert command.main([str(utterances / "one.jsonl"), str(utterances / "out"), *SMALL]) == 2
    assert "one.jsonl holds 1 talks; allowed: 2 or more" in capsys.readouterr().err
