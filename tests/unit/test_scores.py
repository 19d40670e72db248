"""WER and B-WER inside ms-swift: rewards for GRPO, a metric while training, and what is chosen by it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from model_rows import context, row
from swift.arguments import RLHFArguments, SftArguments
from swift.metrics import eval_metrics_map
from swift.rewards import orms
from swift.utils import Serializer, parse_args

from sap2.errors import InputError
from sap2.ms_swift.measures import add_solution
from sap2.ms_swift.rollouts import log_prompts_as_text
from sap2.ms_swift.scores import list_of, measure, transcript_of

SAID = "emily met bob"


def turns(keywords):
    return row(f"<audio>Possible keywords are: {context(keywords)}")["messages"]


@pytest.fixture
def rewards():
    def rewards(name, replies, keywords="emily, bob, zoe", said=SAID):
        many = [turns(keywords) for _ in replies]
        return orms[name](SimpleNamespace())(replies, messages=many, solution=[said] * len(replies), other=1)

    return rewards


def test_wer_reward(rewards):
    found = rewards("sap_wer", ["emily met bob", "Emily met rob", "", "a b c d e f g", "emily met bob bob"])
    assert found == pytest.approx([1, 2 / 3, 0, -1, 2 / 3])


def test_bwer_reward_looks_at_the_words_of_the_list(rewards):
    found = rewards("sap_bwer", ["emily met bob", "emily saw bob", "emily met rob", "emily met bob zoe", "x"])
    assert found == pytest.approx([1, 1, 0.5, 0.5, 0])
    assert rewards("sap_bwer", ["emily met rob"], keywords="emily") == [1.0], "it moves with the context"
    assert rewards("sap_bwer", ["nothing", "zoe"], keywords="zoe") == pytest.approx([1, 0]), "nothing of it is said"


def test_joint_replies_are_scored_by_their_transcript(rewards):
    joint = "Selected keywords are: emily.\nTranscription: emily met bob"
    assert transcript_of(joint) == SAID
    assert rewards("sap_wer", [joint, SAID], said=joint) == [1.0, 1.0]


def test_list_of():
    assert list_of({"messages": turns("emily, steve wozniak")}) == ["emily", "steve wozniak"]
    assert list_of({"messages": turns("")}) == [] == list_of(row("no context"))


def test_rows_keep_their_reply_for_the_rewards():
    assert add_solution(row("x", reply="hi")) == {"solution": "hi"}
    assert add_solution({**row("x", reply="hi"), "solution": "ho"}) == {"solution": "ho"}
    assert add_solution(row("x", reply=None)) == {"solution": None}


def test_measure():
    found = measure(["emily met rob", "the road"], [SAID, "the road"], [["emily", "bob"], []])
    assert found == {"wer": 20.0, "u_wer": 0.0, "b_wer": 50.0, "recall": 50.0}
    assert measure(["the rod"], ["the road"], [[]]) == {"wer": 50.0, "u_wer": 50.0}


def evaluate(rows, replies, best="b_wer"):
    trainer = SimpleNamespace(eval_dataset=Dataset.from_list(rows))
    metrics = eval_metrics_map["sap_wer"](SimpleNamespace(metric_for_best_model=best), trainer)

    def padded(texts):
        tensors = [Serializer.to_tensor(text).numpy() for text in texts]
        return np.stack([np.pad(tensor, (0, 300 - len(tensor))) for tensor in tensors])

    references = [one["messages"][-1]["content"] for one in rows]
    return metrics.compute_metrics(SimpleNamespace(predictions=padded(replies), label_ids=padded(references)))


def test_metric_while_training():
    rows = [row(f"<audio>{context('emily, bob')}", ["a.wav"], SAID), row(f"<audio>{context('')}", ["b.wav"], "hi")]
    assert evaluate(rows, ["emily met rob", "hi"]) == {"wer": 25.0, "u_wer": 0.0, "b_wer": 50.0, "recall": 50.0}


def test_without_a_keyword_there_is_no_b_wer():
    rows = [row(f"<audio>{context('zoe')}", ["a.wav"], SAID)]
    assert evaluate(rows, [SAID], best="wer") == {"wer": 0.0, "u_wer": 0.0}
    with pytest.raises(InputError, match=r"no word of the lists is said .*; allowed: .* --metric_for_best_model wer"):
        evaluate(rows, [SAID])


@pytest.fixture
def parse(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps(row("<audio>x", ["a.wav"])) + "\n")

    def parse(command, *flags):
        argv = [*flags, "--model", str(tiny), "--model_type", "sap_qwen2_audio", "--dataset", "train.jsonl"]
        return parse_args(command, [*argv, "--output_dir", "out", "--val_dataset", "train.jsonl"])[0]

    return parse


def test_the_checkpoint_with_the_lowest_b_wer_is_the_best(parse):
    args = parse(SftArguments, "--predict_with_generate", "true")
    assert (args.eval_metric, args.metric_for_best_model, args.greater_is_better) == ("sap_wer", "b_wer", False)
    args = parse(SftArguments, "--predict_with_generate", "true", "--metric_for_best_model", "recall")
    assert (args.eval_metric, args.metric_for_best_model, args.greater_is_better) == ("sap_wer", "recall", True)
    args = parse(SftArguments)
    assert (args.eval_metric, args.metric_for_best_model, args.greater_is_better) == (None, "loss", False)


def test_grpo_rows_get_a_solution(parse):
    flags = ["--rlhf_type", "grpo", "--num_generations", "2", "--per_device_train_batch_size", "2"]
    flags += ["--per_device_eval_batch_size", "2"]
    train, _ = parse(RLHFArguments, *flags, "--reward_funcs", "sap_wer").load_dataset()
    assert train[0]["solution"] == "hi guys"
    train, _ = parse(SftArguments).load_dataset()
    assert "solution" not in train.column_names


@pytest.mark.parametrize(("model_type", "expected"), [("sap_qwen2_audio", ["be\n<audio>x"]), ("qwen2_audio", "own")])
def test_prompts_in_the_log_need_no_audio(model_type, expected):
    trainer = type("GRPOTrainer", (), {"_apply_chat_template_to_messages_list": lambda self, messages: "own"})
    log_prompts_as_text(trainer)
    log_prompts_as_text(trainer)  # the second time changes nothing
    made = trainer()
    made.template = SimpleNamespace(model_meta=SimpleNamespace(model_type=model_type))
    said = [{"role": "system", "content": "be"}, *row("<audio>x")["messages"]]
    assert made._apply_chat_template_to_messages_list([said]) == expected
