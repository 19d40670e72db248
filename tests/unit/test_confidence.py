"""How sure words are."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.errors import InputError
from sap2.pipeline.calibrating_words import fit_evidence, right_words
from sap2.pipeline.confidence import Evidence, Offsets, WordCalibration, token_log_probs, token_spans
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.words import find_words


def reply(*pieces, text=None):
    """The n-th token has the log probability -n."""
    return Reply(
        text if text is not None else "".join(pieces), True, list(pieces), [-float(n) for n, _ in enumerate(pieces)]
    )


def log_probs(said, text, transcript=None):
    return token_log_probs(said, said.text if transcript is None else transcript, text, find_words(text))


def test_each_word_has_the_tokens_that_it_is_made_of():
    said = reply("steve", " wos", "ni", "ak left", "<|im_end|>", text="steve wosniak left")
    assert log_probs(said, "steve wosniak left") == [[-0.0], [-1.0, -2.0, -3.0], [-3.0]]
    assert log_probs(reply("gpt", " 4", "!"), "GPT-4!") == [[-0.0, -1.0]]  # in the slide's spelling
    assert log_probs(reply("Straße"), "STRASSE") == [[-0.0]]
    assert log_probs(reply("hi", " —"), "hi —") == [[-0.0], []]  # no letter
    assert log_probs(reply("hi"), "ho") == [[]]


def test_the_transcript_may_be_a_part_of_the_reply():
    said = reply("hi bob", "\n", "hi", " bob")
    assert log_probs(said, "hi Bob", transcript="hi bob") == [[-2.0], [-3.0]]


def test_characters_of_several_tokens_count_with_all_of_them():
    broken = "\N{REPLACEMENT CHARACTER}"
    said = reply("a", broken, broken, "b", broken, text="a王b小")
    assert token_spans(said) == [(0, 1), (1, 2), (1, 2), (2, 3), (3, 4)]
    assert log_probs(said, "a王b小") == [[-0.0], [-1.0, -2.0], [-3.0], [-4.0]]


@given(st.lists(st.text(max_size=4), max_size=5), st.text(max_size=10))
def test_every_token_has_a_place_in_the_text_whatever_the_model_says(pieces, text):
    spans = token_spans(reply(*pieces, text=text))
    assert len(spans) == len(pieces)
    assert all(0 <= start <= end <= len(text) for start, end in spans)


def test_a_calibration_is_kept_beside_the_adapter(tmp_path):
    assert WordCalibration.load(tmp_path) is None
    kept = WordCalibration(1.0, 2.0, 3.0, Offsets(-0.12, 0.01))
    path = kept.save(tmp_path, words=5)
    assert WordCalibration.load(tmp_path) == kept and json.loads(path.read_text())["words"] == 5
    # as it was before times were fitted
    path.write_text('{"calibration": {"constant": 1, "log_prob": 2, "heard": 3}, "words": 5}')
    assert WordCalibration.load(tmp_path) == WordCalibration(1.0, 2.0, 3.0, Offsets())
    path.write_text("{}")
    with pytest.raises(InputError, match=r"words\.json: not a calibration of words: .* sap2 calibrate writes one"):
        WordCalibration.load(tmp_path)


def test_probabilities_are_odds_of_weighed_evidence():
    calibration = WordCalibration(1.0, 2.0, 0.5)
    assert calibration.probability(Evidence(-0.5, -1.0)) == pytest.approx(1 / (1 + math.exp(0.5)))
    assert calibration.probability(Evidence(-1e9, -1e9)) == pytest.approx(0.0)


def test_fitted_probabilities_are_true():
    numbers = np.random.default_rng(0)
    truth = WordCalibration(3.0, 2.0, 0.5)
    evidence = [Evidence(-float(a), -float(b)) for a, b in numbers.exponential(1.0, (4000, 2)) * [1.0, 3.0]]
    right = [bool(numbers.random() < truth.probability(one)) for one in evidence]
    fit = fit_evidence(evidence, right)
    assert fit.calibration[:3] == pytest.approx(truth[:3], abs=0.4)
    assert fit.error < 0.02 and fit.words == 4000 and fit.wrong == right.count(False)
    with pytest.raises(InputError, match="2 of 2 words are right; allowed: some, and not all"):
        fit_evidence(evidence[:2], [True, True])


def test_words_are_right_whatever_their_case_and_punctuation():
    assert right_words(["Hi,", "emilie", "met", "—", "GPT-4"], ["hi", "emily", "met", "gpt4"]) == [
        *(True, False, True, False, True)
    ]
