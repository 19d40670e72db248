"""Processes that a bench starts, and that end with it: when it is interrupted or terminated, none is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil
from process_tree import family

_PATIENCE = 30.0  # seconds that a process has to put its things in order

Args = ParamSpec("Args")
Returned = TypeVar("Returned")


@contextlib.contextmanager
def child(command: Sequence[str], log: Path | None = None, **options: object) -> Iterator[subprocess.Popen]:
    """A command that runs beside the block and is ended with it, if it has not come to its end.

    Args:
        log: takes all its output; without it the command writes where this process does.
        options: of :class:`subprocess.Popen`.
    """
    with contextlib.ExitStack() as stack:
        if log is not None:
            stream = stack.enter_context(log.open("w", encoding="utf-8"))
            options |= {"stdout": stream, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                end_families([process.pid])
                process.wait()


def end_families(roots: Iterable[int]) -> None:
    """End processes and all below them: ``swift`` and others wait for one of their own, and would leave it alone."""
    processes = [process for root in roots for process in family(root)]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        until = time.monotonic() + _PATIENCE
        while (processes := [process for process in processes if _lives(process)]) and time.monotonic() < until:
            time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; its parent need not have asked how it ended, and shall learn that itself."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_apart(function: Callable[Args, Returned], *args: Args.args, **kwargs: Args.kwargs) -> Returned:
    """Call a function in a new process, which is ended where this one is told to stop; what it returns.

    Function, arguments and result are pickled.

    Raises:
        BrokenProcessPool: the process has died.
        Exception: what the function raises.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BaseException:
            end_families(process.pid for process in multiprocessing.active_children() if process.pid is not None)
            raise
