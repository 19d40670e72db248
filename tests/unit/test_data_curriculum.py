"""Rows whose lists grow, for a model that learns from scratch."""

from __future__ import annotations

import json

import pytest
from commands import tool

from sap2.data.build_curriculum import DEFAULT_STAGES, Stage, build_curriculum, parse_stages, parse_tasks
from sap2.prompts import parse_joint_reply, parse_prune_reply
from sap2.rowfiles import read_rows
from sap2.rows import find_contexts

NAMES = [f"name{number:02d}" for number in range(40)]


@pytest.fixture
def utterances(tmp_path):
    path = tmp_path / "utterances.jsonl"
    rows = []
    for number in range(12):
        own = NAMES[number * 3 : number * 3 + 4]
        text = f"we saw {own[0]} today" if number % 4 else "nobody was there"
        rows.append({"id": f"u{number}", "audio": f"u{number}.flac", "text": text, "keywords": own})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(utterances, tmp_path, count=96, stages="0.5:1,0.5:2-8", **more):
    output = tmp_path / "rows.jsonl"
    build_curriculum(utterances, output, count, stages, block=8, **more)
    return [row for _, row in read_rows(output)]


def list_of(row):
    (context,) = find_contexts(row["messages"][0]["content"])
    return [keyword for keyword in context.body.split(", ") if keyword]


def test_lists_grow_and_a_block_has_one_size(utterances, tmp_path):
    rows = build(utterances, tmp_path, tasks="asr=1")
    sizes = [len(list_of(row)) for row in rows]
    assert set(sizes[:48]) == {1} and max(sizes[48:]) > 4
    for start in range(48, 96, 8):
        assert len({size for size in sizes[start : start + 8] if size > 4}) <= 1
    assert len({row["id"] for row in rows}) == len(rows)


def test_replies_fit_the_lists(utterances, tmp_path):
    said = {f"u{number}.flac": number for number in range(12)}
    tasks = set()
    for row in build(utterances, tmp_path, count=400):
        number = said[row["audios"][0]]
        text = f"we saw {NAMES[number * 3]} today" if number % 4 else "nobody was there"
        prompt, reply = (message["content"] for message in row["messages"])
        keywords = list_of(row)
        spoken = [keyword for keyword in keywords if keyword in text.split()]
        assert len(set(keywords)) == len(keywords)
        if "then transcribe" in prompt:
            tasks.add("joint")
            assert parse_joint_reply(reply) == (spoken, text) and "transcript" not in row
        elif prompt.startswith("<audio>Select"):
            tasks.add("prune")
            assert parse_prune_reply(reply) == spoken and row["transcript"] == text
        else:
            tasks.add("asr" if keywords else "plain")
            assert reply == text and "transcript" not in row
    assert tasks == {"asr", "prune", "joint", "plain"}


def test_some_lists_are_useless_and_some_hold_other_talks(utterances, tmp_path):
    rows = build(utterances, tmp_path, count=400, stages="1:4", tasks="asr=1")
    spoken = [row for row in rows if not row["messages"][1]["content"].startswith("nobody")]
    useless = [row for row in spoken if not set(list_of(row)) & set(row["messages"][1]["content"].split())]
    assert 0.05 < len(useless) / len(spoken) < 0.25
    own = {f"u{number}.flac": set(NAMES[number * 3 : number * 3 + 4]) for number in range(12)}
    assert any(not set(list_of(row)) <= own[row["audios"][0]] for row in rows)


def test_the_same_seed_gives_the_same_rows(utterances, tmp_path):
    first = build(utterances, tmp_path, seed=1)
    assert first == build(utterances, tmp_path, seed=1) != build(utterances, tmp_path, seed=2)
    # a shorter run with the same first stages begins alike
    assert first[:48] == build(utterances, tmp_path, seed=1, count=48, stages="1:1")


@pytest.mark.parametrize(
    "text, message",
    [
        ("1", "stage '1' is not SHARE:KEYWORDS"),
        ("1:x", "stage '1:x' is not"),
        ("1:5-2", "stage '1:5-2'; allowed"),
        ("0:1,1:2", "stage '0:1'; allowed"),
        ("0.5:1", "sum to 0.5; allowed: 1"),
    ],
)
def test_bad_stages_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(text)


@pytest.mark.parametrize(
    "text, message", [("asr", "task 'asr' is not"), ("sing=1", "task 'sing=1'; allowed"), ("asr=0.5", "sum to 0.5")]
)
def test_bad_tasks_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_tasks(text)


def test_stages_are_read():
    assert parse_stages("0.25:1,0.75:2-8") == [Stage(0.25, 1, 1), Stage(0.75, 2, 8)]
    assert sum(stage.share for stage in parse_stages(DEFAULT_STAGES)) == pytest.approx(1)


def test_the_command(utterances, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    arguments = (utterances, "--rows", "16", "--block", "8", "--output", output)
    assert tool("build_curriculum", *arguments) == 0
    assert capsys.readouterr().out.startswith(f"{output}: 16 rows")
    utterances.write_text('{"id": "a", "audio": "a.flac"}\n')
    assert tool("build_curriculum", *arguments) == 2
    assert capsys.readouterr().err.endswith("utterances.jsonl:1: a has no transcript\n")
    utterances.write_text("")
    assert tool("build_curriculum", *arguments) == 2
    assert "no utterance in this file" in capsys.readouterr().err
