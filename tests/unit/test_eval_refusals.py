"""What the scorer refuses, with the line that names it, and what --lenient lets pass."""

from __future__ import annotations

import re

import pytest
from commands import sap2
from scoring import kaldi, row, run, worked_example, write

from sap2.scoring.command import NOT_ALL_SCORED


@pytest.fixture
def worked(tmp_path):
    return worked_example(tmp_path)


@pytest.mark.parametrize(
    ("name", "lines", "problem"),
    [
        ("hyp", ["id1 NI"], r"missing hypothesis \(hyp\): 1: id2"),
        ("hyp", ["id1 NI", "id2 NI", "id3 NI", "id4"], r"extra hypothesis \(hyp\): 2: id3, id4"),
        ("hyp", ["id1 NI", "id2 NI", "id1 HAO"], r"repeated id in .*hyp: 1: id1"),
        ("ref", ["id1 NI", "id2"], r"empty reference: 1: id2"),
        ("ocr", ["id1 NI"], r"no keyword list in .*ocr: 1: id2"),
        ("utt2spk", ["id1 talk", "id2"], r"no session in .*utt2spk: 1: id2"),
    ],
)
def test_what_does_not_fit_is_refused_and_counted_if_lenient(worked, capsys, name, lines, problem):
    write(worked / name, *lines)
    code, report = kaldi(worked, "--utt2session", worked / "utt2spk")
    assert (code, report) == (2, {})
    error = capsys.readouterr().err
    assert error.startswith("sap2: error: ") and error.count("\n") == 1
    assert re.search(problem, error)
    code, report = kaldi(worked, "--utt2session", worked / "utt2spk", "--lenient")
    printed = capsys.readouterr().out
    assert code == NOT_ALL_SCORED
    assert re.search(problem, printed)
    assert list(report["problems"].values())


def test_lenient_keeps_the_last_of_repeated_ids_and_leaves_out_what_is_missing(worked):
    write(worked / "hyp", "id1 WRONG", "id1 NI HAO WO MEN NI HAO")
    _, report = kaldi(worked, "--lenient")
    assert report["utterances"] == 1
    assert report["systems"]["hyp"]["wer"] == {"error_rate": 0.0, "ref_words": 6, "subs": 0, "ins": 0, "dels": 0}


def test_lenient_scores_insertions_against_an_empty_reference(worked):
    write(worked / "ref", "id1 NI HAO WO MEN NI HAO", "id2")
    _, report = kaldi(worked, "--lenient")
    assert report["systems"]["hyp"]["wer"]["ins"] == 4


def test_nothing_left_is_an_error(worked, capsys):
    write(worked / "hyp", "id3 x")
    assert kaldi(worked, "--lenient")[0] == 2
    assert "nothing to score: missing hypothesis (hyp): 2: id1, id2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"response": "a", "labels": "a"}', r"r.jsonl:1: the row has neither an id nor an audio path"),
        ('{"response": ["a"], "labels": "a", "id": "u"}', r"r.jsonl:1: response must be a text, not \"\['a'\]\""),
        ('{"response": "a", "labels": 3, "id": "u"}', r"r.jsonl:1: labels must be a text, not '3'"),
        ("[1]", r"r.jsonl:1: not a JSON object"),
        ('{"response"', r"r.jsonl:1: not JSON"),
        (row("a", "a", "<|startofcontext|>", id="u"), r"r.jsonl:1: <\|startofcontext\|> at character \d+ inside"),
        ('{"response": "a", "labels": null, "id": "u"}', r"no labels \(hyp\): 1: u"),
        ('{"response": null, "labels": "a", "id": "u"}', r"missing hypothesis \(hyp\): 1: u"),
        ("", r"nothing to score: the input has no utterance"),
    ],
)
def test_bad_rows_are_named(tmp_path, capsys, content, error):
    write(tmp_path / "r.jsonl", content)
    assert run(tmp_path, "--input_file", tmp_path / "r.jsonl")[0] == 2
    assert re.search(error, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("u\ttext", "ref.tsv:1: 2 columns; a line is: id"),
        ("u\ttext\towl", "ref.tsv:1: column 3: 'owl' is not a JSON list"),
        ('u\ttext\t["owl"]\t{"a": 1}', "ref.tsv:1: column 4:"),
    ],
)
def test_bad_biasing_list_is_named(tmp_path, capsys, line, error):
    write(tmp_path / "ref.tsv", line)
    write(tmp_path / "hyp.tsv", "u\ttext")
    assert run(tmp_path, "--biasing_tsv", tmp_path / "ref.tsv", "--hyp", tmp_path / "hyp.tsv")[0] == 2
    assert error in capsys.readouterr().err


def test_bytes_that_are_no_text_are_named(worked, capsys):
    (worked / "hyp").write_bytes(b"id1 NI\nid2 \xff\n")
    assert kaldi(worked)[0] == 2
    assert "hyp:2: not UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ([], "give result files, --transcript, --ref or --biasing-tsv"),
        (["--ref", "r"], "--ref needs --hyp"),
        (["--ref", "r", "--biasing_tsv", "t", "--hyp", "h"], "not 2"),
        (["--input_file", "a", "--hyp", "h"], "--hyp goes with --ref or --biasing-tsv"),
        (["--input_file", "a", "b"], "two systems are called 'hyp'"),
        (["--input_file", "=a"], "expected FILE or NAME=FILE"),
        (["--input_file", "a", "--bootstrap", "0"], "'0' is not a whole number from 1"),
        (["--input_file", "a", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["--input_file", "a", "--definition", "sclite"], "invalid choice: 'sclite'"),
    ],
)
def test_wrong_command_lines(args, error, capsys):
    assert sap2("score", *args) == 2
    assert error in capsys.readouterr().err


def test_systems_must_have_the_same_references(tmp_path, capsys):
    write(tmp_path / "a.jsonl", row("x", "one two", "one", id="u1"))
    write(tmp_path / "b.jsonl", row("x", "one three", "two", id="u1"))
    files = [f"{name}={tmp_path / name}.jsonl" for name in "ab"]
    assert run(tmp_path, "--input_file", *files)[0] == 2
    assert "reference of b differs from the first system's: 1: u1" in capsys.readouterr().err


def test_a_result_file_that_was_added_to_is_explained(tmp_path, capsys):
    write(tmp_path / "r.jsonl", *[row("a", "a", id="u1")] * 2)
    assert sap2("score", tmp_path / "r.jsonl") == 2
    error = capsys.readouterr().err
    assert "repeated id in" in error and "swift infer adds to a result file that is there: delete the file" in error
