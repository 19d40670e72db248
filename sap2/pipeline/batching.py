"""Which utterances are decoded together, and their audio read ahead while others are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sap2.errors import InputError

Item = TypeVar("Item")
Made = TypeVar("Made")


def plan_batches(lengths: Sequence[int], batch_size: int, max_batch_tokens: int | None = None) -> list[list[int]]:
    """Put utterances of like length together, the longest first.

    Args:
        lengths: of each utterance's prompt, in tokens.
        batch_size: utterances of a batch at most.
        max_batch_tokens: a batch's size times its longest prompt stays within this; an utterance that is longer on its
            own is a batch of its own.

    Returns:
        Indices into ``lengths``, each once.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fits = batches and len(batches[-1]) < batch_size
        if fits and max_batch_tokens is not None:
            fits = (len(batches[-1]) + 1) * longest <= max_batch_tokens
        if not fits:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def read_ahead(
    batches: Iterable[Sequence[Item]], make: Callable[[Item], Made], workers: int
) -> Iterator[list[Made | Exception]]:
    """What ``make`` gives for each item, batch by batch, made in threads one batch ahead.

    An exception of ``make`` takes the item's place.
    """
    with ThreadPoolExecutor(workers, "read-ahead") as pool:
        waiting: deque[list[Future[Made]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(make, item) for item in batch])
                if len(waiting) > 1:
                    yield list(map(result_of, waiting.popleft()))
            while waiting:
                yield list(map(result_of, waiting.popleft()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def result_of(future: Future[Made]) -> Made | Exception:
    """The result, or the exception in its place."""
    try:
        return future.result()
    except Exception as error:
        return error


def by_halves(items: Sequence[Item], run: Callable[[Sequence[Item]], list[Made]]) -> list[Made | Exception]:
    """Run a batch; where it fails, its halves, so that one bad or too large item does not take the others with it."""
    from torch import OutOfMemoryError

    try:
        return list(run(items))
    except (InputError, OutOfMemoryError) as error:
        if len(items) == 1:
            return [error]
    middle = len(items) // 2
    return by_halves(items[:middle], run) + by_halves(items[middle:], run)
