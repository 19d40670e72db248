"""Case and spelling: what a training's rows are, lists in its case, transcripts in the spelling of the slides."""

from __future__ import annotations

import json

import pytest
from pipeline_rows import prune_row, write_jsonl

from sap2.pipeline.stages import stage_content
from sap2.prompts import asr_prompt, joint_reply
from sap2.spelling import Writing, apply_case, rewrite_contexts, spell_as_listed
from sap2.trained import dataset_files, describe_rows


def row(stage, keywords, reply):
    return prune_row(content=stage_content(stage, keywords), reply=reply)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("asr", ["emily"], "hi emily")], ("lower", ["asr"])),
        ([row("prune", ["emily"], "none"), row("asr", [], "hi")], ("lower", ["asr", "prune"])),
        ([row("joint", ["emily"], joint_reply(["emily"], "hi emily"))], ("lower", ["joint"])),
        ([row("asr", ["Emily"], "Hi Emily.")], ("keep", ["asr"])),
        ([row("asr", ["EMILY"], "HI EMILY")], ("upper", ["asr"])),
        ([row("asr", ["emily"], "hi emily")] * 500 + [row("asr", [], "I")], ("lower", ["asr"])),
        ([prune_row(content="<audio>What is said?", reply="hi"), row("asr", [], "hi")], ("lower", [])),
        ([{"query": "<audio>/A.wav</audio>Transcribe speech to text.", "response": "hi"}], ("lower", ["asr"])),
        ([row("asr", [], "沃兹")], None),
    ],
)
def test_rows_are_described(tmp_path, rows, expected):
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    described = describe_rows(dataset_files([f"{path}#200", "some/hub-dataset"]))
    assert (described and described[:2]) == expected


@pytest.mark.parametrize(
    ("keywords", "punctuation"),
    [(["o'brien", "new york"], "none"), (["gpt-4", "emily"], "keep"), ([], "keep")],
)
def test_punctuation_of_the_keywords_is_described(tmp_path, keywords, punctuation):
    path = write_jsonl(tmp_path / "rows.jsonl", [row("asr", keywords, "well, hi emily!")])
    assert describe_rows([path]).punctuation == punctuation


def test_only_the_keywords_of_a_turn_change_their_case():
    content = "<audio>Say It: <|startofcontext|>Emily, NeXT<|endofcontext|> Or <|startofcontext|><|endofcontext|>."
    lower = "<audio>Say It: <|startofcontext|>emily, next<|endofcontext|> Or <|startofcontext|><|endofcontext|>."
    assert rewrite_contexts(content, Writing("lower")) == lower
    assert rewrite_contexts(content, Writing()) == content
    marked = content.replace("NeXT", "AT&T ，C++、R/3, हिन्दी, O’Brien,  U.S.")
    assert rewrite_contexts(marked, Writing("lower", words=True)) == lower.replace(
        "next", "at t ，c、r 3, हिन्दी, o’brien,  u s"
    )
    assert apply_case("NeXT", "upper") == "NEXT"


@pytest.mark.parametrize(
    ("text", "keywords", "expected"),
    [
        ("steve wozniak left next for gpt 4", ["Wozniak", "NeXT", "GPT-4"], "steve Wozniak left NeXT for GPT-4"),
        ("the gpt-4 and gpt4 and gpt 40", ["GPT-4"], "the GPT-4 and GPT-4 and gpt 40"),
        ("STEVE WOZNIAK", ["Steve Wozniak"], "Steve Wozniak"),
        ("Wozniak said WOZNIAK", ["wozniak"], "Wozniak said wozniak"),
        ("o'reilly and oreilly met", ["O’Reilly"], "O’Reilly and O’Reilly met"),
        ("new york city is in new york", ["New York", "New York City"], "New York City is in New York"),
        ("the nexts and annex", ["NeXT"], "the nexts and annex"),
        ("see c and r", ["C++", "R"], "see c and r"),
        ("zürich", ["ZÜRICH"], "ZÜRICH"),
        ("hi", [], "hi"),
        ("ıstanbul and istanbul", ["İstanbul", "ISTANBUL"], "ıstanbul and ISTANBUL"),
        ("emily", [f"name{number}" for number in range(100)] + ["Emily"], "Emily"),
        ("a\\1 b", ["A.B"], "a\\1 b"),
    ],
)
def test_keywords_are_written_as_on_the_slides(text, keywords, expected):
    assert spell_as_listed(text, keywords) == expected


def test_swift_s_arguments_record_what_the_rows_are(tmp_path):
    from types import SimpleNamespace

    from sap2.ms_swift.arguments import record_rows

    path = write_jsonl(tmp_path / "rows.jsonl", [row("asr", ["emily"], "hi emily")])
    args = SimpleNamespace(dataset=[path])
    record_rows(args)
    assert (args.sap_case, args.sap_stages, args.sap_punctuation) == ("lower", ["asr"], "none")
    json.dumps(vars(args))
    unknown = SimpleNamespace(dataset=["hub/name"])
    record_rows(unknown)
    assert vars(unknown) == {"dataset": ["hub/name"]}


@pytest.mark.parametrize(
    "bad",
    [
        '{"messages": [{"role": "user", "content": "<audio><|startofcontext|>bob"}], "audios": ["b.wav"]}',
        '{"messages": [{"role": "user", "content": "<audio>"}, "hi"], "audios": ["b.wav"]}',
        '{"messages": ',
    ],
)
def test_bad_rows_are_left_to_those_who_encode_them(bad, tmp_path):
    good = '{"messages": [{"role": "user", "content": "<audio>' + asr_prompt(["bob"]) + '"}, {"role": "assistant", '
    good += '"content": "hi bob"}], "audios": ["a.wav"]}'
    (tmp_path / "rows.jsonl").write_text(f"{bad}\n{good}\n")
    assert describe_rows([tmp_path / "rows.jsonl"]) == ("lower", ["asr"], "none")
