"""The comparison of pruners: its lists, its figures, and a run on a few utterances."""

from __future__ import annotations

import prune
import prune_report
import pytest
import soundfile
from prune_report import Arm
from rapidfuzz.distance import Levenshtein

from sap2.errors import InputError
from sap2.rowfiles import read_rows, write_rows
from sap2.tiny.speech import speak

SAID = {
    ("t1", "the vendett leaves a science"): ["vendett", "brumin"],
    ("t1", "now the krovon moves"): ["krovon", "stomin"],
    ("t2", "the nailveek gives a road"): ["nailveek", "fleldon"],
}


def result(id, labels, response, ranked, picked):
    return {
        "id": id,
        "labels": labels,
        "response": response,
        "keyword_probabilities": ranked,
        "picked_keywords": picked,
        "seconds": {"prune": 0.5},
    }


def test_what_was_picked_is_counted():
    rows = [
        result("a", "we met emily and bob", "", {"emily": 0.9, "tim": 0.6, "ann": 0.5, "Bob": 0.4}, ["emily", "tim"]),
        result("b", "nobody", "", {}, []),
        result("c", "it is zoe", "", {"eve": 0.1}, ["eve"]),
    ]
    lists = {"a": ["Emily", "bob", "tim"], "b": ["bob"], "c": ["zoe"]}
    found = prune_report.picks(rows, lists)
    assert found["recall at 3"] == pytest.approx(100 / 3) and found["recall at 5"] == pytest.approx(200 / 3)
    assert found["recall"] == pytest.approx(100 / 3) and found["precision"] == pytest.approx(100 / 3)
    assert found["picked"] == 1.0 and 0 < found["calibration error"] < 1


def test_names_that_nobody_said_are_counted():
    rows = [
        result("a", "we met emily", "we met emily tim", {}, ["emily", "tim", "steve wozniak"]),
        result("b", "we met", "wozniak we wozniak", {}, ["steve wozniak"]),
    ]
    assert prune_report.inventions(rows) == pytest.approx(100 * 3 / 2)


def test_a_list_that_comes_out_as_the_transcript_is_counted():
    told = ["emily", "tim", "bob", "zoe"]
    rows = [
        result("a", "we met emily", "we met emily tim bob zoe", {}, told),
        result("b", "we met emily and tim", "we met emily tim bob zoe", {}, told),
        result("c", "", "tim is bob and zoe", {}, told),
    ]
    assert prune_report.leaks(rows) == pytest.approx(100 / 3)


def test_names_are_new_and_the_same_each_time():
    names = prune.make_names(50, {"x"})
    assert len(set(names)) == 50 and names == prune.make_names(50, set())
    assert names[1:] == prune.make_names(49, {names[0]})


@pytest.fixture
def utterances(tmp_path):
    rows = []
    for number, ((talk, text), keywords) in enumerate(SAID.items()):
        path = str(tmp_path / f"utt{number}.wav")
        soundfile.write(path, speak(text), 16_000)
        rows.append({"id": f"utt{number}", "session": talk, "audio": path, "text": text, "keywords": keywords})
    write_rows(tmp_path / "utterances.jsonl", rows)
    return tmp_path / "utterances.jsonl"


def test_a_run_compares_what_was_asked_for(utterances, tmp_path, capsys, monkeypatch):
    chosen = [Arm("none", 0, None), Arm("whole", 60, None), Arm("bank", 600, "spot")]
    monkeypatch.setattr(prune, "arms", lambda settings: chosen)
    sizes = ["--sizes", "40", "60", "600", "--prune-threshold", "0", "--seeds", "1"]
    assert prune.main([str(utterances), str(tmp_path / "out"), *sizes]) == 0
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [line[:2] for line in lines] == [["none", "none"], ["60", "none"], ["bank of 600", "spot"]]
    assert float(lines[-1][4]) == 100.0  # all names are among the first ten of 600
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
    for _, row in read_rows(tmp_path / "out" / "seed.0" / "60.jsonl"):
        assert len(set(row["keywords"])) == 60 and set(SAID[row["session"], row["text"]]) <= set(row["keywords"])
    bank = (tmp_path / "out" / "seed.0" / "bank.600.txt").read_text(encoding="utf-8").split()
    assert len(set(bank)) == 600 and {"vendett", "nailveek", "fleldon"} <= set(bank)


def test_one_talk_has_no_other(utterances, tmp_path):
    write_rows(tmp_path / "one.jsonl", [row for _, row in read_rows(utterances)][:2])
    settings = prune.Settings(tmp_path / "one.jsonl", tmp_path, "m", "p", "a", (40,), ("spot",), 1, 5, 8, 0.05, 4)
    with pytest.raises(InputError, match="holds 1 talks; allowed: 2 or more"):
        prune.prepare(settings, 0, tmp_path)


def test_what_is_decoded():
    settings = prune.Settings("u", "o", "m", "p", "a", (40, 500, 2000), ("spot", "generate"), 1, 5, 8, 0.05, 4)
    names = [arm.name for arm in prune.arms(settings)]
    assert "list-500-generate" in names and "list-2000-generate" not in names and "whole-2000" not in names
    assert names[0] == "none" and names[-2:] == ["beside-2000-spot", "useless-2000-spot"]
    assert "bank-2000-spot" in names and "list-2000-spot" not in names
    assert Arm("list", 40, "spot").name == "list-40-spot"
    assert {"useless-40-spot", "alike-40-spot"} < set(names)
    assert [Arm(kind, 2000, "spot").terms for kind in ("list", "bank", "beside", "useless", "alike")] == [
        *("2,000", "bank of 2,000", "40, and a bank of 2,000", "2,000 (useless)", "2,000 (look-alikes)")
    ]


def test_look_alikes_stand_for_what_is_said(utterances, tmp_path):
    rows = [row for _, row in read_rows(utterances)]
    settings = prune.Settings(utterances, tmp_path, "m", "p", "a", (40,), ("spot",), 1, 5, 8, 0.05, 4)
    prune.prepare(settings, 0, tmp_path)
    given = {row["id"]: row for row in rows}
    checked = 0
    for _, row in read_rows(tmp_path / "alike.jsonl"):
        said, own = set(row["text"].split()), given[row["id"]]["keywords"]
        spoken = [keyword for keyword in own if keyword in said]
        assert said.isdisjoint(row["keywords"]) and len(row["keywords"]) > len(own) - len(spoken)
        for keyword in spoken:
            near = [one for one in row["keywords"] if Levenshtein.distance(one, keyword) <= 2 and one not in own]
            assert near and all(len(one) == len(keyword) for one in near)
            checked += 1
    assert checked == 3


def test_each_seed_draws_other_utterances_and_names(tmp_path):
    rows = [
        {"id": f"{talk}{n}", "session": talk, "audio": "x.wav", "text": "a b", "keywords": [f"{talk}k{n}"]}
        for talk in "st"
        for n in range(9)
    ]
    write_rows(tmp_path / "u.jsonl", rows)
    settings = prune.Settings(tmp_path / "u.jsonl", tmp_path, "m", "p", "a", (40, 600), ("spot",), 2, 3, 8, 0.05, 4)
    drawn, banks = [], []
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        prune.prepare(settings, seed, folder)
        drawn.append({row["id"] for _, row in read_rows(folder / "40.jsonl")})
        banks.append((folder / "bank.600.txt").read_text(encoding="utf-8"))
    assert [len(ids) for ids in drawn] == [6, 6] and not drawn[0] & drawn[1]
    assert banks[0] != banks[1]


def test_a_small_bank_holds_all_that_is_said(tmp_path):
    """In places of chance: of two terms that sound alike, the first one stands before."""
    names = [f"name{n:04}" for n in range(900)]
    lists = [names[:450], names[450:]]
    rows = [
        {"id": f"{talk}{n}", "session": talk, "audio": "a.wav", "text": f"we met {lists[talk == 't'][n]}"}
        for talk in "st"
        for n in range(9)
    ]
    write_rows(tmp_path / "u.jsonl", [{**row, "keywords": lists[row["session"] == "t"]} for row in rows])
    sizes = (600, 2000)
    prune.prepare(
        prune.Settings(tmp_path / "u.jsonl", tmp_path, "m", "p", "a", sizes, ("spot",), 1, 9, 8, 0.05, 4), 0, tmp_path
    )
    small, large = ((tmp_path / f"bank.{size}.txt").read_text(encoding="utf-8").split() for size in sizes)
    said = {row["text"].split()[-1] for row in rows}
    assert len(set(small)) == 600 and said <= set(small)
    assert small == [name for name in large if name in set(small)] and set(small[:18]) != said


def test_a_homophone_that_was_told_counts_as_heard():
    assert prune_report._sounds("flour") == prune_report._sounds("flower") != prune_report._sounds("floor")
    row = result("a", "we met flour here", "we mat flower hear", {}, ["flower", "mat"])
    assert prune_report.sounds_right(row)["response"] == "we mat flour hear"  # nobody told it "hear"
    assert prune_report.sounds_right({**row, "picked_keywords": []})["response"] == row["response"]


def test_who_hears_all_must_guess_between_homophones(tmp_path):
    rows = [
        {"id": "a", "session": "s", "text": "we met flour here", "keywords": ["flour", "here"]},
        {"id": "b", "session": "t", "text": "we met eve", "keywords": ["eve", "flower"]},
    ]
    assert prune_report.guessed(rows, ["flour", "eve", "here", "eve"]) == 0
    guessed = prune_report.guessed(rows, ["flower", "eve", "hear", "floor"])
    assert guessed == pytest.approx(100 / 3)  # half of two words out of three
    write_rows(tmp_path / "40.jsonl", rows)
    (tmp_path / "bank.600.txt").write_text("flour\nflower\neve\n", encoding="utf-8")
    arms = [Arm("bank", 600, "spot"), Arm("bank", 600, "match"), Arm("list", 40, "spot")]
    (line,) = prune_report.limits([tmp_path], arms)
    assert line.startswith("bank of 600: ") and line.endswith(" 16.7")
