"""Processes below another one, from the kernel's table."""

from __future__ import annotations

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
