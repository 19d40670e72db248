"""From which rows the spotter learns, and what happens where it can learn from none."""

from __future__ import annotations

import logging

import pytest
from datasets import Dataset
from model_rows import context, row
from swift.dataset import LazyLLMDataset

from sap2.errors import InputError
from sap2.ms_swift.transcripts import check_transcripts
from sap2.prompts import asr_prompt, prune_prompt

PRUNE, ASR = f"<audio>{prune_prompt(['emily'])}", f"<audio>{asr_prompt(['emily'])}"


def dataset(*rows):
    return LazyLLMDataset(Dataset.from_list(list(rows)), lambda row, **_: row)


@pytest.mark.parametrize(
    ("given", "transcript"),
    [
        (row(PRUNE, reply="emily"), ""),
        (row(PRUNE, reply="emily", transcript="hi emily"), "hi emily"),
        (row(ASR, reply="hi emily"), "hi emily"),
        (row(ASR, reply="hi, Emily!", transcript="hi emily"), "hi emily"),
        (row("<audio>what is wrong?", reply="the weather"), ""),
        (row("<audio>what is wrong?", reply="the weather", transcript="it rains"), "it rains"),
    ],
)
def test_what_the_spotter_learns_from_a_row(make_template, wavs, given, transcript):
    template = make_template(sap_settings={"sap_pooling": "mean", "sap_spotter": True})
    given = {**given, "audios": [wavs[0]]}
    assert template.encode(given)["transcript"] == transcript
    batch = template.data_collator([template.encode(given)])
    assert ("transcripts" in batch) is bool(transcript)


def test_of_several_questions_nobody_knows_which_reply_is_what_is_said(make_template, wavs):
    template = make_template(sap_settings={"sap_spotter": True})
    given = row(ASR, [wavs[0]], reply="hi emily")
    given["messages"] += [{"role": "user", "content": "and in German?"}, {"role": "assistant", "content": "hallo"}]
    assert template.encode(given)["transcript"] == ""


def test_rows_that_tell_nothing_are_refused_where_the_spotter_would_stay_untrained(caplog):
    silent = dataset(row(PRUNE, ["a.wav"], reply="emily"), row(f"<audio>why? {context('x')}", ["b.wav"]))
    with pytest.raises(
        InputError, match=r"none of the 2 training rows tells what is said: .*; allowed: rows with a column"
    ):
        check_transcripts(silent, untrained=True)
    logging.getLogger("swift").propagate = True
    with caplog.at_level(logging.WARNING, "swift"):
        check_transcripts(silent, untrained=False)
    assert "the spotter stays as it is" in caplog.text


@pytest.mark.parametrize("more", [{"transcript": "hi emily"}, {"messages": row(ASR, reply="hi emily")["messages"]}])
def test_one_row_that_tells_is_enough(more):
    check_transcripts(
        dataset(row(PRUNE, reply="emily", transcript=""), {**row(PRUNE, reply="emily"), **more}), untrained=True
    )


def test_streams_are_not_looked_at():
    check_transcripts(iter([]), untrained=True)
