"""Stages, rows and batches of the pipeline."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rows import prune_row, write_jsonl

from sap2.errors import InputError
from sap2.pipeline.batching import by_halves, plan_batches, read_ahead
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.items import BadRow, read_items
from sap2.pipeline.pruners import read_pruning
from sap2.pipeline.stages import plan_stages, read_reply, stage_content
from sap2.prompts import joint_reply, parse_prune_reply
from sap2.rows import content_stage

KEYWORDS = ["emily,", "Emily.", "wozniak", "none", "apple.", "x"]


@pytest.mark.parametrize("stage", ["prune", "asr", "joint"])
@pytest.mark.parametrize("keywords", [[], ["emily"], ["steve wozniak", "emily"]])
def test_a_stage_is_known_by_its_own_prompt(stage, keywords):
    assert content_stage(stage_content(stage, keywords)) == stage


def test_a_wording_of_ones_own_is_no_stage():
    assert content_stage("<audio>What is said?<|startofcontext|>emily<|endofcontext|>") is None


def test_unknown_stages_are_refused():
    assert plan_stages("prune, asr", "a", None).adapters == {"prune": "a", "asr": None}
    with pytest.raises(ValueError, match=r"'asr,prune' is unknown; allowed: asr \| prune,asr \| joint"):
        plan_stages("asr,prune", None, None)


@pytest.mark.parametrize(
    ("stages", "prune", "asr", "message"),
    [
        (
            "prune,asr",
            None,
            "b",
            "prune,asr needs --prune-adapter, or --pruner spot; allowed without: asr, joint, prune",
        ),
        ("asr", "a", "b", "asr would not use --prune-adapter a"),
        ("joint", "a", None, "joint would not use --prune-adapter a"),
        ("prune", "a", "b", "prune would not use --asr-adapter b"),
    ],
)
def test_adapters_that_no_stage_uses_are_refused(stages, prune, asr, message):
    with pytest.raises(ValueError, match=message):
        plan_stages(stages, prune, asr)


def test_a_model_that_was_trained_whole_needs_no_adapter():
    for stages in ("prune", "asr", "joint"):
        assert plan_stages(stages, None, None).stages == (stages,)


def test_replies_are_read_against_the_list():
    keywords = ["Emily", "wozniak", "apple ii"]
    assert read_pruning(said("apple II, emily, ghost."), keywords)[1:3] == (["Emily", "apple ii"], ["ghost"])
    assert read_pruning(said("none"), keywords)[:3] == ([], [], [])
    assert read_reply("asr", "hi emily", keywords) == ("hi emily", keywords, [])
    assert read_reply("joint", joint_reply(["wozniak"], "hi wozniak"), keywords) == ("hi wozniak", ["wozniak"], [])
    assert read_reply("joint", "gibberish", keywords) == ("", [], [])


def said(text, pieces=(), log_probs=()):
    return Reply(text, True, list(pieces), list(log_probs))


def test_keywords_are_ranked_by_the_probability_of_their_part_of_the_reply():
    pieces = ["wo", "z", ",", " emily", ",", " ghost", "<|im_end|>"]
    log_probs = [math.log(p) for p in (0.5, 1.0, 0.5, 0.8, 1.0, 0.1, 1.0)]
    pruning = read_pruning(said("woz, emily, ghost", pieces, log_probs), ["emily", "bob", "woz"])
    assert [pick.keyword for pick in pruning.ranked] == ["emily", "woz"]
    assert [pick.probability for pick in pruning.ranked] == pytest.approx([0.8, 0.25])
    assert pruning.picked == ["emily", "woz"] and pruning.unlisted == ["ghost"]


@given(st.lists(st.sampled_from(KEYWORDS), max_size=4), st.text(max_size=30))
def test_keywords_are_matched_as_between_two_runs(listed, noise):
    """The same choice as the script between two ``swift infer`` runs makes."""
    from sap2.data.extract_predicted_keywords import Predictions
    from sap2.text import clean_keywords

    keywords = clean_keywords(listed)
    predicted = parse_prune_reply(f"{noise}, emily, WOZNIAK.")
    table = Predictions.__new__(Predictions)
    from sap2.data.extract_predicted_keywords import ExtractReport

    table.keep_unknown, table.report = False, ExtractReport()
    picked, unlisted = read_pruning(said(f"{noise}, emily, WOZNIAK."), keywords)[1:3]
    assert table._choose(predicted, keywords) == picked
    assert table.report.unlisted == len(unlisted)


def items_of(tmp_path, rows, stage="prune"):
    return list(read_items(write_jsonl(tmp_path / "rows.jsonl", rows), stage))


def test_a_row_of_the_first_stage_is_taken_as_it_stands(tmp_path):
    content = "<audio>Select keywords that may appear in the speech from the following keywords list: "
    content += "<|startofcontext|>emily wozniak<|endofcontext|>"
    (item,) = items_of(tmp_path, [prune_row(content=content, reply="emily", session="s1")])
    assert item.content == content  # spaces between the keywords, as in the released rows
    assert item.keywords == ["emily", "wozniak"]
    assert (item.labels, item.prune_labels, item.session) == (None, "emily", "s1")


def test_a_row_of_another_stage_is_asked_the_first_stages_question(tmp_path):
    row = prune_row(content=stage_content("asr", ["emily", "steve wozniak"]), reply="hi emily")
    (item,) = items_of(tmp_path, [row])
    assert item.content == stage_content("prune", ["emily", "steve wozniak"])
    assert (item.labels, item.prune_labels) == ("hi emily", "emily")
    joint = prune_row(content=stage_content("joint", ["emily"]), reply=joint_reply(["emily"], "hi emily"))
    assert items_of(tmp_path, [joint])[0].labels == "hi emily"


def test_utterances_and_inline_audio_are_rows_too(tmp_path):
    utterance = {"id": "u1", "audio": "/a.wav", "text": "hi", "keywords": ["emily", "x<|im_end|>y"]}
    inline = {"messages": [{"role": "user", "content": "<audio>/b.wav</audio>Transcribe speech to text."}]}
    first, second = items_of(tmp_path, [utterance, inline], "asr")
    assert (first.audio, first.labels, first.keywords) == ("/a.wav", "hi", ["emily", "x im_end y"])
    assert (second.id, second.audio, second.content) == ("/b.wav", "/b.wav", "<audio>Transcribe speech to text.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (prune_row() | {"audios": []}, "0 audios; allowed: one path"),
        (prune_row() | {"audios": ["/a.wav", "/b.wav"]}, "2 audios"),
        (prune_row(content="<audio>x<|startofcontext|>emily"), "never closed"),
        (prune_row() | {"messages": []}, "0 turns of the user"),
        (prune_row() | {"messages": [5]}, "not a row"),
        ({"text": "x"}, "neither an id nor an audio"),
        ({"id": "u2", "text": "x"}, "neither messages nor an audio"),
        ({"id": "u2", "audio": "/a.wav", "keywords": "emily"}, "must be a list of strings, not 'emily'"),
    ],
)
def test_bad_rows_are_told_and_do_not_stop_the_others(tmp_path, row, message):
    good = prune_row("u3")
    bad, item = items_of(tmp_path, [row, good])
    assert isinstance(bad, BadRow) and bad.number == 1
    assert re.search(message, bad.error)
    assert item.id == "u3"


def test_repeated_ids_and_lines_that_are_no_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    line = json.dumps(prune_row())
    path.write_text(f"{line}\n{line}\n{{broken\n")
    _, repeated, broken = read_items(path, "prune")
    assert repeated == BadRow(2, "u1", "id u1 occurs a second time; allowed: each id once")
    assert broken.number == 3 and broken.id is None and "not JSON" in broken.error


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 7), st.one_of(st.none(), st.integers(1, 300)))
def test_batches_hold_each_utterance_once_within_the_budget(lengths, batch_size, budget):
    batches = plan_batches(lengths, batch_size, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    longest = [lengths[index] for batch in batches for index in batch]
    assert longest == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or budget is None or len(batch) * lengths[batch[0]] <= budget


def test_a_budget_is_used_as_far_as_it_goes():
    assert plan_batches([10, 5, 10, 5, 5, 5], 16, 20) == [[0, 2], [1, 3, 4, 5]]


def test_what_is_read_ahead_comes_in_order_and_errors_take_their_place():
    def half(number):
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    first, second = read_ahead([[4, 3], [8]], half, workers=2)
    assert first[0] == 2 and str(first[1]) == "3 is odd" and second == [4]


def test_one_bad_item_does_not_take_its_batch_with_it():
    def run(items):
        if 13 in items:
            raise InputError("bad luck")
        return [item * 2 for item in items]

    results = by_halves([1, 13, 3, 4, 5], run)
    assert [results[i] for i in (0, 2, 3, 4)] == [2, 6, 8, 10]
    assert str(results[1]) == "bad luck"


def test_other_errors_are_not_swallowed():
    def run(items):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        by_halves([1, 2], run)
