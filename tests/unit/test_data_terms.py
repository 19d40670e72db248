"""Rows of the retriever's curriculum."""

from __future__ import annotations

import json

import pytest

from sap2.commands.data import run_tool
from sap2.data.build_terms import build_terms
from sap2.errors import InputError
from sap2.rowfiles import read_rows
from sap2.rows import row_keywords
from sap2.text import contains_words

SAID = "the wozniak machine hears two words of steve wozniak"


@pytest.fixture
def source(tmp_path):
    rows = [
        {"id": "a", "audio": "a.wav", "text": SAID, "keywords": ["steve wozniak", "emily"]},
        {"id": "b", "audio": "b.wav", "text": "short", "keywords": []},
    ]
    path = tmp_path / "utterances.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lists(path):
    return {row["id"]: row_keywords(row) for _, row in read_rows(path)}


@pytest.mark.parametrize(("kind", "lengths"), [("words", {1}), ("phrases", {2, 3, 4})])
def test_words_and_phrases_are_drawn_from_what_is_said(source, tmp_path, kind, lengths):
    build_terms(source, tmp_path / "rows.jsonl", kind, most=20)
    terms = lists(tmp_path / "rows.jsonl")["a"]
    assert len(terms) > 3 and {len(term.split()) for term in terms} <= lengths
    assert all(contains_words(SAID.split(), term.split()) for term in terms)
    assert lists(tmp_path / "rows.jsonl")["b"] == (["short"] if kind == "words" else [])
    build_terms(source, tmp_path / "few.jsonl", kind, most=2)
    build_terms(source, tmp_path / "again.jsonl", kind, most=2)
    assert len(lists(tmp_path / "few.jsonl")["a"]) == 2
    assert (tmp_path / "few.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()


def test_keywords_are_those_that_are_said(source, tmp_path, capsys):
    assert run_tool("build_terms", [str(source), "--terms", "keywords", "--output", str(tmp_path / "rows.jsonl")]) == 0
    assert lists(tmp_path / "rows.jsonl") == {"a": ["steve wozniak"], "b": []}
    assert "2 rows" in capsys.readouterr().out


def test_phrases_of_a_script_without_spaces(tmp_path):
    path = tmp_path / "utterances.jsonl"
    path.write_text(json.dumps({"id": "a", "audio": "a.wav", "text": "我们做语音识别", "keywords": []}) + "\n")
    assert (
        run_tool("build_terms", [str(path), "--terms", "phrases", "--char", "--output", str(tmp_path / "r.jsonl")]) == 0
    )
    terms = lists(tmp_path / "r.jsonl")["a"]
    assert terms and all(term in "我们做语音识别" and 2 <= len(term) <= 4 for term in terms)


def test_an_unknown_kind_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="terms 'letters' are unknown; allowed: words, phrases, keywords"):
        build_terms(source, tmp_path / "rows.jsonl", "letters")
