"""Processes below another one, from the kernel's table."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def offspring(pid: int) -> list[int]:
    """Processes below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = stat.read_text().split(" (", 1)
            parents[int(number)] = int(rest.rpartition(") ")[2].split()[1])
        except OSError:
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(below for child in found for below in offspring(child))]


def name_of(pid: int) -> str:
    """What the process calls itself; empty where there is none any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def names_left(pids: Iterable[int], seconds: float, part: str = "") -> list[str]:
    """Names of the processes that have not ended after so many seconds; of those whose name has ``part``."""
    pids, deadline = list(pids), time.monotonic() + seconds
    while True:
        left = [name for name in map(name_of, pids) if name and part in name]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)
