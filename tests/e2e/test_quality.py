"""What sap2-tiny is worth: words and rates on talks whose names it has never heard, not only that something comes out.

The bars are a good deal looser than what the model card reports, since these are few utterances.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sap2.rowfiles import read_rows
from sap2.scoring.definitions import DEFINITIONS, score
from sap2.scoring.figures import figures, totals
from sap2.scoring.inputs import TestSet, Utterance

from .conftest import read_results, run_python

pytestmark = pytest.mark.timeout(900)
LISTS = Path(__file__).parents[2] / "examples" / "sap2_tiny" / "lists.py"
ASR = ("--asr-adapter", "sap2-tiny-asr")
BOTH = ("--prune-adapter", "sap2-tiny-prune", *ASR)


@pytest.fixture(scope="module")
def talks(tmp_path_factory) -> SimpleNamespace:
    """80 utterances of four talks, with the lists of 5 slides, without any, and with those of another talk."""
    root = tmp_path_factory.mktemp("quality")
    size = ["--talks", "6", "--dev-talks", "1", "--test-talks", "4", "--slides", "5", "--utterances", "4"]
    speech = ["--max-seconds", "3", "--homophones", "0.4", "--seed", "77"]
    run_python("-m", "sap2.cli", "make-talks", str(root / "talks"), *size, *speech)
    utterances = str(root / "utterances.jsonl")
    cut = ["--split", "test", "--slides", "5", "--audio-dir", str(root / "audio"), "--output", utterances]
    run_python("-m", "data_tools.slidespeech", str(root / "talks"), *cut)
    run_python(str(LISTS), utterances, str(root / "test"))
    rows = [row for _, row in read_rows(root / "test.list.jsonl")]
    return SimpleNamespace(root=root, rows=rows)


@pytest.fixture(scope="module")
def rates(talks):
    """Figures of a way of decoding, decoded once: rates in percent, by the lists of the talks."""
    from sap2.cli import main

    known = {}

    def rates(name: str, rows: str, *adapters: str) -> dict:
        if name not in known:
            result = talks.root / f"{name}.result.jsonl"
            given = ["--val_dataset", str(talks.root / f"test.{rows}.jsonl"), "--result_path", str(result)]
            assert main(["pipeline", "--model", "sap2-tiny", *adapters, *given, "--batch_size", "40"]) == 0
            said = {row["id"]: row["response"] for row in read_results(result)}
            utterances = [Utterance(row["id"], row["text"], row["keywords"]) for row in talks.rows]
            scores = score(TestSet(utterances, {"tiny": said}), DEFINITIONS["slidespeech"])
            found = figures(totals(scores.systems["tiny"]))
            known[name] = {kind: found[kind]["error_rate"] for kind in ("wer", "u_wer", "b_wer")} | found["keywords"]
        return known[name]

    return rates


def test_it_recognises_talks_that_it_never_heard(rates):
    found = rates("list", "list", *ASR)
    assert found["wer"] <= 15 and found["u_wer"] <= 8
    assert found["recall"] >= 80


def test_the_list_halves_the_errors_in_names(rates):
    assert rates("list", "list", *ASR)["b_wer"] <= 0.6 * rates("none", "none", *ASR)["b_wer"]


def test_a_list_of_all_keywords_of_all_talks_halves_them_too(rates, talks):
    rows = [row for _, row in read_rows(talks.root / "test.long.jsonl")]
    assert min(len(row["keywords"]) for row in rows) > 3 * max(len(row["keywords"]) for row in talks.rows)
    assert rates("long", "long", *ASR)["b_wer"] <= 0.6 * rates("none", "none", *ASR)["b_wer"]


def test_a_useless_list_does_no_harm(rates):
    assert rates("useless", "useless", *ASR)["u_wer"] <= rates("none", "none", *ASR)["u_wer"] + 2


def test_two_stages_recognise_them_too_and_the_picked_keywords_are_right(rates, talks):
    found = rates("both", "list", *BOTH)
    assert found["wer"] <= 15 and found["recall"] >= 75
    right = picked = spoken = 0
    for row in read_results(talks.root / "both.result.jsonl"):
        said = set(row["labels"].split())
        wanted = {keyword for keyword in row["keywords"] if keyword in said}
        right += len(wanted & set(row["picked_keywords"]))
        picked += len(row["picked_keywords"])
        spoken += len(wanted)
    assert 2 * right / (picked + spoken) >= 0.75  # F1


def test_the_words_come_out(rates, talks):
    """Most sentences are right to the letter, names and all."""
    rates("list", "list", *ASR)
    said = {row["id"]: row["response"] for row in read_results(talks.root / "list.result.jsonl")}
    assert sum(said[row["id"]] == row["text"] for row in talks.rows) >= 0.5 * len(talks.rows)
