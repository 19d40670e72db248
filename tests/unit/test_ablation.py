"""The ablation: what it compares, what it counts, and the report. (Training is ``swift sft``, tested end to end.)"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import ablation
import ablation_arms
import ablation_report
import numpy as np
import PIL.Image
import pytest
from commands import exit_code

from sap2.rowfiles import read_rows, write_rows
from sap2.tiny.checkpoint import make_tiny

TEXTS = {"t1_1": "we met emily", "t1_2": "they saw bob", "t2_1": "now emily", "t2_2": "call bob now"}
SLIDES = (1, 5)


def decoded(output, name, replies, slides=SLIDES):
    """Replies of an arm, and the done mark."""
    path = ablation_arms.decoded_file(output, *name)
    rows = [
        {"id": f"{utterance}@{count}", "response": reply, "seconds": {"asr": 0.5 * count}}
        for count in slides
        for utterance, reply in replies.items()
    ]
    path.parent.mkdir(exist_ok=True)
    write_rows(path, rows)
    path.with_suffix(".done").touch()


@pytest.fixture
def settings(tmp_path):
    return ablation.Settings("m", "t", tmp_path / "out", 7, 2, 1e-3, "1:1-2", SLIDES, 4, tower=False)


@pytest.fixture
def output(settings):
    """Arms of two seeds, as a run leaves them."""
    root = settings.output
    (root / "data").mkdir(parents=True)
    lists = {1: ["emily", "bob", "eve"], 5: ["emily", "bob", "eve", "dan", "sue"]}
    rows = [
        {"id": f"{name}@{count}", "audio": "a.flac", "text": text, "keywords": lists[count], "session": name[:2]}
        for count in SLIDES
        for name, text in TEXTS.items()
    ]
    write_rows(root / "data" / "test.jsonl", rows)
    decoded(root, ("none", 0), {**TEXTS, "t1_1": "we met bob"}, slides=(1,))
    decoded(root, ("mean-2", 0), TEXTS)
    decoded(root, ("mean-2", 1), {**TEXTS, "t1_1": "we met eve"})
    decoded(root, ("attention-2", 1), {**TEXTS, "t1_1": "we met eve", "t2_2": "fall bob now"})
    for name in ("mean-1-plain-s0", "mean-2-asr-s0", "mean-2-asr-s1", "attention-2-asr-s1"):
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "done.json").write_text('{"seconds_per_step": 0.25}')
    return root


@pytest.fixture
def counts(output, tmp_path):
    make_tiny(tmp_path / "model")
    return ablation_report.write_counts(output, ablation.all_arms(), SLIDES, str(tmp_path / "model"))


def test_counts_and_rates(counts):
    assert [(entry["arm"], entry["seed"], entry["slides"]) for entry in counts["results"]] == [
        ("none", 0, 1),
        ("none", 0, 5),  # one decoding, scored against each list
        ("mean-2", 0, 1),
        ("mean-2", 0, 5),
        ("mean-2", 1, 1),
        ("mean-2", 1, 5),
        ("attention-2", 1, 1),
        ("attention-2", 1, 5),
    ]
    summary = ablation_report.summarise(counts)
    words, names = 11, 4
    assert summary["attention-2", 1]["b_wer"][0] == pytest.approx(100 / names)
    assert summary["attention-2", 1]["u_wer"][0] == pytest.approx(100 / (words - names))
    assert summary["mean-2", 1]["b_wer"][0] == pytest.approx(100 / (2 * names))  # both seeds together
    low, high = summary["mean-2", 1]["b_wer"][1:]
    assert low == 0 and high == pytest.approx(25)  # the error is in one of the two talks


def test_a_difference_is_of_the_seeds_that_both_have(counts):
    whole, low, high = ablation_report.difference(counts, "mean-2", "attention-2", 1, "u_wer")
    assert whole == pytest.approx(100 / 7) and low <= whole <= high
    assert ablation_report.difference(counts, "mean-2", "attention-2", 1, "b_wer")[0] == 0  # seed 1 alone
    assert ablation_report.difference(counts, "none", "attention-2", 1, "b_wer") is None


def test_the_report_is_written_whole(counts, output, capsys):
    ablation_report.write_report(counts, output)
    text = (output / "table.md").read_text()
    # "emily, bob, eve" are 15 tokens; the arm without a list was decoded once
    assert "| mean-2 | 2 | 8 | " in text and "| 0.25 | 2.500 |" in text and text.strip() in capsys.readouterr().out
    assert "| none | 1 | 0 | " in text and "+0.0 (+0.0 to +0.0)" in text
    assert (output / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_made_of_the_counts_alone(counts, output, tmp_path, capsys):
    ablation_report.write_report(counts, output)
    again = tmp_path / "again"
    assert ablation.main(["--from-counts", str(output / "counts.json"), "--output", str(again)]) == 0
    for name in ("table.md", "plot.png"):
        assert (again / name).read_bytes() == (output / name).read_bytes()
    (tmp_path / "counts.json").write_text('{"figures": ["wer"]}')
    for file, message in (("counts.json", "has the figures"), ("none.json", "No such file")):
        assert ablation.main(["--from-counts", str(tmp_path / file), "--output", str(again)]) == 2
        assert message in capsys.readouterr().err


def test_the_plot_has_a_panel_for_each_family():
    found = ablation_report.families(list(ablation_arms.all_arms()))
    assert list(found) == ["w = 2", "w = 4", "w = 8", "ways to decode"]
    assert list(found["w = 4"].values()) == ["no list", "uncompressed", "mean", "attention", "salience"]
    assert list(found["ways to decode"]) == ["asr", "joint", "prune+asr"]


def test_an_arm_that_lacks_utterances_is_refused(output):
    rows = output / "decoded" / "mean-2-s0.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match=r"mean-2-s0\.jsonl lacks 1 utterances, such as t1_1@1"):
        ablation_report.write_counts(output, ablation.all_arms(), SLIDES, "none")


def test_nothing_decoded_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds nothing decoded yet"):
        ablation_report.write_counts(tmp_path, ablation.all_arms(), SLIDES, "none")


def test_what_is_compared():
    arms = ablation.all_arms()
    for pooling in ablation_arms.POOLINGS:
        assert [arms[f"{pooling}-{window}"].window for window in (2, 4, 8)] == [2, 4, 8]
    assert arms["salience-4"].baseline == arms["attention-4"].baseline == "mean-4"
    # other numbers of positions, or none
    assert {name for name, arm in arms.items() if arm.baseline is None} == {
        *("none", "w1", "mean-2", "mean-4", "mean-8", "asr", "joint", "prune+asr")
    }


@pytest.mark.parametrize("tower", [False, True])
def test_the_tower_is_trained_on_demand(settings, tower):
    class Recorded(Exception):
        pass

    class Commands:
        def run(self, command, log, what):
            raise Recorded(dict(zip(command[2::2], command[3::2], strict=True)))

    with pytest.raises(Recorded) as recorded:
        ablation.train(dataclasses.replace(settings, tower=tower), ablation.all_arms()["mean-2"], "asr", 0, Commands())
    options = recorded.value.args[0]
    assert options["--freeze_vit"] == ("false" if tower else "true")
    assert (options["--sap_pooling"], options["--sap_window_size"]) == ("mean", "2")


def test_finished_work_is_not_done_again(output, settings, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("ran a command"))
    arm, commands = ablation.all_arms()["mean-2"], ablation.Commands()
    assert ablation.train(settings, arm, "asr", 0, commands) == output / "models" / "mean-2-asr-s0" / "checkpoint-7"
    ablation.run_arm(settings, arm, 0, commands)


def test_other_settings_are_refused(output, settings):
    settings.save()
    settings.save()
    with pytest.raises(ValueError, match=r"settings\.json: steps was 7 and is 8; allowed: the same, or another"):
        ablation.dataclasses.replace(settings, steps=8).save()


def stand_in(monkeypatch, script):
    """Instead of every command a script, which is given the command's arguments; the processes that were started."""
    popen, began = subprocess.Popen, []

    def start(command, **kwargs):
        began.append(popen([sys.executable, "-c", script, *command], **kwargs))
        return began[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(ablation, "prepare", lambda *args: None)
    return began


def test_a_failure_names_its_log_and_stops_the_rest(output, settings, monkeypatch):
    began = stand_in(monkeypatch, "import sys, time; print('no'); time.sleep(0.5); sys.exit(3)")
    arms = [ablation.all_arms()[name] for name in ("attention-4", "salience-4", "mean-8")]
    with pytest.raises(
        ChildProcessError, match=r"training failed with exit code 3; see .*attention-4-asr-s0/train.log"
    ):
        ablation.run_arms(settings, arms, [0, 1], jobs=1)
    assert len(began) <= 2
    assert (output / "models" / "attention-4-asr-s0" / "train.log").read_text() == "no\n"


def test_an_interruption_ends_what_runs(output, settings, monkeypatch):
    began = stand_in(monkeypatch, "import time; time.sleep(600)")

    def interrupt(futures):
        while len(began) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation.concurrent.futures, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ablation.run_arms(settings, [ablation.all_arms()[name] for name in ("w1", "mean-4", "mean-8")], [0], jobs=2)
    assert [process.returncode for process in began] == [-signal.SIGTERM] * 2


def test_arms_with_the_same_model_train_it_once(output, settings, monkeypatch):
    trained = []

    def run(commands, command, log, what):
        if what == "training":
            trained.append(log.parent.name)
            (log.parent / "logging.jsonl").write_text('{"train_speed(s/it)": 0.5}\n')
        else:
            result = Path(command[command.index("--result_path") + 1])
            write_rows(result, [{"id": "t1_1@1", "response": "emily", "seconds": {"prune": 0.1}}])

    monkeypatch.setattr(ablation.Commands, "run", run)
    monkeypatch.setattr(ablation, "prepare", lambda *args: None)
    monkeypatch.setattr(ablation, "build_asr", lambda source, output, mode, predictions: write_rows(output, []))
    arms = ablation.all_arms()
    ablation.run_arms(settings, [arms["asr"], arms["joint"], arms["prune+asr"]], [0], jobs=2)
    assert sorted(trained) == [f"salience-4-64-{task}-s0" for task in ("asr", "joint", "prune")]
    assert {path.name for path in (output / "decoded").glob("prune+asr*.done")} == {
        "prune+asr-s0.done",
        "prune+asr-s0.prune.done",
    }


def test_test_utterances_are_spread_over_the_talks_and_have_every_list(settings, monkeypatch):
    rows = [{"id": str(number), "text": "a", "keywords": ["k"]} for number in range(10)]

    def convert(settings, split, slides, output):
        write_rows(output, [{**row, "keywords": [f"k{slides}"]} for row in rows])

    monkeypatch.setattr(ablation, "_convert", convert)
    ablation.prepare(ablation.dataclasses.replace(settings, utterances=5), seeds=[])
    test = [row for _, row in read_rows(settings.output / "data" / "test.jsonl")]
    assert [row["id"] for row in test] == [f"{number}@{count}" for count in SLIDES for number in (0, 2, 4, 6, 8)]
    assert test[-1]["keywords"] == ["k5"]
    none = [row for _, row in read_rows(settings.output / "data" / "test-none.jsonl")]
    assert [(row["id"], row["keywords"]) for row in none][-1] == ("8@1", [])
    assert ablation._spread(rows, 99) == rows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--arms", "mean-2,max-2"], "unknown arms max-2; allowed: none, w1"),
        (["--seeds", "0,b"], "--seeds '0,b'; allowed: whole numbers"),
        (["--jobs", "0"], "'0' is not a whole number from 1"),
    ],
)
def test_bad_options_are_named(given, message, capsys):
    assert exit_code(ablation.main, ["--model", "m", "--talks", "t", "--output", "o", *given]) == 2
    assert message in capsys.readouterr().err


def test_without_a_model_it_says_what_it_needs(capsys):
    assert ablation.main(["--output", "o"]) == 2
    assert "--model and --talks are missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "columns"), [("counts.json", None), ("candidates.json", -2), ("from_random.json", -2)]
)
def test_the_tables_of_the_docs_are_those_of_the_counts(counts, columns):
    docs = Path(__file__).parents[2] / "docs"
    published = (docs / "ablation.md").read_text(encoding="utf-8")
    found = ablation_report.read_counts(docs / "ablation" / counts)
    lines = ablation_report.table(found, ablation_report.summarise(found)).splitlines()
    rows = [line.strip("| ").split(" | ")[:columns] for line in lines if line.startswith("| ")]
    assert len(rows) > 5
    for row in rows:
        assert f"| {' | '.join(row)} |" in published


def test_the_picture_of_the_docs_is_that_of_the_counts(tmp_path):
    """Fonts differ a little between versions of matplotlib; curves and labels do not."""
    docs = Path(__file__).parents[2] / "docs"
    found = ablation_report.read_counts(docs / "ablation" / "counts.json")
    ablation_report.plot(found, ablation_report.summarise(found), tmp_path / "plot.png")
    drawn, published = (
        np.asarray(PIL.Image.open(path).convert("L").resize((330, 216)), np.float32)
        for path in (tmp_path / "plot.png", docs / "images" / "ablation.png")
    )
    assert np.abs(drawn - published).mean() < 2
    assert np.abs(np.roll(drawn, 8, axis=0) - published).mean() > 4, "another picture would be noticed"
