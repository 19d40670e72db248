"""What ``eval/explain.py`` measures and reports, on maps made by hand."""

from __future__ import annotations

import json

import explain_report
import numpy as np
import pytest
from explain_measures import (
    FRACTIONS,
    around,
    covered,
    deletions,
    died,
    interval,
    pearson,
    spearman,
    whole_of_halves,
)
from scipy import stats


def test_correlations_are_scipys():
    first, second = np.random.default_rng(0).random((2, 40))
    second[3:9] = 0.5  # ties
    assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert pearson(first, np.ones(40)) is None and spearman(np.zeros(40), second) is None


def test_covered_is_what_two_maps_share():
    saliency = np.array([0.0, 2, 2, -5])
    assert covered(np.array([0.0, 1, 1, 0]), saliency) == pytest.approx(1), "what is against the word does not count"
    assert covered(np.array([1.0, 1, 0, 0]), saliency) == pytest.approx(0.5)
    assert covered(np.array([1.0, 0, 0, 1]), saliency) == 0
    assert covered(np.ones(4), -saliency.clip(min=0)) is None


def test_halves_and_the_whole():
    assert whole_of_halves(0.5) == pytest.approx(2 / 3) and whole_of_halves(1) == 1
    assert whole_of_halves(-0.1) is None and whole_of_halves(None) is None


def test_a_word_is_around_its_middle():
    found = around(0.4, 0.6, 25, 0.04)
    assert found.argmax() == 12 and found[12] == pytest.approx(1) and found[0] < 0.02
    assert np.isfinite(around(0.4, 0.4, 25, 0.04)).all(), "no length"


def test_deletions_silence_the_first_of_an_order():
    kept = deletions(np.arange(40.0), 8)
    assert kept.shape == (len(FRACTIONS), 8, 40)
    for row, fraction in zip(kept, FRACTIONS, strict=True):
        gone = round(fraction * 40)
        assert not row[:, 40 - gone :].any() and row[:, : 40 - gone].all()
    assert (~deletions(np.ones(3), 1)[0]).sum() == 1, "at least one"


def test_what_a_word_loses():
    assert died([0.8] * len(FRACTIONS), 0.8) == pytest.approx(0)
    assert died([0.9] * len(FRACTIONS), 0.8) == pytest.approx(0), "a word that gets likelier has lost nothing"
    gone = died([0] * len(FRACTIONS), 0.8)
    assert 100 * (1 - FRACTIONS[0] / FRACTIONS[-1]) < gone < 100
    assert gone > died([0.8, *[0] * (len(FRACTIONS) - 1)], 0.8)


def test_intervals_are_over_talks():
    mean, low, high = interval({"a": [1.0, 1.0, 1.0], "b": [0.0]})
    assert (mean, low, high) == (0.75, 0, 1)
    assert interval({"a": [0.5], "b": [0.5, 0.5]}) == (0.5, 0.5, 0.5)


def utterance(talk: str, head: tuple[int, int], keyword: str | None) -> dict:
    """One whose best head is known."""
    heads = np.full((2, 2), 0.1)
    heads[head] = 0.9
    rivals = {"attention": 0.5, "layer 1": 0.2, "layer 2": 0.4, "gradients": 0.3, "spotter": 0.6}
    curve = [0.4] * len(FRACTIONS)
    word = {
        **{"text": "bob", "keyword": keyword, "full": 0.8, "reliability": 0.5, "heads": heads.tolist()},
        **{"pearson": rivals, "spearman": rivals, "covered": rivals, "with gradients": 0.25},
        "died": dict.fromkeys(("silenced", "gradients", "attention", "spotter", "random"), curve),
    }
    unsure = {**word, "full": 0.1, "died": dict.fromkeys(word["died"], [0.1] * len(FRACTIONS))}
    pairs = [[True, 0.2, 3.0], [False, 0.1, 0.0]]
    letters = {"tokens": [0.1, None], "tokens spearman": [0.2], "flat": 0.35}
    return {"id": talk, "session": talk, "words": [word, unsure], **letters, "lists": {"told": 1, "pairs": pairs}}


def test_the_report(tmp_path):
    rows = [utterance("a", (0, 1), "Bob"), utterance("b", (1, 0), None), utterance("c", (1, 0), None)]
    empty = {"id": "d", "session": "c", "words": []}
    text = "".join(json.dumps(row) + "\n" for row in [empty, *rows])
    (tmp_path / "figures.jsonl").write_text(text, encoding="utf-8")
    report = explain_report.write_report(tmp_path)
    assert report == (tmp_path / "table.md").read_text(encoding="utf-8")
    assert report.startswith("4 utterances of 3 talks, 6 words, 2 of them of the list\n")
    assert "| attention, all layers and heads | 0.50 (0.50–0.50) | 0.50" in report
    # the head of talk a is chosen by b and c, where it is bad in a, and theirs by the other two, where it is a tie
    assert explain_report.best_heads(rows)["a"] == (1, 0)
    assert "half of the masks against the other | 0.50 (0.50–0.50); all masks 0.67 |" in report
    assert "| by token (a letter), Pearson | 0.10 (0.10–0.10) |" in report
    lost = f"{died([0.4] * len(FRACTIONS), 0.8):.2f}"
    assert f"| random | {lost} ({lost}–{lost}) |" in report and "| 50 % |" in report, "unsure words are left out"
    assert "pairs of a word and a keyword that was told; of those, the word itself | 6; 3 |" in report
    assert "| attention tells such a pair from any other (area under ROC) | 100 % |" in report
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
