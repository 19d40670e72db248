"""Words and their times."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.model.spotter import SYMBOLS, spelling
from sap2.pipeline.subtitles import format_transcript
from sap2.pipeline.types import Segment, Transcript, Word
from sap2.pipeline.words import DEFAULT, FRAME_SECONDS, Offsets, find_words, time_words

NONE = Offsets(0.0, 0.0)


def heard(text, frames_each=3, learnt="abcdefghijklmnopqrstuvwxyz "):
    """What a spotter says that hears exactly this, a letter every few frames; '.' is silence."""
    log_probs = np.full((frames_each * len(text), SYMBOLS), -30.0, np.float32)
    log_probs[:, [symbol for letter in learnt for symbol in spelling(letter) or [ord(" ") + 1]]] = -10.0
    log_probs[:, 0] = 0.0
    for place, letter in enumerate(text):
        if letter != ".":
            log_probs[frames_each * place + frames_each // 2, [0, ord(letter) + 1]] = [-8.0, 0.0]
    return log_probs


def words_of(text):
    return [text[start:end] for start, end in find_words(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Emily, met  GPT-4 — twice.", ["Emily,", "met", "GPT-4", "—", "twice."]),
        ("我们 use GPU训练。", ["我", "们", "use", "GPU", "训", "练。"]),
        ("“王”小", ["“王”", "小"]),
        ("ก็ดี", ["ก็", "ดี"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        (" \n", []),
    ],
)
def test_words_stand_between_spaces_or_are_letters_of_their_own(text, words):
    assert words_of(text) == words


@given(st.text(max_size=30))
def test_no_character_is_lost(text):
    assert "".join(words_of(text)).split() == ["".join(text.split())] * bool(text.split())


def test_a_word_is_timed_by_its_letters():
    log_probs = heard("...hi emily....")
    first, second = time_words(log_probs, "Hi, EMILY!", 10.0, offsets=NONE)
    assert first.start == pytest.approx(10 * FRAME_SECONDS) and first.end == pytest.approx(14 * FRAME_SECONDS)
    assert second.start == pytest.approx(19 * FRAME_SECONDS) and second.end == pytest.approx(32 * FRAME_SECONDS)
    assert first.aligned and second.aligned


def test_a_word_that_cannot_be_spelled_gets_the_time_between_its_neighbours():
    times = time_words(heard("gpt four emily"), "gpt 4 emily", 10.0, offsets=NONE)
    assert [one.aligned for one in times] == [True, False, True]
    assert times[0].end <= times[1].start < times[1].end <= times[2].start
    assert times[1].start <= 13 * FRAME_SECONDS and times[1].end >= 22 * FRAME_SECONDS  # all of "four"


def test_a_letter_that_was_never_learnt_is_passed_over():
    assert [one.aligned for one in time_words(heard("emilys car"), "emily's car", 10.0)] == [True, True]


def test_a_text_that_is_too_long_for_the_speech_is_spread():
    times = time_words(heard("hi", frames_each=1), "hi emily wozniak", 2.0)
    assert [one.aligned for one in times] == [False] * 3
    assert times[0].start == 0.0 and times[-1].end == pytest.approx(2.0)


def test_a_word_begins_before_its_first_letter_is_written_and_not_in_a_silence():
    log_probs = heard("hi....emily")
    loud = np.full(132, -20.0)
    loud[:9], loud[60:80] = -70.0, -50.0  # silence, then a pause with some noise
    first, second = time_words(log_probs, "hi emily", 1.32, loud)
    assert first.start == pytest.approx(0.09)
    assert second.start == pytest.approx(0.8)
    log_probs = heard("....hi emily")
    plain, again = (time_words(log_probs, "hi emily", 1.44, loud, o)[0].start for o in (NONE, DEFAULT))
    assert plain - again == pytest.approx(0.05)
    assert time_words(log_probs, "hi emily", 1.44, np.full(144, -20.0))[0].start == again  # no frame is louder
    assert time_words(log_probs, "hi", 1.44, np.where(np.arange(144) < 140, -70.0, 0.0))[0].start == again


@given(st.text("ab 4—王'", max_size=12), st.integers(0, 12), st.integers(0, 3))
def test_times_are_in_order_whatever_is_said(text, frames, seed):
    numbers = np.random.default_rng(seed)
    log_probs = numbers.normal(scale=9, size=(frames, SYMBOLS)).astype(np.float32)
    loud = numbers.normal(scale=20, size=4 * frames) if frames else None
    times = time_words(log_probs, text, frames * FRAME_SECONDS, loud)
    assert len(times) == len(words_of(text))
    edges = [edge for one in times for edge in (one.start, one.end)]
    assert edges == sorted(edges) and all(0 <= edge <= frames * FRAME_SECONDS for edge in edges)


def test_json_has_words_in_whispers_shape_where_they_were_asked_for():
    def written(words):
        segment = Segment(1.0, 2.0, "hi Emily", 1, ["Emily"], [], 1, {}, [], words)
        return json.loads(format_transcript(Transcript.from_segments("a", [segment], 3.0), "json"))["segments"][0]

    assert "words" not in written(None)
    words = written([Word("hi", 1.0, 1.2), Word("Emily", 1.2, 1.9, 0.9, "Emily")])["words"]
    assert words[0] == {
        **{"word": "hi", "start": 1.0, "end": 1.2, "probability": None},
        **{"keyword": None, "aligned": True},
    }
    assert words[1]["probability"] == 0.9 and words[1]["keyword"] == "Emily"
