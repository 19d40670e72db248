"""Words with their times from recordings, with the model that comes along."""

from __future__ import annotations

import itertools
import shutil

import fsspec
import numpy as np
import pytest
import soundfile
from commands import sap2

from sap2 import Transcriber
from sap2.errors import InputError
from sap2.pipeline.confidence import Offsets, WordCalibration
from sap2.rowfiles import read_rows, write_rows
from sap2.shipped import resolve_name
from sap2.tiny.speech import speak, speak_words


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber("sap2-tiny", asr_adapter="sap2-tiny-asr", batch_size=4)


@pytest.fixture(scope="module")
def talk():
    """Two sentences with a long pause."""
    pause = np.zeros(24_000, np.float32)
    first, second = speak("the long report of wozniak is quiet"), speak("we read the first page today")
    return np.concatenate([first, pause, second])


def test_every_word_has_its_time_in_the_recording(transcriber, talk):
    transcript = transcriber.transcribe(talk, word_timestamps=True)
    assert len(transcript.segments) == 2 and "words" in transcript.seconds
    for segment in transcript.segments:
        assert [word.text for word in segment.words] == segment.text.split()
        edges = [edge for word in segment.words for edge in (word.start, word.end)]
        assert edges == sorted(edges) and segment.start <= edges[0] and edges[-1] <= segment.end + 0.001
        assert all(word.end > word.start for word in segment.words)
    gap = transcript.segments[1].words[0].start - transcript.segments[0].words[-1].end
    assert gap == pytest.approx(1.5, abs=0.3)


def test_words_are_there_only_where_they_are_asked_for(transcriber, talk):
    transcript = transcriber.transcribe(talk)
    assert all(segment.words is None for segment in transcript.segments) and "words" not in transcript.seconds
    assert "words" not in transcript.to_dict()["segments"][0]


def test_a_word_says_which_keyword_it_belongs_to(transcriber, talk):
    transcript = transcriber.transcribe(talk, keywords=["First-Page", "Wozniak", "Halvor"], word_timestamps=True)
    named = [(word.text, word.keyword) for word in transcript.segments[1].words]
    assert named == [("we", None), ("read", None), ("the", None), ("First-Page", "First-Page"), ("today", None)]


def test_silence_has_no_words(transcriber):
    transcript = transcriber.transcribe(np.zeros(32_000, np.float32), word_timestamps=True)
    assert transcript.segments == []


def test_a_model_without_a_spotter_is_refused(tiny):
    with pytest.raises(InputError, match=r"^word_timestamps needs a spotter, and .* has none; allowed: a checkpoint"):
        Transcriber(tiny).transcribe(np.zeros(32_000, np.float32), word_timestamps=True)


def test_the_command_says_that_a_model_has_no_spotter_and_goes_on(tiny, wavs, tmp_path, capsys):
    output = tmp_path / "out.json"
    assert sap2("transcribe", wavs[2], "--model", tiny, "--word_timestamps", "--output", output) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "spotter" in line]
    assert lines == [
        "--word-timestamps: the model has no trained spotter (--sap_spotter true); segments have times, words none"
    ]
    assert '"start"' in output.read_text() and '"words"' not in output.read_text()


def test_long_recordings_have_times_that_never_go_back(transcriber, talk):
    """Where there is no pause, a recording is cut within the speech."""
    long = np.tile(np.concatenate([talk[:40_000], talk[-30_000:]]), 4)
    transcript = transcriber.transcribe(long, word_timestamps=True)
    assert len(transcript.segments) > 2
    words = [word for segment in transcript.segments for word in segment.words]
    assert all(after.start >= before.end for before, after in itertools.pairwise(words))


@pytest.mark.parametrize("arguments", [["--format", "ctm"], ["--highlight-words", "--format", "srt"]])
def test_what_needs_times_of_words_is_refused_where_there_are_none(tiny, wavs, capsys, arguments):
    assert sap2("transcribe", wavs[2], "--model", tiny, *arguments) == 2
    printed = capsys.readouterr()
    assert f"{' '.join(arguments[:2]) if 'ctm' in arguments else arguments[0]} needs a spotter" in printed.err
    assert printed.out == ""


def test_the_command_writes_ctm_and_highlighted_words(wavs, tmp_path):
    shipped = ["--model", "sap2-tiny", "--asr-adapter", "sap2-tiny-asr"]
    for name, arguments in (("out.ctm", []), ("out.vtt", ["--highlight-words"])):
        assert sap2("transcribe", wavs[0], *shipped, "--output", tmp_path / name, *arguments) == 0
    lines = [line.split() for line in (tmp_path / "out.ctm").read_text().splitlines()]
    assert lines and all(line[:2] == ["utt0", "1"] for line in lines)
    assert (tmp_path / "out.vtt").read_text().count("<u>") == len(lines)


def test_wrong_words_are_less_sure(transcriber, talk):
    """Without its list, the model gets the name and what is around it wrong, and the second sentence right."""
    wrong, right = transcriber.transcribe(talk, word_timestamps=True).segments
    assert right.text == "we read the first page today" and "wozniak" not in wrong.text
    assert min(word.probability for word in right.words) > 0.9
    assert min(word.probability for word in wrong.words) < 0.5


def test_one_command_makes_the_probabilities_true(tmp_path):
    """On rows of which some words are wrong."""
    adapter = shutil.copytree(resolve_name("sap2-tiny-asr"), tmp_path / "asr")
    rows = []
    for said, text in (("we read the first page today", "we read the last page today"), ("hi guys", "hi guys")):
        audio = str(tmp_path / f"{len(rows)}.wav")
        soundfile.write(audio, speak(said), 16_000)
        rows.append({"id": audio, "audio": audio, "text": text, "keywords": ["page", "wozniak"]})
    write_rows(tmp_path / "dev.jsonl", rows)
    arguments = ["--model", "sap2-tiny", "--asr-adapter", adapter, "--val-dataset", tmp_path / "dev.jsonl"]
    (adapter / "words.json").unlink(missing_ok=True)
    before = (adapter / "pruner.json").read_bytes()
    assert sap2("calibrate", *arguments, "--no-words") == 0
    assert not (adapter / "words.json").exists() and (adapter / "pruner.json").read_bytes() != before
    assert sap2("calibrate", *arguments, "--no-keywords") == 0
    loaded = WordCalibration.load(adapter)
    assert loaded is not None and loaded != WordCalibration() and loaded.offsets == Offsets()
    assert Transcriber("sap2-tiny", asr_adapter=adapter)._decoder._timer._calibration == loaded


def test_one_command_makes_the_times_true(tmp_path, capsys):
    """Of a spotter that is told to be late: by words that begin 80 ms earlier than they do."""
    adapter = shutil.copytree(resolve_name("sap2-tiny-asr"), tmp_path / "asr")
    (adapter / "words.json").unlink(missing_ok=True)
    spoken = speak_words(text := "we read the first page today")
    with fsspec.open("memory://times/a.wav", "wb") as stream:  # rows may have addresses
        soundfile.write(stream, spoken.samples, 16_000, format="WAV")
    write_rows(tmp_path / "dev.jsonl", [{"id": "a", "audio": "memory://times/a.wav", "text": text}])
    lines = [f"a 1 {word.start - 0.08:.3f} {word.end - word.start:.3f} {word.text}" for word in spoken.words[1:]]
    (tmp_path / "a.ctm").write_text("\n".join(lines))
    arguments = ["--model", "sap2-tiny", "--asr-adapter", adapter, "--val-dataset", tmp_path / "dev.jsonl"]
    assert sap2("calibrate", *arguments, "--no-keywords", "--word-times", tmp_path / "a.ctm") == 0
    printed = capsys.readouterr().out
    assert "times: 5 words, which begin" in printed and "probabilities of words stay as they were: 6 of 6" in printed
    loaded = WordCalibration.load(adapter)
    assert loaded[:3] == WordCalibration()[:3] and -0.19 < loaded.offsets.start < -0.08
    early, plain = (
        Transcriber("sap2-tiny", asr_adapter=name).transcribe(spoken.samples, word_timestamps=True).segments[0].words
        for name in (adapter, "sap2-tiny-asr")
    )
    assert early[3].start < plain[3].start - 0.04


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--no-words", "--no-keywords"], "--no-words and --no-keywords do not go together"),
        (["--no-words", "--word-times", "a.ctm"], "--no-words and --word-times do not go together"),
        (["--no-keywords", "--plot", "a.png"], "--no-keywords and --plot do not go together"),
        (["--word-times", "/not/there.ctm"], "/not/there.ctm"),
    ],
)
def test_what_cannot_be_calibrated_is_said_first(options, problem, capsys):
    needed = ["--model", "/no/model", "--asr-adapter", "/no/adapter", "--val-dataset", "/no/rows.jsonl"]
    assert sap2("calibrate", *needed, *options) == 2
    assert problem in capsys.readouterr().err


def test_results_of_a_test_set_have_words_where_they_are_asked_for(tmp_path, wavs, tiny, capsys):
    write_rows(tmp_path / "test.jsonl", [{"id": "u1", "audio": wavs[0], "text": "hi", "keywords": ["Wozniak"]}])
    run = ["pipeline", "--val-dataset", tmp_path / "test.jsonl", "--result-path", tmp_path / "result.jsonl"]
    shipped = ["--model", "sap2-tiny", "--asr-adapter", "sap2-tiny-asr", "--words"]
    assert sap2(*run, *shipped) == 0
    (result,) = [row for _, row in read_rows(tmp_path / "result.jsonl")]
    assert [word["word"] for word in result["words"]] == result["response"].split()
    assert all(0 <= word["start"] < word["end"] <= result["audio_seconds"] for word in result["words"])
    assert sap2(*run, *shipped[:-1]) == 2  # not to be mixed
    assert "words True (now None)" in capsys.readouterr().err
    assert sap2(*run, "--model", tiny, "--words", "--overwrite") == 2
    assert "--words needs a spotter" in capsys.readouterr().err
    assert sap2(*run, *shipped, "--stages", "prune", "--pruner", "spot", "--overwrite") == 2
    assert "--words needs a transcript; allowed: the stages asr, prune,asr, joint" in capsys.readouterr().err
