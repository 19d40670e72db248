"""How many threads of torch work on a CPU, where nobody has chosen: ``OMP_NUM_THREADS`` is never overruled."""

from __future__ import annotations

import os

SMALL_WIDTH = 512
"""Hidden units of a language model below which several threads, and those that read the next audio, wait for each other
longer than they work."""
LISTENING_SHARE = 8
"""Beside vLLM, one of so many cores hears and embeds, at least one; the others generate.

Qwen2-Audio's language model has ten times the weights of its tower, and works on an utterance in each stage."""


def is_chosen() -> bool:
    """Whether somebody has said how many there are."""
    return "OMP_NUM_THREADS" in os.environ


def is_small(width: int) -> bool:
    """Whether a language model of so many hidden units is quickest with one thread."""
    return width < SMALL_WIDTH


def listening_threads() -> int:
    """Threads of the process that hears and embeds, beside an engine that has the other cores."""
    return max(1, _cores() // LISTENING_SHARE)


def generating_threads(width: int) -> int:
    """Threads of that engine, for a language model of so many hidden units."""
    return 1 if is_small(width) else max(1, _cores() - listening_threads())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
