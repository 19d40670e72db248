"""The benches of the engines: what they run, what they count, and the tables that they print."""

from __future__ import annotations

import json

import pytest
from bench_engine import best, choose_arms, make_random, parse, report
from bench_pipeline import Cost, report_steady
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
    arms = choose_arms(parse(given))
    assert [arm.engine for arm in arms] == engines
    assert len({arm.name for arm in arms}) == len({*arms}) == len(arms)
    assert ("--size" in given) == all(arm.torch_dtype == "bfloat16" for arm in arms)


def test_an_arm_decodes_all_utterances_and_counts_what_it_generates(tiny, wavs, tmp_path):
    rows = [{"audio": wav, "keywords": ["eve", "bob"]} for wav in wavs]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    setup = Setup(str(tiny), None, None, str(tmp_path / "rows.jsonl"), 5, 4, "cpu", {})
    result = run_arm(Arm("transformers", "transformers", None, 2), setup)
    assert len(result.replies) == 5 and all(set(said) == {"asr"} for said in result.replies.values())
    assert 5 <= result.tokens <= 5 * 4
    assert 0 < result.first < result.latency and result.waited is None and result.seconds > 0


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
