"""Arms of several seeds in the comparison under noise: means, intervals over talks, and differences."""

from __future__ import annotations

import json

import noise
import noise_arms
import noise_report
import numpy as np
import pytest
from noise_report import CLEAN, Cell, Condition

from sap2.rowfiles import write_rows

TALKS = [f"talk{n}" for n in range(8)]


def utterances():
    return [
        {"id": f"{talk}.{n}", "session": talk, "text": "we saw emily there", "keywords": ["emily", "wozniak"]}
        for talk in TALKS
        for n in range(2)
    ]


def results(wrong, found=("emily",)):
    """Replies in which the first words of so many utterances of each talk are wrong."""
    return [
        {
            "id": row["id"],
            "labels": row["text"],
            "response": "he saw emily there" if int(row["id"][-1]) < wrong[row["session"]] else row["text"],
            "picked_keywords": list(found),
            "keyword_probabilities": dict.fromkeys(found, 0.5),
        }
        for row in utterances()
    ]


def every(count):
    return dict.fromkeys(TALKS, count)


def test_adapters_of_one_name_and_other_numbers_are_an_arm():
    adapters = ["base", "noisy.1", "noisy.2", "v1.5", "wider.1", "a.b.3"]
    assert noise_arms.arms_of(adapters) == {
        "base": ["base"],
        "noisy": ["noisy.1", "noisy.2"],
        "v1": ["v1.5"],
        "wider": ["wider.1"],
        "a.b": ["a.b.3"],
    }


@pytest.fixture
def write(tmp_path):
    """Put the results and letters of a cell into a folder, as a run leaves them."""
    known = {}

    def write(cell, rows, letters):
        write_rows(tmp_path / f"result.{cell.name}.jsonl", rows)
        known.setdefault(cell.adapter, {})[cell.condition.name] = letters
        (tmp_path / f"spelled.{cell.adapter}.json").write_text(json.dumps(known[cell.adapter]))
        return cell

    return write


def test_the_report_of_three_seeds(write, tmp_path):
    some = {talk: n % 3 for n, talk in enumerate(TALKS)}  # of 7 utterances
    letters = {talk: [n, 100] for n, talk in enumerate(TALKS)}
    cells = [
        write(Cell(CLEAN, "noisy.1", "spot"), results(every(0)), letters),
        write(Cell(CLEAN, "noisy.2", "spot"), results(every(2), found=()), letters),
        write(Cell(CLEAN, "noisy.3", "spot"), results(some), letters),
        write(Cell(CLEAN, "clean.1", "spot"), results(every(2)), letters),
    ]
    noise_report.write_report(tmp_path, cells, utterances(), [("noisy", "clean")])
    found = json.loads((tmp_path / "figures.json").read_text())
    arm = found["arms"]["clean.spot"]["noisy"]
    rate = 100 * 7 / (4 * 16)
    assert arm["WER"]["seeds"] == pytest.approx([0, 25, rate])
    assert arm["WER"]["mean"] == pytest.approx((25 + rate) / 3)
    assert arm["recall at 10"]["seeds"] == pytest.approx([100, 0, 100])
    assert arm["letters wrong"]["mean"] == pytest.approx(100 * 28 / 800)
    less = found["differences"]["clean.spot"]["noisy − clean"]["WER"]
    assert less["mean"] == pytest.approx((25 + rate) / 3 - 25)
    table = (tmp_path / "table.md").read_text()
    assert "| clean | spot | noisy | " in table and "[0.0, 25.0, 10.9]" in table
    assert (
        f"| clean | spot | noisy − clean | {less['mean']:+.1f} ({less['low']:+.1f} to {less['high']:+.1f}) |" in table
    )


def test_the_interval_is_that_of_the_mean_over_seeds_on_the_same_talks():
    """Against a slow bootstrap that draws talk by talk."""
    random = np.random.default_rng(3)
    wrong = random.integers(0, 30, size=(3, len(TALKS))).astype(float)
    of_seeds = [np.stack([np.stack([one, np.full(len(TALKS), 50.0)], -1)] * 5, 1) for one in wrong]
    spread = noise_arms.spreads(of_seeds)["WER"]
    draws = random.integers(0, len(TALKS), size=(4000, len(TALKS)))
    means = [np.mean([100 * one[drawn].sum() / (50 * len(TALKS)) for one in wrong]) for drawn in draws]
    assert [spread.low, spread.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=1.0)


def test_a_difference_on_the_same_talks_is_surer_than_the_arms():
    """An arm that is always two points worse is so in every draw, however much the talks differ."""
    hard = np.linspace(5, 40, len(TALKS))
    one, other = (
        [np.stack([np.stack([hard + more, np.full(len(TALKS), 100.0)], -1)] * 5, 1)] * 3 for more in (2.0, 0.0)
    )
    less = noise_arms.differences(one, other)["B-WER"]
    assert less[:3] == pytest.approx((2, 2, 2)) and less.signed == "+2.0 (+2.0 to +2.0)"
    spread = noise_arms.spreads(one)["B-WER"]
    assert spread.high - spread.low > 5


def test_what_is_unknown_is_none(write, tmp_path):
    rows = [{**row, "keywords": []} for row in utterances()]  # no biased word: the B-WER is of nothing
    cell = write(Cell(Condition("room", None), "a", "whole"), results(every(1)), {talk: [1, 9] for talk in TALKS})
    noise_report.write_report(tmp_path, [cell], rows)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["arms"]["room.whole"]["a"]["B-WER"] == {"mean": None, "low": None, "high": None, "seeds": [None]}
    assert "mean over the seeds" not in (tmp_path / "table.md").read_text(), "one seed has no mean"


@pytest.mark.parametrize("text", ["a", "a:a", "a:c", "a:b:a"])
def test_differences_are_of_two_arms(text, tmp_path, capsys):
    flags = ["--adapter", "a.1=x", "--adapter", "b=y", "--differences", text]
    assert noise.main([str(tmp_path / "u.jsonl"), str(tmp_path / "out"), *flags]) == 2
    assert f"--differences {text!r}; allowed: A:B, two of a, b" in capsys.readouterr().err
