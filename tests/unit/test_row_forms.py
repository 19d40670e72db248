"""Rows and utterances as other tools write them: one rule for a row's audio and id, everywhere."""

from __future__ import annotations

import json

import pytest
from commands import tool
from pipeline_rows import write_jsonl

from sap2.data.check import CheckOptions, check_file
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.data.row_checks import take_apart
from sap2.data.utterances import read_utterances
from sap2.errors import InputError
from sap2.pipeline.items import read_items
from sap2.prompts import asr_prompt, prune_prompt
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import as_messages, row_audios, row_id, row_keywords
from sap2.scoring.inputs import Problems, read_results

PROMPT = prune_prompt(["emily", "steve wozniak"])
REPLY = {"role": "assistant", "content": "emily"}
INLINE = {"messages": [{"role": "user", "content": f"<audio>/data/a.wav</audio>{PROMPT}"}, REPLY]}
FORMS = [
    INLINE,
    {"messages": [{"role": "user", "content": f"<audio>{PROMPT}"}, REPLY], "audios": ["/data/a.wav"]},
    {"messages": [{"role": "user", "content": f"<audio>{PROMPT}"}, REPLY], "audios": "/data/a.wav"},
    {"messages": [{"role": "user", "content": f"<audio>{PROMPT}"}, REPLY], "audio": "/data/a.wav"},
    {"messages": [{"role": "user", "content": f"<audio>{PROMPT}"}, REPLY], "audios": [{"path": "/data/a.wav"}]},
    {
        "conversations": [
            {"from": "human", "value": f"<audio>/data/a.wav</audio>{PROMPT}"},
            {"from": "gpt", "value": "emily"},
        ]
    },
    {"query": f"<audio>{PROMPT}", "response": "emily", "audios": ["/data/a.wav"]},
    {"query": f"<audio>/data/a.wav</audio>{PROMPT}", "response": "emily", "history": []},
]


@pytest.mark.parametrize("row", FORMS)
def test_one_rule_for_a_rows_audio_and_id(row):
    assert row_audios(row) == ["/data/a.wav"]
    assert row_id(row) == "/data/a.wav"
    assert row_keywords(row) == ["emily", "steve wozniak"]
    parts = take_apart(row)
    assert (parts.audios, parts.keywords, parts.reply) == (["/data/a.wav"], ["emily", "steve wozniak"], "emily")


@pytest.mark.parametrize("row", FORMS)
def test_the_pipeline_takes_every_form(tmp_path, row):
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    (item,) = read_items(path, "prune")
    assert (item.id, item.audio, item.keywords) == ("/data/a.wav", "/data/a.wav", ["emily", "steve wozniak"])
    assert item.prune_labels == "emily"


def test_history_and_system_of_a_query():
    row = {"query": "and now?", "response": "c", "system": "be brief", "history": [["a?", "b"]]}
    turns = [(turn["role"], turn["content"]) for turn in as_messages(row)["messages"]]
    assert turns == [
        ("system", "be brief"),
        ("user", "a?"),
        ("assistant", "b"),
        ("user", "and now?"),
        ("assistant", "c"),
    ]


def test_results_of_inline_rows_are_scored_and_joined(tmp_path):
    """The original README's form, through scoring and through the step between the stages."""
    rows = [
        {
            "messages": [{"role": "user", "content": f"<audio>/data/{n}.wav</audio>{PROMPT}"}],
            "response": "Emily",
            "labels": "emily",
        }
        for n in "ab"
    ]
    predictions = write_jsonl(tmp_path / "predictions.jsonl", rows)
    problems = Problems()
    assert list(read_results(predictions, problems)) == ["/data/a.wav", "/data/b.wav"]
    assert not problems
    prompt = asr_prompt(["emily", "steve wozniak"])
    stage_two = [
        {
            "messages": [
                {"role": "user", "content": f"<audio>/data/{n}.wav</audio>{prompt}"},
                {"role": "assistant", "content": "hi"},
            ]
        }
        for n in "ba"
    ]
    write_jsonl(tmp_path / "rows.jsonl", stage_two)
    report = extract_predicted_keywords(predictions, tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    assert (report.rows, report.keywords, report.missing) == (2, 2, 0)
    written = [row for _, row in read_rows(tmp_path / "out.jsonl")]
    assert [row_keywords(row) for row in written] == [["emily"], ["emily"]]
    assert [row_audios(row) for row in written] == [["/data/b.wav"], ["/data/a.wav"]]


# ---- utterances


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "audio": "/data/a.wav", "text": "hi", "keywords": ["x"]},
        {"utt": "a", "audio_path": "/data/a.wav", "transcript": "hi", "hotwords": ["x"]},
        {"audio_filepath": "/data/a.wav", "text": "hi", "duration": 3.0, "keywords": ["x"]},
        {"key": "a", "wav": "/data/a.wav", "sentence": "hi", "keywords": ["x"]},
    ],
)
def test_utterances_of_other_tools(tmp_path, record):
    write_jsonl(tmp_path / "u.jsonl", [record])
    ((_, utterance),) = read_utterances(tmp_path / "u.jsonl")
    assert (utterance.id, utterance.audio, utterance.text, utterance.keywords) == ("a", "/data/a.wav", "hi", ("x",))
    (item,) = read_items(tmp_path / "u.jsonl", "prune")
    assert (item.audio, item.labels, item.keywords) == ("/data/a.wav", "hi", ["x"])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (INLINE, "a row to train on already, not an utterance .* ms-swift takes it as it is, and `sap2 data check`"),
        (FORMS[5], "a row to train on already"),
        (FORMS[6], "a row to train on already"),
        ({"id": "a", "audio": "/a", "audio_path": "/b"}, "audio and audio_path contradict each other"),
    ],
)
def test_what_is_no_utterance_is_named(tmp_path, record, message):
    write_jsonl(tmp_path / "u.jsonl", [record])
    with pytest.raises(InputError, match=rf"u\.jsonl:1: {message}"):
        list(read_utterances(tmp_path / "u.jsonl"))


@pytest.mark.parametrize(("name", "content"), [("rows.jsonl", ""), ("rows.jsonl", "\n"), ("rows.json", "[]")])
def test_an_empty_file_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: no row in this file"):
        check_file(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: no utterance in this file"):
        list(read_utterances(tmp_path / name))


def test_an_empty_parquet_file_is_an_error(tmp_path):
    write_rows(tmp_path / "rows.parquet", [])
    with pytest.raises(InputError, match="no row in this file"):
        check_file(tmp_path / "rows.parquet", CheckOptions(read_audio=False))


# ---- scripts without spaces


def test_stage_one_rows_of_chinese(tmp_path, capsys):
    """Without --char no keyword of a Chinese transcript would be found, and each reply would be "none"."""
    record = {"id": "a", "audio": "/a.wav", "text": "我们训练语音识别模型", "keywords": ["语音识别", "翻译"]}
    write_jsonl(tmp_path / "u.jsonl", [record])
    for builder in ("build_prune", "build_joint", "build_asr"):
        extra = ["--keywords", "oracle"] if builder == "build_asr" else []
        assert tool(builder, tmp_path / "u.jsonl", "--output", tmp_path / "rows.jsonl", "--char", *extra) == 0
        (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
        text = json.dumps(json.loads(line)["messages"], ensure_ascii=False)
        assert text.count("语音识别") == (3 if builder == "build_joint" else 2), text
    capsys.readouterr()
    assert tool("build_prune", tmp_path / "u.jsonl", "--output", tmp_path / "rows.jsonl") == 0
    assert "none of them spoken in 1 rows (--char looks for keywords in scripts" in capsys.readouterr().out
    assert tool("build_prune", tmp_path / "u.jsonl", "--output", tmp_path / "rows.jsonl", "--char") == 0
    assert "none of them spoken in 0 rows" in capsys.readouterr().out
