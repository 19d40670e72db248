"""Captions of other tools, and recordings that are cut by them or at their pauses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from commands import tool
from hypothesis import given, settings
from hypothesis import strategies as st

from sap2.data.utterances import read_utterances
from sap2.errors import InputError
from sap2.slides.captions import Cue, merge_cues, read_captions

RATE = 16_000
SRT = """1
00:00:00,500 --> 00:00:02,000
<i>Hi, I'm</i> {\\an8}Emily.

2
00:00:02,100 --> 00:00:04,000
EMILY: I work on Kubernetes
&amp; friends.

3
00:00:05,500 --> 00:00:07,000
[music]

4
00:00:09,000 --> 00:00:11,500
>> Thank you.
"""
VTT = """WEBVTT
Kind: captions

NOTE a remark
00:00 is no cue

STYLE
::cue { color: red }

first
00:00.500 --> 00:02.000 align:start position:0%
<v Emily>Hi, I'm <b>Emily</b>.

00:00:02.100 --> 00:00:04.000
I work on Kubernetes &amp; friends.
00:09.000 --> 00:11.500
Thank you.
"""
CUES = [
    Cue(0.5, 2.0, "Hi, I'm Emily."),
    Cue(2.1, 4.0, "I work on Kubernetes & friends."),
    Cue(9.0, 11.5, "Thank you."),
]


@pytest.mark.parametrize(("name", "text"), [("a.srt", SRT), ("a.vtt", VTT)])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_of_both_kinds(tmp_path, name, text, ends, encoding):
    (tmp_path / name).write_bytes(text.replace("\n", ends).encode(encoding))
    assert read_captions(tmp_path / name) == CUES


def test_captions_that_roll_up(tmp_path):
    """YouTube's: each line comes with the next one, and again alone."""
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:02.000\none two\n\n00:02.000 --> 00:02.010\none two\n\n"
        "00:02.010 --> 00:04.000\none two\nthree four\n"
    )
    assert [cue.text for cue in read_captions(tmp_path / "a.vtt")] == ["one two", "three four"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no captions in this file"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n[music]\n", "no captions in this file"),
        ("1\n00:00:05,000 --> 00:00:04,000\nx\n", ":2: this cue ends at 4 s, before it begins at 5 s"),
        (b"\xff\xfa", "not UTF-8 text"),
    ],
)
def test_what_is_no_caption_file_is_refused(tmp_path, text, message):
    (tmp_path / "a.srt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"a\.srt:? ?{message}"):
        read_captions(tmp_path / "a.srt")


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 12), st.floats(0, 3)), min_size=1, max_size=30), st.floats(5, 30))
def test_merged_cues_keep_every_word_and_the_limit(steps, limit):
    cues, time = [], 0.0
    for number, (length, pause) in enumerate(steps):
        cues.append(Cue(time, time + length, f"w{number}"))
        time += length + pause
    merged = merge_cues(cues, limit)
    assert " ".join(cue.text for cue in merged) == " ".join(cue.text for cue in cues)
    for cue in merged:
        assert cue.end - cue.start <= limit or len(cue.text.split()) == 1
    assert all(one.end <= other.start for one, other in itertools.pairwise(merged))


# ---- talks


@pytest.fixture
def lecture(tmp_path):
    """12 s: speech-like noise where the captions say so, silence between."""
    samples = np.random.default_rng(0).normal(0, 0.0005, 12 * RATE)
    for cue in CUES:
        first, last = round(cue.start * RATE), round(cue.end * RATE)
        samples[first:last] += np.random.default_rng(1).normal(0, 0.1, last - first)
    soundfile.write(tmp_path / "lecture.wav", samples, RATE)
    (tmp_path / "lecture.srt").write_text(SRT)
    (tmp_path / "deck.md").write_text("the Kubernetes scheduler")
    return tmp_path


def convert(folder, manifest, *more):
    (folder / "my.csv").write_text(manifest)
    code = tool("talks", folder / "my.csv", "--output", folder / "my.jsonl", "--audio-dir", folder / "cut", *more)
    return code, [utterance for _, utterance in read_utterances(folder / "my.jsonl")] if code == 0 else []


def test_a_lecture_is_cut_by_its_captions(lecture):
    code, utterances = convert(lecture, "id,audio,captions,slides\nl1,lecture.wav,lecture.srt,deck.md\n")
    assert code == 0
    assert [u.id for u in utterances] == ["l1_0001", "l1_0002"]
    assert [u.text for u in utterances] == ["Hi, I'm Emily. I work on Kubernetes & friends.", "Thank you."]
    assert [u.session for u in utterances] == ["l1", "l1"]
    assert utterances[0].keywords == ("Kubernetes", "scheduler")
    for utterance, (start, end) in zip(utterances, [(0.4, 4.1), (8.9, 11.6)], strict=True):
        assert (utterance.start, utterance.end) == (start, end)
        assert soundfile.info(utterance.audio).duration == pytest.approx(end - start, abs=0.01)


def test_captions_of_a_part_and_a_shorter_limit(lecture, capsys):
    manifest = "id,audio,captions,start,end\nl1,lecture.wav,lecture.srt,0,5\n"
    code, utterances = convert(lecture, manifest, "--max-seconds", "2.3")
    assert (code, [u.text for u in utterances]) == (0, ["Hi, I'm Emily.", "I work on Kubernetes & friends."])
    code, utterances = convert(lecture, manifest, "--max-seconds", "1.8")
    assert code == 0 and [u.text for u in utterances] == ["Hi, I'm Emily."]
    assert "1 utterances (1 pieces too long or too short are left out)" in capsys.readouterr().out


def test_a_recording_without_text_is_cut_at_its_pauses(lecture):
    code, utterances = convert(lecture, "id,audio\nl1,lecture.wav\n", "--max-seconds", "6")
    assert code == 0
    assert [(round(u.start), round(u.end)) for u in utterances] == [(0, 4), (9, 12)]
    assert all(u.text is None for u in utterances)
    code, utterances = convert(lecture, "id,audio\nl1,lecture.wav\n")
    assert [u.id for u in utterances] == ["l1"], "12 s can be heard as they are"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (
            "id,audio,text\nl1,lecture.wav,all that was said\n",
            "12.0 s with one text, and the model hears 6 s",
        ),
        ("id,audio,captions\nl1,lecture.wav,absent.srt\n", "no captions at"),
        ("id,audio,captions,text\nl1,lecture.wav,lecture.srt,hi\n", "text and captions say the same thing twice"),
        ("id,audio,captions,end\nl1,short.wav,lecture.srt,\n", "they do not belong together"),
        ("id,audio,captions\nl1,most.wav,lecture.srt\n", "goes on to 11.5 s, and {folder}/most.wav ends at 9.8 s"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(lecture, capsys, manifest, message):
    for name, seconds in (("short.wav", 5), ("most.wav", 9.8)):
        soundfile.write(lecture / name, np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)), RATE)
    assert convert(lecture, manifest, "--max-seconds", "6")[0] == 2
    error = capsys.readouterr().err
    assert "my.csv:2: " in error and message.replace("{folder}", str(lecture)) in error
