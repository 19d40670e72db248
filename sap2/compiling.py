"""Loops over arrays as machine code (numba)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, and keep the machine code on disk where there is a place for it (beside its file or in the home).

    The function holds no lock of Python's while it runs.
    """
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(nogil=True)(function)
