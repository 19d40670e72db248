"""Subtitles that can be read: short cues, two lines, all words, keywords marked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.errors import InputError
from sap2.pipeline.cues import Cue, Layout, cut_cues
from sap2.pipeline.subtitles import format_transcript
from sap2.pipeline.types import Segment, Transcript, Word
from sap2.pipeline.words import find_words


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
    assert cut_cues(segment("hi emily", 1.0, 2.5), Layout()) == [Cue(1.0, 2.5, "hi emily")]
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


def timed(*words, text=None, **fields):
    """A segment of words (text, start, end), and a transcript of it."""
    words = [Word(*word) for word in words]
    said = text or " ".join(word.text for word in words)
    one = Segment(words[0].start, words[-1].end, said, 2, fields.get("picked", []), [], 1, {}, [], words)
    return Transcript.from_segments("a talk.wav", [one], fields.get("seconds", 60.0))


def even_words(text, seconds=0.3, gap=0.1):
    return [
        (word, n * (seconds + gap), n * (seconds + gap) + seconds, None, None) for n, word in enumerate(text.split())
    ]


def test_cues_follow_the_words():
    transcript = timed(*even_words(LONG))
    words = transcript.segments[0].words
    cues = cut_cues(transcript.segments[0], Layout())
    assert [word for cue in cues for word in cue.words] == words and len(cues) > 3
    assert all(cue.start == cue.words[0].start and cue.end == cue.words[-1].end for cue in cues)
    assert all(cue.text.split() == [word.text for word in cue.words] for cue in cues)


def test_cues_end_with_phrases():
    text = "now this is the first of the two short phrases, and here is the other one that is not so much longer."
    assert [c.text.replace("\n", " ") for c in cut_cues(timed(*even_words(text)).segments[0], Layout())] == [
        "now this is the first of the two short phrases,",
        "and here is the other one that is not so much longer.",
    ]


def test_a_cue_stays_until_it_can_be_read():
    fast = timed(*even_words("seventeen letters are read in a second", 0.05, 0.01), ("bye", 9.0, 9.2), seconds=9.4)
    written = format_transcript(fast, "srt", Layout(max_line_width=40, max_line_count=1))
    assert "00:00:00,000 --> 00:00:02,235\nseventeen letters" in written  # 38 letters
    assert "00:00:09,000 --> 00:00:09,400\nbye" in written  # where the recording ends


def test_each_word_is_underlined_while_it_is_said():
    said = [("hi", 0.5, 0.8), ("Bob", 1.0, 1.5), ("Smith's", 1.5, 2.0), ("<dog>", 2.2, 3.0)]
    transcript = timed(*said, picked=["Bob Smith"])
    layout = Layout(mark_keywords=True, highlight_words=True)
    assert format_transcript(transcript, "vtt", layout).split("\n\n")[1:] == [
        "00:00:00.500 --> 00:00:00.800\n<u>hi</u> <b>Bob Smith</b>'s &lt;dog&gt;",
        "00:00:00.800 --> 00:00:01.000\nhi <b>Bob Smith</b>'s &lt;dog&gt;",
        "00:00:01.000 --> 00:00:01.500\nhi <u><b>Bob</b></u><b> Smith</b>'s &lt;dog&gt;",
        "00:00:01.500 --> 00:00:02.000\nhi <b>Bob </b><u><b>Smith</b>'s</u> &lt;dog&gt;",
        "00:00:02.000 --> 00:00:02.200\nhi <b>Bob Smith</b>'s &lt;dog&gt;",
        "00:00:02.200 --> 00:00:03.000\nhi <b>Bob Smith</b>'s <u>&lt;dog&gt;</u>\n",
    ]
    assert "\nhi Bob <u>Smith's</u> <dog>\n" in format_transcript(transcript, "srt", layout)


def test_ctm_has_a_line_for_each_word():
    words = [("hi", 0.5, 0.8, 0.25, None), ("Bob", 1.0, 1.5, None, None)]
    assert format_transcript(timed(*words), "ctm") == "a_talk 1 0.500 0.300 hi 0.2500\na_talk 1 1.000 0.500 Bob\n"
    with pytest.raises(InputError, match="the transcript has no times of words; allowed: one that was made with"):
        written("hi", "ctm")


@given(st.lists(st.text("ab.-> 王\n", min_size=1, max_size=60), max_size=4), st.booleans())
def test_subtitles_of_words_lose_nothing_whatever_is_said(texts, highlight):
    """Also with words that are longer than a line, and arrows in them."""
    text = " ".join(texts)
    places = find_words(text)
    words = [Word(text[a:b], n * 0.3, n * 0.3 + 0.2) for n, (a, b) in enumerate(places)]
    one = Segment(0.0, 99.0, text, 0, [], [], 1, {}, [], words)
    cues = cut_cues(one, Layout(max_line_width=10))
    assert "".join("".join(cue.text.split()) for cue in cues) == "".join(text.replace("-->", "->").split())
    assert [word for cue in cues for word in cue.words] == words
    layout = Layout(max_line_width=10, highlight_words=highlight)
    srt = format_transcript(Transcript.from_segments("a", [one], 99.0), "srt", layout)
    arrows = [line.split(" --> ") for line in srt.splitlines() if " --> " in line]
    edges = [edge for pair in arrows for edge in pair]
    assert edges == sorted(edges)
