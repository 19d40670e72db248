"""When words begin and end: fitted on words of which it is known, and kept with the checkpoint."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sap2.errors import InputError
from sap2.pipeline.calibrating_times import FURTHEST, Timed, fit_offsets, said_words
from sap2.pipeline.confidence import Offsets
from sap2.pipeline.words import Laid
from sap2.rowfiles import write_rows
from sap2.tables import TimedWord, read_ctm


def utterance(late: Offsets, seed: int) -> Timed:
    """Four words, of which the third cannot be spelled, and whose letters are written so much late, within 8 ms."""
    numbers = np.random.default_rng(seed)
    truth = np.array([[0.3, 0.6], [0.8, 1.3], [1.35, 1.6], [1.9, 2.4]])
    written = truth + np.array(late) + numbers.uniform(-0.008, 0.008, truth.shape)
    known = np.array([0, 1, 3])
    laid = Laid(written[:, 0], written[:, 1], [True, True, False, True], [0.0] * 4)
    return Timed(laid, 3.0, np.zeros(300), known, truth[known])


def test_offsets_are_what_the_spotter_is_late_by():
    fit = fit_offsets([utterance(Offsets(0.13, -0.06), seed) for seed in range(20)], "dev.ctm")
    assert fit.offsets == pytest.approx((-0.13, 0.06), abs=0.006)
    assert fit.words == 60 and fit.error < 0.006 < 0.07 < fit.before
    assert "60 words, which begin within" in str(fit) and "-0.05 s" in str(fit)


def test_what_is_said_in_a_silence_says_nothing_of_the_offset():
    """The first word, whose letters are written before it is heard, begins where the silence ends, anyway."""

    def early(seed):
        one = utterance(Offsets(0.1, 0.0), seed)
        one.laid.starts[0] = 0.05
        one.loud[:30] = -80.0
        return one

    fit = fit_offsets([early(seed) for seed in range(20)], "dev.ctm")
    assert fit.offsets.start == pytest.approx(-0.1, abs=0.006) and fit.error < 0.006


def test_other_times_are_refused():
    nothing = utterance(Offsets(), 0)._replace(words=np.zeros(0, int), truth=np.zeros((0, 2)))
    with pytest.raises(InputError, match=r"^dev\.ctm has no word of these utterances; allowed: a CTM by their ids, or"):
        fit_offsets([nothing], "dev.ctm")
    with pytest.raises(
        InputError, match=rf"^dev\.ctm: words begin {FURTHEST:g} s or more from where the spotter hears"
    ):
        fit_offsets([utterance(Offsets(0.5, 0.0), seed) for seed in range(3)], "dev.ctm")


def test_words_of_an_utterance_are_those_of_its_id_or_of_its_part_of_the_recording(tmp_path):
    rows = [
        {"id": "a", "audio": "a.wav"},
        {"id": "b", "audio": "b.wav", "recording": "talk", "start": 10.0, "end": 12.0},
        {"id": "c", "audio": "c.wav", "recording": "other", "start": 0.0, "end": 2.0},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    hi, late = TimedWord("hi", 0.5, 0.75), TimedWord("late", 13.0, 13.5)
    talk = [TimedWord("before", 9.0, 9.9), TimedWord("in", 9.9, 10.5), TimedWord("it", 11.0, 11.25), late]
    found = said_words(tmp_path / "rows.jsonl", {"a": [hi], "talk": talk})
    assert set(found) == {"a", "b"} and found["a"] == [hi]
    assert [word.text for word in found["b"]] == ["in", "it"] and found["b"][1][1:] == pytest.approx((1.0, 1.25))


def test_times_of_words_are_read_from_a_ctm(tmp_path):
    path = tmp_path / "words.ctm"
    path.write_text(";; of a talk\ntalk 1 1.5 0.25 bob 0.93\ntalk 1 1.0 0.5 hi\nother A 0 1 ho\n\n")
    assert read_ctm(path) == {
        "talk": [TimedWord("hi", 1.0, 1.5), TimedWord("bob", 1.5, 1.75)],
        "other": [TimedWord("ho", 0.0, 1.0)],
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("talk 1 1.0 0.5", "4 fields; a line of a CTM is: recording channel start length word"),
        ("talk 1 one 0.5 hi", "'one' is not a time in seconds from 0"),
        ("talk 1 1.0 -0.5 hi", "'-0.5' is not a time in seconds from 0"),
    ],
)
def test_a_line_that_is_none_of_a_ctm(tmp_path, line, problem):
    path = tmp_path / "words.ctm"
    path.write_text(f"talk 1 0 1 ho\n{line}\n")
    with pytest.raises(InputError, match=re.escape(f"{path}:2: {problem}")):
        read_ctm(path)
