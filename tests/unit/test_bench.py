"""The benches of the engines: what they run, what they count, and the tables that they print."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import bench_engine
import bench_goals
import bench_pipeline
import engine_arms
import pytest
from bench_engine import best, build_parser, choose_arms, make_random, report
from bench_goals import GOALS, table
from bench_pipeline import Cost, report_steady
from bench_ray import Round
from engine_arms import PLAIN, Arm, Result, Setup, run_arm
from safetensors import safe_open


@pytest.mark.parametrize(
    ("given", "engines"),
    [
        ([], ["transformers", "vllm"]),
        (["--torch_dtype", "float32"], ["transformers", "vllm"]),
        (["--plain"], ["transformers", "vllm", PLAIN]),
        (["--size", "7b", "--device", "cuda"], ["transformers", "vllm", PLAIN]),
        (["--torch_dtype", "bfloat16"], ["transformers", "vllm", "transformers", "transformers"]),
    ],
)
def test_arms_of_each_question(given, engines):
    arms = choose_arms(build_parser().parse_args(given))
    assert [arm.engine for arm in arms] == engines
    assert len({arm.name for arm in arms}) == len({*arms}) == len(arms)
    assert ("--size" in given) == all(arm.torch_dtype == "bfloat16" for arm in arms)


@pytest.fixture()
def clock(monkeypatch):
    """Time that passes with each generated token and with nothing else: a second for one."""

    class Clock(engine_arms.Counted):
        now = 0.0

        def _count(self, reply):
            super()._count(reply)
            Clock.now += len(reply.pieces)

        @staticmethod
        def perf_counter():
            return Clock.now

    monkeypatch.setattr(engine_arms, "Counted", Clock)
    monkeypatch.setattr(engine_arms, "time", Clock)
    return Clock


def test_an_arm_decodes_all_utterances_and_counts_what_it_generates(tiny, wavs, tmp_path, clock):
    rows = [{"audio": wav, "keywords": ["eve", "bob"]} for wav in wavs]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    setup = Setup(str(tiny), None, None, str(tmp_path / "rows.jsonl"), 5, 4, "cpu", {})
    result = run_arm(Arm("transformers", "transformers", None, 2), setup)
    assert len(result.replies) == 5 and all(set(said) == {"asr"} for said in result.replies.values())
    assert 5 <= result.tokens <= 5 * 4
    assert result.seconds == result.tokens and 0 < result.first == 1 < result.latency <= 4
    assert result.waited is None


def test_a_random_checkpoint_hears_what_vllm_demands(tmp_path):
    folder = make_random(tmp_path / "model", "tiny", "cpu")
    with safe_open(f"{folder}/model.safetensors", "pt") as weights:
        assert weights.get_slice("audio_tower.embed_positions.weight").get_shape()[0] == 1500


def result(seconds, **values):
    fields = {"start": 1.0, "cpu": 2.0, "tokens": 100, "waited": None, "latency": 0.5, "first": 0.1}
    replies = values.pop("replies", {"a": {"asr": "x"}, "b": {"asr": "y"}})
    return Result(**fields | {"seconds": seconds, "mib": 100.0, "gpu_mib": 0.0, "replies": replies} | values)


def test_the_table_compares_with_the_first_arm_and_counts_replies():
    quick = result(2.0, waited=0.05, replies={"a": {"asr": "x"}, "b": {"asr": "z"}})
    rounds = best([result(12.0, mib=150.0, latency=0.4), result(10.0)])
    assert (rounds.seconds, rounds.mib, rounds.latency) == (10.0, 150.0, 0.4)
    said = report({"transformers": rounds, "vllm": quick}, 2)
    assert "vllm / transformers: utterances a second 5.00, processor time 1.00, latency 1.25" in said
    assert said.endswith("memory 0.67; the same replies: 1 of 2 (asr)")


def test_the_steady_state_is_what_more_utterances_take():
    costs = [Cost("two runs together", 50.0, 60.0, 1.0), Cost("sap2 pipeline", 20.0, 25.0, 1.0)]
    few = [Cost("two runs together", 10.0, 20.0, 1.0), Cost("sap2 pipeline", 15.0, 15.0, 1.0)]
    assert report_steady(costs, few, 100).endswith("two runs / sap2 pipeline: time 8.00, processor time 4.00")


def test_a_difference_that_is_little_of_a_run_is_no_steady_state():
    costs = [Cost("two runs together", 50.0, 60.0, 1.0), Cost("sap2 pipeline", 20.0, 25.0, 1.0)]
    slower = [Cost("two runs together", 53.0, 20.0, 1.0), Cost("sap2 pipeline", 16.0, 15.0, 1.0)]
    lines = report_steady(costs, slower, 100).splitlines()
    assert lines[1].split() == ["two", "runs", "together", *["not", "known"], "400.0", *["not", "known"]]
    assert lines[-2:] == [
        "two runs / sap2 pipeline: time not known, processor time 4.00",
        "not known: less than 25% of the run; give more utterances",
    ]
    told = bench_pipeline.figures(costs, slower, 100, "")
    assert GOALS[-1].measure(json.loads(json.dumps(told))) == ("not known; whole processes 2.5 ×", None)


def test_the_table_of_goals_has_a_row_for_each_and_says_what_is_met(tmp_path):
    arms = {
        "transformers": result(10.0, mib=800.0),
        "vllm": result(1.9, waited=0.2, mib=1300.0, latency=0.6),
    }
    setup = Setup("m", None, None, "u", 2, 4, None, {})
    ways = [Round("one process", 10.0, 1.0, 1.0)._asdict(), Round("ray", 8.9, 1.0, 1.0)._asdict()]
    costs = [Cost("two runs together", 50.0, 60.0, 1.0), Cost("sap2 pipeline", 20.0, 25.0, 1.0)]
    few = [Cost("two runs together", 10.0, 20.0, 1.0), Cost("sap2 pipeline", 15.0, 15.0, 1.0)]
    told = {
        "engine": bench_engine.figures(arms, setup),
        "ray": {"ways": ways, "same": 2},
        "infer": bench_pipeline.figures(costs, few, 100, "same text in 100 of 100 rows"),
    }
    told = json.loads(json.dumps({part: {**figures, "load": 0.1, "when": "now"} for part, figures in told.items()}))
    lines = [line for line in table(told).splitlines() if line.startswith("| ")]
    rows = {line.split(" | ")[0]: line.rsplit(" | ", 1)[1].rstrip(" |") for line in lines[2:]}
    assert list(rows.values()) == ["yes", "**no**", "**no**", "**no**", "**no**", "yes"]
    assert "5.26 ×" in table(told) and "same replies 2 of 2 (asr)" in table(told)
    assert table({}).count("not measured") == len(GOALS) == 6


def test_a_part_whose_figures_are_there_is_not_measured_again(tmp_path, monkeypatch, capsys):
    done = {"ways": [Round(n, 1.0, 1.0, 1.0)._asdict() for n in ("one", "ray")], "same": 1, "load": 0.0, "when": "now"}
    (tmp_path / "ray.json").write_text(json.dumps(done))
    asked = []

    @contextlib.contextmanager
    def child(command):
        asked.append(Path(command[1]).name)
        told = bench_engine.figures(
            {"transformers": result(2.0), "vllm": result(1.0, waited=0.0)}, Setup(*"abcd", 1, 1, None, {})
        )
        Path(command[command.index("--json") + 1]).write_text(json.dumps(told))
        yield SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(bench_goals, "child", child)
    for _ in range(2):
        assert bench_goals.main([str(tmp_path), "--parts", "engine", "ray"]) == 0
    assert asked == ["bench_engine.py"]
    assert capsys.readouterr().out.count("2.00 × (1.0 against 0.5)") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.json", "ray.json"]
