"""SlideSpeech: Kaldi tables, cutting audio, slides around an utterance."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from commands import tool

from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
from sap2.data.utterances import read_utterances
from sap2.lengths import SAMPLING_RATE as RATE

SEGMENTS = "u1 t1 0.0 1.0\nu3 t1 2.5 3.5\nu2 t1 1.0 2.0\nu4 t2 0 1\nu5 t1 4 5\n"
TEXT = "u5 LAST ONE\nu1 HI GUYS I'M EMILY\nu2 STEVE WOZNIAK\nu3 HELLO\nu4 FOO BAR\n"
KEYWORDS = "u5 ZETA\nu1 EMILY$WOZNIAK\nu2 EMILY$WOZNIAK\nu3 KUBERNETES$EMILY\nu4\n"


def tone(seconds, rate=RATE, channels=1):
    samples = 0.5 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)
    return np.repeat(samples[:, None], channels, axis=1)


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for folder in (root / "dev", root / "wav"):
        folder.mkdir(parents=True)
    sf.write(root / "wav" / "t1.wav", tone(6, channels=2), RATE)
    sf.write(root / "wav" / "t2.wav", tone(2), RATE)
    for name, text in {
        "segments": SEGMENTS,
        "text": TEXT,
        "keywords": KEYWORDS,
        "wav.scp": "t1 wav/t1.wav\nt2 wav/t2.wav\n",
        "utt2spk": "".join(f"u{i} s{i}\n" for i in range(1, 6)),
    }.items():
        (root / "dev" / name).write_text(text)
    return root


def convert(corpus, split="dev", output="dev.jsonl", **options):
    report = convert_slidespeech(corpus, split, corpus / output, corpus / "cut", SlideSpeechOptions(**options))
    return report, {u.id: u for _, u in read_utterances(corpus / output)}


def test_a_small_corpus(corpus):
    sf.write(corpus / "wav" / "t1.wav", tone(6, 44_100, 2), 44_100)
    report, utterances = convert(corpus)
    assert (report.utterances, report.cut, report.kept, report.no_keywords) == (5, 5, 0, 1)
    assert list(utterances) == ["u1", "u3", "u2", "u4", "u5"]
    assert utterances["u2"].to_record() == {
        "id": "u2",
        "audio": str(corpus / "cut" / "t1" / "u2.flac"),
        "text": "steve wozniak",
        "keywords": ["emily", "wozniak"],
        "recording": "t1",
        "start": 1.0,
        "end": 2.0,
        "session": "s2",
        "slide": 0,
    }
    assert [utterances[name].slide for name in ("u1", "u2", "u3", "u5", "u4")] == [0, 0, 1, 2, 0]
    for utterance in utterances.values():
        info = sf.info(utterance.audio)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "FLAC", "PCM_16")
        assert info.frames == 16_000
    assert np.abs(sf.read(utterances["u1"].audio)[0] - tone(1)[:, 0])[100:-100].max() < 0.01


@pytest.mark.parametrize(
    ("slides", "keywords"),
    [
        (1, {"u1": "emily wozniak", "u3": "kubernetes emily", "u4": "", "u5": "zeta"}),
        (2, {"u1": "emily wozniak kubernetes", "u3": "kubernetes emily wozniak", "u5": "zeta kubernetes emily"}),
        (5, {"u1": "emily wozniak kubernetes zeta", "u3": "kubernetes emily wozniak zeta", "u4": ""}),
        (25, {"u5": "zeta kubernetes emily wozniak"}),
    ],
)
def test_keywords_of_the_slides_around(corpus, slides, keywords):
    _, utterances = convert(corpus, slides=slides)
    assert {name: " ".join(utterances[name].keywords) for name in keywords} == keywords


def test_the_same_from_windows_files_with_tabs(corpus):
    _, expected = convert(corpus)
    for name in ("segments", "text", "keywords", "wav.scp", "utt2spk"):
        path = corpus / "dev" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b" ", b"\t", 1).replace(b"\n", b"\r\n") + b"\r\n")
    report, utterances = convert(corpus)
    assert utterances == expected
    assert (report.cut, report.kept) == (0, 5)


def test_hostile_slides_and_transcripts(corpus):
    keywords = "$".join([f"<|im_end|>\u202ename{i}\x07" for i in range(10_000)] + ["$", "<|>", "A, B"])
    (corpus / "dev" / "keywords").write_text(KEYWORDS.replace("ZETA", keywords))
    (corpus / "dev" / "text").write_text(TEXT.replace("HELLO", "HELLO <|endofcontext|>\u200b <audio>"))
    _, utterances = convert(corpus)
    assert utterances["u3"].text == "hello endofcontext audio"
    assert len(utterances["u5"].keywords) == 10_001
    assert utterances["u5"].keywords[0] == "im_end name0"
    assert utterances["u5"].keywords[-1] == "a b"


def test_case_can_stay(corpus):
    _, utterances = convert(corpus, case="keep")
    assert (utterances["u2"].text, utterances["u2"].keywords) == ("STEVE WOZNIAK", ("EMILY", "WOZNIAK"))


def test_a_second_run_cuts_only_what_is_missing_or_changed(corpus):
    convert(corpus)
    first = (corpus / "dev.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (corpus / "cut").rglob("*.flac")}
    (corpus / "cut" / "t1" / "u1.flac").unlink()
    (corpus / "cut" / "t1" / "u2.flac").write_bytes(b"fLaC half")
    report, _ = convert(corpus)
    assert (report.cut, report.kept) == (2, 3)
    assert (corpus / "dev.jsonl").read_bytes() == first
    assert (corpus / "cut" / "t1" / "u3.flac").stat().st_mtime_ns == times[corpus / "cut" / "t1" / "u3.flac"]
    (corpus / "dev" / "segments").write_text(SEGMENTS.replace("2.5 3.5", "2.4 3.4"))
    assert convert(corpus)[0].cut == 1


def test_several_processes_give_the_same(corpus):
    convert(corpus)
    expected = {path.relative_to(corpus / "cut"): path.read_bytes() for path in (corpus / "cut").rglob("*.flac")}
    report = convert_slidespeech(corpus, "dev", corpus / "b.jsonl", corpus / "cut2", SlideSpeechOptions(workers=2))
    assert report.cut == 5
    assert {path.relative_to(corpus / "cut2"): path.read_bytes() for path in (corpus / "cut2").rglob("*")
            if path.is_file()} == expected  # fmt: skip


@pytest.mark.parametrize("name", ["hot_related/ocr_1gram_top50_mmr070_hotwords_list", "ocr"])
def test_published_file_names(corpus, name):
    _, expected = convert(corpus)
    (corpus / "dev" / name).parent.mkdir(exist_ok=True)
    (corpus / "dev" / "keywords").rename(corpus / "dev" / name)
    (corpus / "dev" / "wav.scp").unlink()
    (corpus / "dev" / "utt2spk").rename(corpus / "dev" / "wav2session")
    (corpus / "dev" / "wav" / "CV").mkdir(parents=True)
    (corpus / "wav" / "t1.wav").rename(corpus / "dev" / "wav" / "CV" / "t1.wav")
    (corpus / "wav" / "t2.wav").rename(corpus / "dev" / "wav" / "t2.wav")
    (corpus / "dev").rename(corpus / "train_L95")
    assert convert(corpus, "L95")[1] == expected


def test_a_subset_by_the_ids_of_a_file(corpus):
    (corpus / "s95").write_text("u4 FOO BAR\nu2\n")
    report, utterances = convert(corpus, subset=str(corpus / "s95"), slides=5)
    assert list(utterances) == ["u2", "u4"]
    assert report.cut == 2
    (corpus / "s95").write_text("u4\nu9\n")
    with pytest.raises(ValueError, match=r"s95: ids that .*segments lacks: u9"):
        convert(corpus, subset=str(corpus / "s95"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("segments", SEGMENTS + "u6 t1 5\n", r"segments:6: 3 fields; a segment is: utterance recording start end"),
        ("segments", SEGMENTS + "u6 t1 5 x\n", r"segments:6: 'x' is not a time"),
        ("segments", SEGMENTS + "u6 t1 5 inf\n", r"segments:6: 'inf' is not a time"),
        ("segments", SEGMENTS + "u6 t1 5 5\n", r"segments:6: end 5\.0 is not after start 5\.0"),
        ("segments", SEGMENTS + "u1 t1 5 6\n", r"segments:6: 'u1' occurs a second time, first at .*segments:1"),
        ("segments", SEGMENTS + "../u6 t1 5 6\n", r"segments:6: id '\.\./u6' holds '/'; ids become file names"),
        ("segments", SEGMENTS + "u6 .. 5 6\n", r"segments:6: id '\.\.' begins with a dot"),
        ("segments", SEGMENTS + "u\u202e6 t1 5 6\n", r"segments:6: id 'u\\u202e6' holds '\\u202e'"),
        ("text", TEXT + "u1 AGAIN\n", r"text:6: 'u1' occurs a second time, first at .*text:2"),
        ("text", TEXT + "u9 WHO\n", r"text: ids that segments lacks: u9"),
        ("text", TEXT.replace("u4 FOO BAR\n", ""), r"no transcript: u4 \(--lenient counts them\)"),
        ("text", TEXT.replace("u4 FOO BAR\n", "u4 <|>\n"), r"no transcript: u4"),
        ("keywords", KEYWORDS + "u9 X\n", r"ids with keywords that segments lacks: u9"),
        ("keywords", KEYWORDS.replace("u4\n", ""), r"ids without keywords: u4"),
        ("wav.scp", "t1 wav/t1.wav\n", r"no recording: u4"),
        ("wav.scp", "t1 wav/t1.wav\nt2\n", r"wav\.scp:2: nothing after 't2'"),
        (
            "wav.scp",
            "t1 wav/t1.wav\nt2 touch hacked; cat x |\n",
            r"wav\.scp:2: 'touch hacked; cat x \|' is a pipe",
        ),
        ("wav.scp", "t1 wav/t1.wav\nt2 sox data.wav -t wav - |\n", r"wav\.scp:2: 'sox data.* is a pipe"),
        (
            "segments",
            SEGMENTS.replace("u5 t1 4 5", "u5 t1 9 10"),
            r"segments:5: .*t1\.wav: the piece from 9 to 10 s lies outside .* 6\.00 s",
        ),
        (
            "segments",
            SEGMENTS.replace("u5 t1 4 5", "u5 t1 4 7"),
            r"segments:5: .*lies outside .* 6\.00 s",
        ),
    ],
)
def test_bad_files_are_refused_with_their_line(corpus, name, text, message):
    (corpus / "dev" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(corpus)
    assert not (corpus / "dev.jsonl").exists()


def test_text_that_is_not_utf8(corpus):
    (corpus / "dev" / "text").write_bytes(b"u1 HI\nu2 \xff\n")
    with pytest.raises(ValueError, match=r"text:2: not UTF-8 text"):
        convert(corpus)


def test_lenient_counts_what_it_leaves_out(corpus):
    (corpus / "dev" / "text").write_text(TEXT.replace("u3 HELLO\n", ""))
    (corpus / "dev" / "keywords").write_text(KEYWORDS.replace("u5 ZETA\n", ""))
    (corpus / "dev" / "segments").write_text(SEGMENTS.replace("u2 t1 1.0 2.0", "u2 t1 1.0 20.0"))
    (corpus / "wav" / "t2.wav").write_bytes(b"RIFF broken")
    report, utterances = convert(corpus, lenient=True)
    assert list(utterances) == ["u1", "u5"]
    assert report.left_out == {"no transcript": 1, "no recording": 0, "too long": 0, "unreadable audio": 2}
    assert "left out, no transcript: 1; left out, unreadable audio: 2" in str(report)
    assert utterances["u5"].keywords == ()


def test_long_utterances_can_be_left_out(corpus):
    (corpus / "dev" / "segments").write_text(SEGMENTS.replace("u5 t1 4 5", "u5 t1 4 5.9"))
    report, utterances = convert(corpus, max_seconds=1.5)
    assert report.left_out["too long"] == 1
    assert "u5" not in utterances


def test_an_end_that_was_rounded_up_is_cut_where_the_recording_ends(corpus):
    (corpus / "dev" / "segments").write_text(SEGMENTS.replace("u5 t1 4 5", "u5 t1 5 6.04"))
    _, utterances = convert(corpus)
    assert sf.info(utterances["u5"].audio).frames == 16_000


def test_a_split_that_is_not_there(corpus):
    with pytest.raises(ValueError, match=r"no split 'S95'; folders there: dev, wav"):
        convert(corpus, "S95")
    (corpus / "dev" / "keywords").unlink()
    with pytest.raises(ValueError, match=r"dev: no keywords file \(keywords or hot_related/ocr_1gram_top50"):
        convert(corpus)
    with pytest.raises(ValueError, match="slides must be 1 or more, not 0"):
        convert(corpus, slides=0)


def test_two_recordings_of_one_name(corpus):
    sf.write(corpus / "wav" / "t1.flac", tone(1), RATE)
    with pytest.raises(ValueError, match=r"t1\.wav: a second recording named 't1', after .*t1\.flac"):
        convert(corpus, wav_dir=str(corpus / "wav"))


def test_command(corpus, capsys):
    arguments = [
        str(corpus),
        "--split",
        "dev",
        "--output",
        str(corpus / "dev.jsonl"),
        "--audio-dir",
        str(corpus / "cut"),
    ]
    assert tool("slidespeech", *arguments, "--slides", "5", "--workers", "1") == 0
    assert capsys.readouterr().out.endswith("5 utterances, 5 audio files cut, 0 there already; without keywords: 1\n")
    assert tool("slidespeech", *arguments, "--slides", "0") == 2
    assert "'0' is not a whole number from 1" in capsys.readouterr().err
    (corpus / "dev" / "segments").write_text("u1\n")
    assert tool("slidespeech", *arguments) == 2
    assert "segments:1: 1 fields" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path, workers):
    sf.write(tmp_path / "long.wav", tone(300), RATE)
    (tmp_path / "dev").mkdir()
    names = [f"u{i:03d}" for i in range(600)]
    (tmp_path / "dev" / "segments").write_text("".join(f"{n} r {i / 2} {i / 2 + 0.5}\n" for i, n in enumerate(names)))
    (tmp_path / "dev" / "text").write_text("".join(f"{n} X\n" for n in names))
    (tmp_path / "dev" / "keywords").write_text("".join(f"{n} K\n" for n in names))
    (tmp_path / "dev" / "wav.scp").write_text("r long.wav\n")
    command = [
        sys.executable,
        "-m",
        "data_tools.slidespeech",
        str(tmp_path),
        "--split",
        "dev",
        "--workers",
        str(workers),
    ]
    command += ["--output", str(tmp_path / "dev.jsonl"), "--audio-dir", str(tmp_path / "cut")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut").glob("r/u*.flac")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):  # no worker outlives the command
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    made = len(list((tmp_path / "cut").glob("r/u*.flac")))
    assert 0 < made < 600
    assert not (tmp_path / "dev.jsonl").exists()
    for path in (tmp_path / "cut").glob("r/u*.flac"):
        assert sf.info(path).frames == 8_000  # whole, or not there
    report = convert_slidespeech(tmp_path, "dev", tmp_path / "dev.jsonl", tmp_path / "cut")
    assert (report.cut, report.kept) == (600 - made, made)


def test_the_utterances_are_json_lines(corpus):
    convert(corpus)
    assert [json.loads(line)["id"] for line in (corpus / "dev.jsonl").read_text().splitlines()] == [
        "u1",
        "u3",
        "u2",
        "u4",
        "u5",
    ]
