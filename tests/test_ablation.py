"""The ablation: what it compares, what it counts, and the report. (Training is ``swift sft``, tested end to end.)"""

from __future__ import annotations

import json
import subprocess

import ablation
import ablation_report
import pytest

from sap2.records import write_rows
from sap2.tiny.checkpoint import make_tiny

TEXTS = {"t1_1": "we met emily", "t1_2": "they saw bob", "t2_1": "now emily", "t2_2": "call bob now"}


def decoded(folder, replies):
    folder.mkdir(parents=True)
    rows = [{"id": name, "response": reply, "seconds": {"asr": 0.5}} for name, reply in replies.items()]
    write_rows(folder / "1.jsonl", rows)
    (folder / "1.done").write_text("")


@pytest.fixture
def output(tmp_path):
    """Two arms of two seeds, as a run leaves them."""
    root = tmp_path / "out"
    (root / "data").mkdir(parents=True)
    rows = [
        {"id": name, "audio": "a.flac", "text": text, "keywords": ["emily", "bob", "eve"], "session": name[:2]}
        for name, text in TEXTS.items()
    ]
    write_rows(root / "data" / "test-1.jsonl", rows)
    decoded(root / "decoded" / "mean-2-s0", TEXTS)
    decoded(root / "decoded" / "mean-2-s1", {**TEXTS, "t1_1": "we met eve"})
    decoded(root / "decoded" / "w1-s0", {**TEXTS, "t1_1": "we met eve", "t2_2": "fall bob now"})
    for name in ("mean-2-asr-s0", "mean-2-asr-s1", "mean-1-asr-s0"):
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "done.json").write_text('{"seconds_per_step": 0.25}')
    return root


def test_counts_and_rates(output):
    counts = ablation_report.collect(output, ["w1", "mean-2", "attention-2"], [1])
    assert [(entry["arm"], entry["seed"], entry["slides"]) for entry in counts] == [
        ("w1", 0, 1),
        ("mean-2", 0, 1),
        ("mean-2", 1, 1),
    ]
    summary = ablation_report.summarise(counts)
    words, names = 11, 4
    assert summary["w1", 1]["b_wer"][0] == pytest.approx(100 / names)
    assert summary["w1", 1]["u_wer"][0] == pytest.approx(100 / (words - names))
    assert summary["mean-2", 1]["b_wer"][0] == pytest.approx(100 / (2 * names))  # both seeds together
    low, high = summary["mean-2", 1]["b_wer"][1:]
    assert low == 0 and high == pytest.approx(25)  # the error is in one of the two talks
    difference, low, high = ablation_report.differences(counts, "w1", "mean-2", 1, "b_wer")
    assert difference == pytest.approx(-12.5) and low <= difference <= high
    assert ablation_report.differences(counts, "w1", "attention-2", 1, "b_wer") is None


def test_the_report_is_written_whole(output, tmp_path, capsys):
    make_tiny(tmp_path / "model")
    arms = {name: arm for name, arm in ablation.all_arms().items() if name in {"w1", "mean-2"}}
    ablation_report.write_report(output, arms, [1], str(tmp_path / "model"))
    text = (output / "table.md").read_text()
    assert "| mean-2 | 2 | 8 | " in text and "| w1 | 1 | 15 | " in text  # "emily, bob, eve": 15 tokens
    assert "| 0.25 | 0.500 |" in text and text.strip() in capsys.readouterr().out
    assert (output / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((output / "counts.json").read_text())["results"]) == 3


def test_an_arm_that_lacks_utterances_is_refused(output):
    rows = output / "decoded" / "w1-s0" / "1.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match=r"1\.jsonl lacks 1 utterances, such as t1_1"):
        ablation_report.collect(output, ["w1"], [1])


def test_nothing_decoded_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds nothing decoded yet"):
        ablation_report.write_report(tmp_path, ablation.all_arms(), [1], "none")


def test_every_arm_has_the_same_positions_at_a_window():
    arms = ablation.all_arms()
    assert {"none", "w1", "prune+asr", "joint"} <= set(arms)
    for pooling in ablation.POOLINGS:
        assert [arms[f"{pooling}-{window}"].window for window in (2, 4, 8)] == [2, 4, 8]


def test_finished_work_is_not_done_again(output, monkeypatch):
    settings = ablation.Settings("m", "t", output, 7, 2, 1e-3, "1-2", (1,), 4)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("ran a command"))
    arm = ablation.all_arms()["mean-2"]
    assert ablation.train(settings, arm, "asr", 0) == output / "models" / "mean-2-asr-s0" / "checkpoint-7"
    ablation.run_arm(settings, arm, 0)


def test_failed_training_names_its_log(output, monkeypatch):
    settings = ablation.Settings("m", "t", output, 7, 2, 1e-3, "1-2", (1,), 4)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, 1))
    with pytest.raises(RuntimeError, match=r"training failed; see .*mean-4-asr-s0/train.log"):
        ablation.train(settings, ablation.all_arms()["mean-4"], "asr", 0)


def test_test_utterances_are_spread_over_the_talks():
    rows = [{"id": str(number)} for number in range(10)]
    assert [row["id"] for row in ablation._spread(rows, 5)] == ["0", "2", "4", "6", "8"]
    assert ablation._spread(rows, 99) == rows


def test_unknown_arms_are_named(capsys):
    with pytest.raises(SystemExit):
        ablation.main(["--model", "m", "--talks", "t", "--output", "o", "--arms", "mean-2,max-2"])
    assert "unknown arms max-2; allowed: none, w1" in capsys.readouterr().err
