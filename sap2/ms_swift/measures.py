"""WER and B-WER inside ms-swift: rewards of ``swift rlhf --rlhf_type grpo``, and a metric while training."""

from __future__ import annotations

from typing import Any

from sap2.errors import InputError

METRIC = "sap_wer"
"""``--eval_metric`` of our model type."""
BEST = "b_wer"
"""What the best checkpoint is chosen by: the lowest."""
ERROR_RATES = frozenset({"wer", "u_wer", "b_wer"})
"""The lower, the better."""


def choose_metric(args: Any) -> None:
    """Where validation rows are decoded: WER and B-WER, and the checkpoint of the lowest B-WER is the best.

    ms-swift's own metric counts words of Chinese and asks for packages that divide them.
    """
    if getattr(args, "predict_with_generate", False) and args.eval_metric is None:
        args.eval_metric = METRIC
        args.metric_for_best_model = args.metric_for_best_model or BEST
    if getattr(args, "metric_for_best_model", None) in ERROR_RATES and args.greater_is_better is None:
        args.greater_is_better = False


def register_rewards(orms: dict[str, type], base: type) -> None:
    """``--reward_funcs sap_wer sap_bwer``; ``base`` is ms-swift's ``ORM``."""

    def reward(name: str, of_system: str) -> type:
        def __call__(self, completions, messages, solution, **kwargs):
            from sap2.ms_swift import scores

            lists = [scores.list_of({"messages": turns}) for turns in messages]
            return getattr(scores, of_system)(scores.score_replies(completions, solution, lists))

        return type(name, (base,), {"__call__": __call__})

    orms["sap_wer"] = reward("WERReward", "wer_rewards")
    orms["sap_bwer"] = reward("BWERReward", "bwer_rewards")


def add_solution(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the reply that it has as its ``solution``: GRPO takes the reply away before the rewards see it."""
    last = row["messages"][-1]
    if row.get("solution") is not None or last["role"] != "assistant":
        return {"solution": row.get("solution")}
    return {"solution": last["content"]}


def register_metric(metrics: dict[str, type], base: type, serializer: Any) -> None:
    """``--eval_metric sap_wer``; ``base`` is ms-swift's ``EvalMetrics``, ``serializer`` its texts as tensors."""

    class WERMetrics(base):
        """WER, U-WER, B-WER and recall of what the model replies to the validation rows."""

        def compute_metrics(self, eval_prediction):
            from sap2.ms_swift.scores import list_of, measure

            pairs = zip(eval_prediction.predictions, eval_prediction.label_ids, strict=True)
            texts = [tuple(map(serializer.from_tensor, pair)) for pair in pairs]
            lists: dict[str, list[str]] = {}
            for row in self.trainer.eval_dataset:  # ms-swift hands on replies and references, without their lists
                lists.setdefault(row["messages"][-1]["content"], []).extend(list_of(row))
            replies, references = zip(*texts, strict=True)
            found = measure(replies, references, [lists.get(reference, []) for reference in references])
            if BEST not in found and self.args.metric_for_best_model in {BEST, f"eval_{BEST}"}:
                raise InputError(
                    "no word of the lists is said in the validation rows, so that there is no B-WER; "
                    "allowed: rows with their keywords, or --metric_for_best_model wer"
                )
            return found

    metrics[METRIC] = WERMetrics
