"""Whole talks are scored without times: transcripts of sap2 transcribe against a text."""

from __future__ import annotations

import json

import pytest
from commands import sap2
from scoring import write


def score(folder, *arguments):
    out = folder / "out.json"
    code = sap2("score", *arguments, "--json", out)
    return json.loads(out.read_text())["systems"]["transcript"] if code == 0 else code


def test_parts_of_one_talk(tmp_path):
    write(tmp_path / "part1.json", json.dumps({"text": "now emily speaks", "segments": []}))
    write(tmp_path / "part2.srt", "1", "00:00:01,000 --> 00:00:02,000", "about was", "", "2",
          "00:00:02,000 --> 00:00:03,000", "and machines")  # fmt: skip
    write(tmp_path / "talk.txt", "Now Emily speaks", "about Wozniak and machines")
    write(tmp_path / "list.txt", "Emily", "Wozniak", "Turing")
    parts = ("--transcript", tmp_path / "part1.json", tmp_path / "part2.srt")
    found = score(tmp_path, *parts, "--reference", tmp_path / "talk.txt", "--keywords", tmp_path / "list.txt")
    assert (found["wer"]["ref_words"], found["wer"]["subs"], found["wer"]["ins"], found["wer"]["dels"]) == (7, 1, 0, 0)
    assert (found["b_wer"]["ref_words"], found["b_wer"]["subs"], found["keywords"]["recall"]) == (2, 1, 50.0)


def test_a_reference_for_each_talk_by_name(tmp_path):
    for name, text in (("a", "one two"), ("b", "three four")):
        write(tmp_path / f"{name}.txt", text)
        (tmp_path / "refs").mkdir(exist_ok=True)
        write(tmp_path / "refs" / f"{name}.txt", text)
    refs = ("--reference", tmp_path / "refs" / "b.txt", tmp_path / "refs" / "a.txt")
    assert score(tmp_path, "--transcript", tmp_path / "a.txt", tmp_path / "b.txt", *refs)["wer"]["error_rate"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transcript", "a.txt"], "--transcript and --reference go together"),
        (
            ["--transcript", "a.txt", "a.txt", "a.txt", "--reference", "a.txt", "a.txt"],
            "3 transcripts and 2 references",
        ),
        (["--transcript", "bad.json", "--reference", "a.txt"], "bad.json: no transcript; allowed: .json of sap2"),
        (["--transcript", "a.txt", "--reference", "a.txt", "--hyp", "a.txt"], "--hyp goes with --ref"),
        (["--transcript", "absent.txt", "--reference", "a.txt"], "absent.txt: No such file"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", "one")
    write(tmp_path / "bad.json", "[]")
    assert sap2("score", *arguments) == 2
    assert message in capsys.readouterr().err
