"""``eval/corrections.py``: what the spotter put right, counted from results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("corrections", ROOT / "eval" / "corrections.py")
corrections = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(corrections)


def row(labels, reply, response=None, fixed=(), session="a", **probabilities):
    put = [{"written": "x", "keyword": keyword} for keyword in fixed]
    return {
        "id": "x",
        "session": session,
        "labels": labels,
        "replies": {"asr": reply},
        "response": response or reply,
        "keywords": ["Gailvan", "fitus", "New York"],
        "keyword_probabilities": probabilities,
        **({"corrections": put} if fixed else {}),
    }


ROWS = [
    row("we met gailvan", "we met bailvan", "we met gailvan", ["Gailvan"], Gailvan=0.9),  # put right
    row("we met fitus", "we met pitus", fitus=0.3),  # not sure
    row("we met pitus", "we met pitus", "we met fitus", ["fitus"], fitus=0.9),  # wrongly
    row("new york and gailvan", "new york and gailvan", session="b"),
]


def test_everything_is_counted():
    found = corrections.count(ROWS)
    assert found[:7] == (4, 2, 1, 2, 1, 1, 1)
    assert found.said == {"a": 2, "b": 3} and found.left == {"a": 1, "b": 0}


def test_the_share_is_relative_to_the_first():
    first = corrections.count([row("gailvan fitus", "gailvan x", session=talk) for talk in "ab"])
    other = corrections.count([row("gailvan fitus", "y x", session=talk) for talk in "ab"])
    assert corrections.relative(other, first) == (2.0, 2.0, 2.0)
    right = corrections.count([row("gailvan fitus", "gailvan fitus", session=talk) for talk in "ab"])
    assert corrections.relative(right, first) == (0.0, 0.0, 0.0) and corrections.relative(first, right) is None


def test_it_prints_a_line_a_file(tmp_path, capsys):
    path = tmp_path / "clean.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS), encoding="utf-8")
    assert corrections.main([str(path), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 3 and lines[1].split()[:3] == ["clean.jsonl", "4", "5"] and lines[1].split()[-1] == "-"
    )  # talk b


@pytest.mark.parametrize("broken", [{"replies": {}}, {"labels": None}])
def test_other_rows_are_refused(tmp_path, capsys, broken):
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps({**ROWS[0], **broken}) + "\n", encoding="utf-8")
    assert corrections.main([str(path)]) == 2
    assert "x: no reply of stage two, or no labels" in capsys.readouterr().err
