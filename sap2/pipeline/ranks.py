"""The ranks of a torchrun: who this process is, and a place where all wait for each other."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

PATIENCE = datetime.timedelta(days=7)
"""How long a rank waits for the others: they may have hours of audio left when it has none."""


class Rank(NamedTuple):
    """This process among those of a torchrun; 0 of 1 without one."""

    index: int = 0  # type: ignore[assignment]  # a field, not the method of tuples
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process does what is to be done once."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, once all have come here."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values


@contextlib.contextmanager
def join_ranks() -> Iterator[Rank]:
    """This process's rank, from torchrun's variables, connected to the others while the block runs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Rank(local=int(os.environ.get("LOCAL_RANK", "0")))
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Rank(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def is_first_rank() -> bool:
    """Whether this process is the one that speaks for all; works before and after :func:`join_ranks`."""
    return os.environ.get("RANK", "0") == "0"
