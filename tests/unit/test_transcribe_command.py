"""``sap2 transcribe``: what it writes and where."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from commands import sap2

from sap2.commands import transcribe
from sap2.commands.transcribe import write_or_print
from sap2.pipeline.types import Segment, Transcript
from sap2.rowfiles import read_rows
from sap2.slides.manifest import read_manifest


@pytest.fixture
def talks(wavs, tmp_path):
    """Two recordings."""
    return [shutil.copy(wav, tmp_path / f"talk {number}.wav") for number, wav in enumerate(wavs[:2])]


@pytest.fixture
def heard(monkeypatch):
    """A transcriber that says the same of every recording, one segment a keyword; the requests that it got."""
    requests = []

    class Said:
        bank = None

        def transcribe(self, asked):
            for request in asked:
                requests.append(request)
                words = [*request.keywords, "hi"]
                segments = [Segment(n, n + 0.5, word, 1, [], [], 1, {"asr": 0.1}, []) for n, word in enumerate(words)]
                yield Transcript.from_segments(str(request.audio), segments, 2.0)

    monkeypatch.setattr(transcribe, "load_transcriber", lambda args: contextlib.nullcontext(Said()))
    return requests


def run(*arguments):
    return sap2("transcribe", *arguments, "--model", "/no/model")


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(tmp_path, talks, capsys):
    assert run(talks[0], "--output", tmp_path) == 2
    assert f"{tmp_path} is a folder; allowed: the name of a file" in capsys.readouterr().err


def test_a_text_that_cannot_be_written_is_printed(capsys):
    with pytest.raises(OSError):
        write_or_print("/dev/full", "hi emily\n")
    printed = capsys.readouterr()
    assert printed.out == "hi emily\n"
    assert printed.err == "/dev/full could not be written; this is its text:\n"


@pytest.mark.parametrize(
    ("name", "begin"), [("a.srt", "1\n00:"), ("a.VTT", "WEBVTT"), ("a.json", "{"), ("a.txt", "hi")]
)
def test_the_suffix_of_the_output_is_its_format(heard, talks, tmp_path, name, begin):
    assert run(talks[0], "--output", tmp_path / name) == 0
    assert (tmp_path / name).read_text().startswith(begin)


def test_the_format_may_be_said_where_no_suffix_says_it(heard, talks, tmp_path, capsys):
    assert run(talks[0], "--output", "-", "--format", "vtt") == 0
    assert capsys.readouterr().out.startswith("WEBVTT")
    assert run(talks[0]) == 0
    assert capsys.readouterr().out == "hi\n"
    assert run(talks[0], "--output", tmp_path / "notes", "--format", "txt") == 0
    assert (tmp_path / "notes").read_text() == "hi\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{0}", "--output", "talk.doc"],
            "allowed: a name that ends with .txt, .json, .srt, .vtt, .ctm, or --format",
        ),
        (["{0}", "--output", "a.srt", "--format", "vtt"], "a.srt and --format vtt contradict each other"),
        (["{0}", "{1}", "--output", "a.srt"], "--output is for one recording; allowed for several: --output-dir"),
        (["{0}", "{1}"], "2 recordings need --output-dir DIR, or --rows FILE"),
        (["{0}", "{0}", "--output-dir", "out"], "have the same name; allowed: recordings of different names"),
        (["{0}", "--rows", "a.txt"], "the name of a row file ends with .jsonl, .json, .parquet"),
        (["{0}", "--max-cue-seconds", "0"], "--max-cue-seconds 0: allowed: above 0"),
        (["{0}", "gone.mp4", "--output-dir", "out"], "gone.mp4 does not exist"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_the_model_is_loaded(talks, capsys, arguments, message):
    assert run(*(argument.format(*talks) for argument in arguments)) == 2
    assert message in capsys.readouterr().err


def test_several_recordings_have_a_file_each_and_rows(heard, talks, tmp_path, capsys):
    out, rows = tmp_path / "out", tmp_path / "rows.jsonl"
    given = ["--keywords", "zolden", "--output-dir", out, "--rows", rows, "--format", "json"]
    assert run(*talks, *given) == 0
    assert [request.keywords for request in heard] == [["zolden"]] * 2  # one word is a keyword
    assert sorted(path.name for path in out.iterdir()) == ["talk 0.json", "talk 1.json"]
    assert json.loads((out / "talk 1.json").read_text())["text"] == "zolden hi"
    found = [row for _, row in read_rows(rows)]
    assert [row["id"] for row in found] == ["talk_0_0001", "talk_0_0002", "talk_1_0001", "talk_1_0002"]
    entry = read_manifest(rows)[3]  # data_tools.talks reads it
    assert (str(entry.audio), entry.start, entry.end, entry.text) == (str(talks[1]), 1.0, 1.5, "hi")
    assert capsys.readouterr().err.count("keywords used") == 2


def test_rows_alone_leave_standard_output_alone(heard, talks, tmp_path, capsys):
    assert run(talks[0], "--rows", tmp_path / "rows.jsonl") == 0
    assert capsys.readouterr().out == ""
