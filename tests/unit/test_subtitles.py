"""Subtitles that can be read: short cues, two lines, all words, keywords marked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.pipeline.subtitles import Layout, cut_cues, format_transcript
from sap2.pipeline.types import Segment, Transcript


def segment(text, start=0.0, end=30.0, picked=()):
    return Segment(start, end, text, 2, list(picked), [], 1, {"asr": 1.5}, [])


def written(text, format, layout=None, **fields):
    return format_transcript(Transcript.from_segments("talk", [segment(text, **fields)], 30.0), format, layout)


LONG = "so what does the second column show it shows what the machine heard before anybody told it a name " * 3


def test_a_long_segment_becomes_cues_of_seven_seconds_and_two_lines():
    cues = cut_cues(segment(LONG), Layout())
    assert " ".join(cue.text for cue in cues).split() == LONG.split()
    assert all(cue.end - cue.start <= 7.0 for cue in cues)
    assert all(len(line) <= 42 for cue in cues for line in cue.text.split("\n"))
    assert all(cue.text.count("\n") <= 1 for cue in cues)
    assert [cue.start for cue in cues[1:]] == [cue.end for cue in cues[:-1]] and cues[-1].end == 30.0
    lengths = [len(cue.text) for cue in cues]
    assert min(lengths) > 0.5 * max(lengths)  # none is a lonely word


def test_a_short_segment_is_one_cue():
    assert cut_cues(segment("hi emily", 1.0, 2.5), Layout()) == [(1.0, 2.5, "hi emily")]
    assert cut_cues(segment("  "), Layout()) == []


def test_slow_speech_is_cut_by_time():
    cues = cut_cues(segment("one two three four", 0.0, 28.0), Layout())
    assert len(cues) >= 4 and all(cue.end - cue.start <= 7.0 for cue in cues)


def test_text_without_spaces_is_cut_too():
    cues = cut_cues(segment("沃兹尼亚克" * 40), Layout())
    assert "".join(cue.text.replace("\n", "") for cue in cues) == "沃兹尼亚克" * 40
    assert all(len(line) <= 42 for cue in cues for line in cue.text.split("\n"))


@given(
    st.lists(st.text("abcdé-", min_size=1, max_size=60), min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(1, 3),
    st.floats(0.1, 40),
)
def test_every_letter_is_in_a_cue_that_fits(words, width, count, seconds):
    cues = cut_cues(segment(" ".join(words), 5.0, 5.0 + seconds), Layout(width, count, 7.0))
    assert "".join("".join(cue.text.split()) for cue in cues) == "".join(words)
    assert all(len(line) <= width for cue in cues for line in cue.text.split("\n"))
    assert all(cue.text.count("\n") < count for cue in cues)
    assert all(0 <= cue.end - cue.start <= 7.0 + 1e-9 for cue in cues)
    assert all(first.end <= second.start + 1e-9 for first, second in itertools.pairwise(cues))


def test_both_formats_have_the_cues():
    layout = Layout(max_line_width=10, max_line_count=1, max_seconds=7.0)
    srt, vtt = (written("hi emily and bob", name, layout, end=4.0) for name in ("srt", "vtt"))
    assert srt.startswith("1\n00:00:00,000 --> 00:00:02,000\nhi emily\n\n2\n00:00:02,000 --> ")
    assert vtt.count("-->") == 2 and srt.count("-->") == 2


def test_keywords_are_marked_in_vtt_where_that_is_asked_for():
    marked = Layout(mark_keywords=True)
    vtt = written("hi GPT-4 & <i>gpt 4</i> gpts", "vtt", marked, end=3.0, picked=["GPT-4"])
    assert vtt.endswith("\nhi <b>GPT-4</b> &amp; &lt;i&gt;<b>gpt 4</b>&lt;/i&gt; gpts\n")
    assert "<b>" not in written("hi emily", "vtt", picked=["emily"], end=3.0)
    assert "<b>" not in written("hi emily", "srt", marked, picked=["emily"], end=3.0)


@pytest.mark.parametrize("format", ["txt", "json"])
def test_text_and_json_have_whole_segments(format):
    assert " ".join(LONG.split()) in " ".join(written(LONG, format).split())
