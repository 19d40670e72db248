"""Processor time and memory of a process and of all that it has started, whether it waits for them or not."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil


def family(root: int) -> list[psutil.Process]:
    """A process and those below it that live; none where it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(root: int) -> float:
    """Of a process and those below it that live."""
    return sum(_cpu_of(process) for process in family(root))


def pss_mib(root: int) -> float:
    """Memory of a process and those below it, in MiB; what they share counts once (proportional set size)."""
    return sum(_pss_of(process.pid) for process in family(root))


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _pss_of(pid: int) -> float:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("Pss:")), 0.0)


class Watch:
    """Looks at a process and those below it every so often, in a thread of its own.

    Args:
        root: number of the process.
        every: seconds between two looks.

    Attributes:
        mib: the highest memory that was seen.
    """

    def __init__(self, root: int, every: float = 0.5):
        self.mib = 0.0
        self._root = root
        self._every = every
        self._seen: dict[psutil.Process, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def cpu(self) -> float:
        """Processor seconds, those of processes that have ended as they were last seen."""
        return sum(self._seen.values())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Take a look now."""
        found = family(self._root)
        for process in found:
            self._seen[process] = max(self._seen.get(process, 0.0), _cpu_of(process))
        self.mib = max(self.mib, sum(_pss_of(process.pid) for process in found))

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)
