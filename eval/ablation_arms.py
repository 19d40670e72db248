"""What :mod:`ablation` compares, and where the models and replies of an arm lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

LISTED = "0.85"
"""Share of the rows with a list; the others have none."""
TASK_SHARES = {
    "plain": "plain=1",
    "asr": f"asr={LISTED},plain={1 - float(LISTED):.2f}",
    "prune": "prune=1",
    "joint": "joint=1",
}
"""Rows of each task's training (:mod:`sap2.data.build_curriculum`)."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        name: in the table.
        pooling, window, min_positions: settings of the pooling layer.
        tasks: of :data:`TASK_SHARES`, one model trained for each.
        context: whether the model is shown the lists.
    """

    name: str
    pooling: str = "mean"
    window: int = 1
    min_positions: int = 0
    tasks: tuple[str, ...] = ("asr",)
    context: bool = True

    @property
    def baseline(self) -> str | None:
        """The arm that averages, with as many positions."""
        alike = self.pooling != "mean" and not self.min_positions
        return f"mean-{self.window}" if alike else None


POOLINGS = ("mean", "attention", "salience")
WINDOWS = (2, 4, 8)
WAYS = ("salience", 4, 64)
"""Pooling, window and minimum with which the ways to decode are compared. Stage two needs the minimum: there is nothing
to leave out of a list of two spoken names."""


def all_arms() -> dict[str, Arm]:
    """Every arm by name."""
    arms = [Arm("none", tasks=("plain",), context=False), Arm("w1")]
    arms += [Arm(f"{pooling}-{window}", pooling, window) for window in WINDOWS for pooling in POOLINGS]
    arms += [
        Arm("asr", *WAYS),
        Arm("joint", *WAYS, tasks=("joint",)),
        Arm("prune+asr", *WAYS, tasks=("prune", "asr")),
    ]
    return {arm.name: arm for arm in arms}


def model_name(arm: Arm, task: str, seed: int) -> str:
    """The folder of a trained model. Arms that train alike share it."""
    least = f"-{arm.min_positions}" if arm.min_positions else ""
    return f"{arm.pooling}-{arm.window}{least}-{task}-s{seed}"


def decoded_file(output: Path, arm: str, seed: int) -> Path:
    """Where the replies of an arm are."""
    return output / "decoded" / f"{arm}-s{seed}.jsonl"
