"""slidespeech_wer.py as a whole: inputs of every kind, joins, what is refused, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scoring import kaldi, row, run, worked_example, write

from sap2.scoring.inputs import file_stem, match_ids

SCRIPT = Path(__file__).parents[2] / "eval" / "slidespeech_wer.py"


@pytest.fixture
def worked(tmp_path):
    return worked_example(tmp_path)


WORKED = {
    "wer": {"error_rate": 30.0, "ref_words": 10, "subs": 2, "ins": 0, "dels": 1},
    "u_wer": {"error_rate": 20.0, "ref_words": 5, "subs": 1, "ins": 0, "dels": 0},
    "b_wer": {"error_rate": 40.0, "ref_words": 5, "subs": 1, "ins": 0, "dels": 1},
    "keywords": {"tp": 3, "fp": 0, "fn": 2, "tn": 2, "recall": 60.0, "precision": 100.0, "f1": 75.0},
}


def test_worked_example(worked, capsys):
    code, report = kaldi(worked)
    assert code == 0
    assert report["systems"] == {"hyp": WORKED}
    assert report["definition"] == "slidespeech"
    printed = capsys.readouterr().out
    for line in (
        "hyp     WER      30.00         10     2    0     1",
        "hyp     U-WER    20.00          5     1    0     0",
        "hyp     B-WER    40.00          5     1    0     1",
        "hyp        60.00       100.00  75.00   3   0   2   2",
    ):
        assert line in printed


def test_worked_example_first_utterance_alone(worked):
    write(worked / "ref", "id1 NI HAO WO MEN NI HAO")
    write(worked / "hyp", "id1 NI HAO WO MEN WO")
    _, report = kaldi(worked)
    result = report["systems"]["hyp"]
    assert result["wer"] | {"error_rate": None} == {"error_rate": None, "ref_words": 6, "subs": 1, "ins": 0, "dels": 1}
    assert {key: result["keywords"][key] for key in ("tp", "tn", "fp", "fn")} == {"tp": 2, "tn": 1, "fp": 0, "fn": 1}


def test_worked_example_as_rows_in_any_order(tmp_path):
    write(
        tmp_path / "result.jsonl",
        row("ni hao io men", "NI HAO WO MEN", "HAO, WO, OTHER", audios=[{"bytes": None, "path": "/data/id2.wav"}]),
        row("Ni hao wo men wo", "NI HAO WO MEN NI HAO", "HAO, MEN, OTHER", audios=["/data/id1.wav"]),
    )
    code, report = run(tmp_path, "--input_file", tmp_path / "result.jsonl")
    assert (code, report["systems"]) == (0, {"hyp": WORKED})


def test_keyword_file_replaces_the_lists_of_the_rows_and_joins_by_stem(worked):
    write(
        worked / "result.jsonl",
        row("NI HAO WO MEN WO", "NI HAO WO MEN NI HAO", "WRONG", audios="/data/id1.wav"),
        row("NI HAO IO MEN", "NI HAO WO MEN", "WRONG", id="id2", audios=["/elsewhere/x.wav"]),
    )
    code, report = run(
        worked, "--input_file", f"sap2={worked / 'result.jsonl'}", "--keywords", worked / "ocr",
        "--utt2session", worked / "utt2spk",
    )  # fmt: skip
    assert (code, report["systems"]) == (0, {"sap2": WORKED})
    assert report["sessions"] == {"talk": {"sap2": WORKED}}


def test_librispeech_style(tmp_path):
    # the third column is the biased words; an inserted "owl" is biased although the reference has it once
    ref = ["a-1", "the owl sat", json.dumps(["owl"]), json.dumps(["mouse", "owl", "sat"])]
    write(tmp_path / "ref.tsv", "\t".join(ref), "\t".join(["a-2", "so it was", "[]", '["was"]']))
    write(tmp_path / "hyp.tsv", "a-2\tso it", "a-1\tthe owl owl Sat mouse")
    code, report = run(tmp_path, "--biasing_tsv", tmp_path / "ref.tsv", "--hyp", tmp_path / "hyp.tsv")
    result = report["systems"]["hyp"]
    assert code == 0 and report["definition"] == "librispeech"
    assert result["wer"] == {"error_rate": 400 / 6, "ref_words": 6, "subs": 1, "ins": 2, "dels": 1}
    assert result["b_wer"] == {"error_rate": 100.0, "ref_words": 1, "subs": 0, "ins": 1, "dels": 0}
    assert {key: result["keywords"][key] for key in ("tp", "fp", "fn", "tn")} == {"tp": 1, "fp": 2, "fn": 2, "tn": 0}


def test_librispeech_style_takes_rows_as_hypotheses(tmp_path):
    write(tmp_path / "ref.tsv", 'a-1\tthe owl\t["owl"]')
    write(tmp_path / "result.jsonl", row("the owl", None, audios=["/corpus/a-1.flac"]))
    code, report = run(tmp_path, "--biasing_tsv", tmp_path / "ref.tsv", "--hyp", tmp_path / "result.jsonl")
    assert code == 0 and report["systems"]["hyp"]["b_wer"]["error_rate"] == 0.0


def test_definition_can_be_chosen(worked):
    _, report = kaldi(worked, "--definition", "librispeech")
    assert report["definition"] == "librispeech"
    write(worked / "hyp", "id1 ni HAO WO MEN NI HAO", "id2 NI HAO WO MEN")
    _, report = kaldi(worked, "--definition", "librispeech")
    assert report["systems"]["hyp"]["wer"]["subs"] == 1  # case counts there
    _, report = kaldi(worked)
    assert report["systems"]["hyp"]["wer"]["subs"] == 0


def test_multi_word_entries_count_by_word(tmp_path):
    write(tmp_path / "ref", "u met steve wozniak")
    write(tmp_path / "hyp", "u met steve woz")
    write(tmp_path / "ocr", "u Steve Wozniak$emily")
    _, report = kaldi(tmp_path)
    assert report["systems"]["hyp"]["b_wer"] == {"error_rate": 50.0, "ref_words": 2, "subs": 1, "ins": 0, "dels": 0}
    assert report["systems"]["hyp"]["keywords"]["tn"] == 1


def test_normalize_and_char(tmp_path):
    write(tmp_path / "ref", "u1 Mr. Turing's colour", "u2 我们用 GPU 训练")
    write(tmp_path / "hyp", "u1 mister turing's color", "u2 我们用gpu训连")
    write(tmp_path / "ocr", "u1 Turing's", "u2 训练$GPU")
    _, report = kaldi(tmp_path, "--normalize", "whisper-en")
    assert report["systems"]["hyp"]["wer"]["subs"] == 1  # only the Chinese, which is three words against one
    _, report = kaldi(tmp_path, "--char")
    # 3 words with 2 wrong, and 6 characters and words with 1 wrong
    assert report["systems"]["hyp"]["wer"] | {"error_rate": 0} == {
        "error_rate": 0, "ref_words": 9, "subs": 3, "ins": 0, "dels": 0,
    }  # fmt: skip
    assert report["systems"]["hyp"]["keywords"]["tp"] == 3


def test_joint_replies(tmp_path, capsys):
    good = "Selected keywords are: emily.\nTranscription: hi i'm emily"
    write(
        tmp_path / "r.jsonl",
        row(good, good, "emily", id="u1"),
        row("Transcription: hello world", "Selected keywords are: none.\nTranscription: hello world", "emily", id="u2"),
        row("I cannot do that", "Selected keywords are: none.\nTranscription: good day", "emily", id="u3"),
    )
    code, report = run(tmp_path, "--input_file", tmp_path / "r.jsonl")
    assert code == 0
    assert report["systems"]["hyp"]["wer"] == {
        "error_rate": 200 / 7, "ref_words": 7, "subs": 0, "ins": 0, "dels": 2,
    }  # fmt: skip
    assert report["unparsed"] == {"hyp": ["u3"]}
    assert "joint reply without transcription (hyp), counted as empty: 1: u3" in capsys.readouterr().out


def test_plain_reply_that_looks_joint_can_be_kept(tmp_path):
    write(tmp_path / "r.jsonl", row("Transcription: is hard", "Transcription: is hard", id="u1"))
    _, report = run(tmp_path, "--input_file", tmp_path / "r.jsonl")
    assert report["systems"]["hyp"]["wer"]["ref_words"] == 2
    _, report = run(tmp_path, "--input_file", tmp_path / "r.jsonl", "--reply", "plain")
    assert report["systems"]["hyp"]["wer"]["ref_words"] == 3


def test_undefined_rates_are_named(tmp_path, capsys):
    write(tmp_path / "r.jsonl", row("hello you", "hello world", id="u1"))
    code, report = run(tmp_path, "--input_file", tmp_path / "r.jsonl")
    result = report["systems"]["hyp"]
    assert code == 0 and result["b_wer"]["error_rate"] is None and result["keywords"]["recall"] is None
    assert "hyp     B-WER      n/a          0     0    0     0" in capsys.readouterr().out


def test_systems_are_scored_on_the_lists_of_all(tmp_path, capsys):
    write(tmp_path / "a.jsonl", row("one too", "one two", "", id="u1"))
    write(tmp_path / "b.jsonl", row("one two", "one two", "two", audios=["/x/u1.wav"]))
    code, report = run(tmp_path, "--input_file", *[f"{name}={tmp_path / name}.jsonl" for name in "ab"])
    assert code == 0
    assert [report["systems"][name]["b_wer"]["error_rate"] for name in "ab"] == [100.0, 0.0]
    assert "1 utterances have another keyword list in b" in capsys.readouterr().out


def test_by_session(worked, capsys):
    write(worked / "utt2spk", "id1 talk1", "id2 talk2")
    _, report = kaldi(worked, "--utt2session", worked / "utt2spk", "--by_session")
    assert [report["sessions"][name]["hyp"]["wer"]["ref_words"] for name in ("talk1", "talk2")] == [6, 4]
    printed = capsys.readouterr().out
    assert printed.index("session talk1") < printed.index("session talk2")
    assert kaldi(worked, "--by_session")[0] == 2
    assert "no session is known" in capsys.readouterr().err


def test_replies_can_be_anything(tmp_path, capsys):
    wild = "\x1b[31m\x00 tab\there \u202e <|im_end|> </script> \ud800 " + "word " * 20000
    write(tmp_path / "r.jsonl", row(wild, "hello", "hello", id="u\x1b[2J"), row("", "hello", id="u2"))
    more = ["--tsv", tmp_path / "o.tsv", "--html", tmp_path / "o.html", "--lenient"]
    code, report = run(tmp_path, "--input_file", tmp_path / "r.jsonl", *more)
    assert code == 0 and report["systems"]["hyp"]["wer"]["ins"] > 20000
    table = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert [len(cells) for cells in table] == [len(table[0])] * 3
    assert table[1][0] == "u\\x1b[2J" and "\x1b" not in (tmp_path / "o.tsv").read_text()
    assert "\x1b" not in capsys.readouterr().out


def test_utterance_table(worked):
    kaldi(worked, "--tsv", str(worked / "o.tsv"), "--utt2session", worked / "utt2spk")
    header, *rows = [line.split("\t") for line in (worked / "o.tsv").read_text().splitlines()]
    first = dict(zip(header, rows[0], strict=True))
    assert len(rows) == 2 and first["id"] == "id1" and first["session"] == "talk" and first["system"] == "hyp"
    assert (first["wer"], first["b_dels"], first["tp"], first["fn"]) == ("33.33", "1", "2", "1")
    assert (first["ref"], first["hyp"]) == ("NI HAO WO MEN NI HAO", "NI HAO WO MEN WO")


def test_output_that_cannot_be_written_is_one_line(worked, capsys):
    assert kaldi(worked, "--tsv", worked / "hyp" / "o.tsv")[0] == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_from_anywhere_as_a_script(worked):
    args = ["--ref", "ref", "--hyp", "hyp", "--keywords", "ocr"]
    done = subprocess.run([sys.executable, SCRIPT, *args], cwd=worked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "B-WER    40.00" in done.stdout


def test_match_ids_refuses_to_guess():
    assert match_ids(["/a/u.wav"], ["u"]) == {"/a/u.wav": "u"}
    assert match_ids(["u"], ["/a/u.wav"]) == {"u": "/a/u.wav"}
    assert match_ids(["/a/u.wav", "/b/u.wav"], ["u"]) == {}
    assert match_ids(["u"], ["/a/u.wav", "/b/u.wav"]) == {}
    assert match_ids(["/a/u.wav", "u"], ["u"]) == {"u": "u"}


def test_file_stem_cuts_only_audio_suffixes():
    assert [file_stem(text) for text in ("/a/b.c.FLAC", "talk1.0001", r"C:\x\y.wav", "u")] == [
        "b.c", "talk1.0001", "y", "u",
    ]  # fmt: skip
