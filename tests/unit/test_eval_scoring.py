"""slidespeech_wer.py as a whole: inputs of every kind, joins, what is refused, what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import sap2

from sap2.scoring.command import NOT_ALL_SCORED
from sap2.scoring.inputs import file_stem, match_ids

SCRIPT = Path(__file__).parents[2] / "eval" / "slidespeech_wer.py"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def row(response, labels, keywords="", **more) -> str:
    context = f"<|startofcontext|>{keywords}<|endofcontext|>"
    messages = [{"role": "user", "content": f"<audio>Transcribe.{context}"}, {"role": "assistant", "content": response}]
    return json.dumps({"response": response, "labels": labels, "logprobs": None, "messages": messages, **more})


@pytest.fixture
def worked(tmp_path):
    """The two utterances of the corpus authors' demonstration, in Kaldi style."""
    write(tmp_path / "ref", "id1 NI HAO WO MEN NI HAO", "id2 NI HAO WO MEN")
    write(tmp_path / "hyp", "id1 NI HAO WO MEN WO", "id2 NI HAO IO MEN")
    write(tmp_path / "ocr", "id1 HAO$MEN$OTHER", "id2 HAO$WO$OTHER")
    write(tmp_path / "utt2spk", "id1 talk", "id2 talk")
    return tmp_path


def run(folder: Path, *args: str) -> tuple[int, dict]:
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    code = sap2("score", *args, "--json", out, "--bootstrap", "50")
    return code, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


def kaldi(folder: Path, *more: str) -> tuple[int, dict]:
    return run(folder, "--ref", folder / "ref", "--hyp", folder / "hyp", "--keywords", folder / "ocr", *more)


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
        ("u\ttext", "ref.tsv:1: 2 tab separated columns"),
        ("u\ttext\towl", "ref.tsv:1: column 3: not a JSON list"),
        ('u\ttext\t["owl"]\t{"a": 1}', "ref.tsv:1: column 4: not a JSON list of texts"),
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
        ([], "give result files, --ref FILE or --biasing-tsv FILE"),
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
