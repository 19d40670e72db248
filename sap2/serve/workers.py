"""Processes that decode what comes in. One that dies or takes too long is replaced; only its file gets no answer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sap2.errors import InputError, one_line
from sap2.serve.errors import BAD_REQUEST, CLOSED, INTERNAL, TOO_LARGE, ApiError
from sap2.serve.options import Limits

_CONTEXT = multiprocessing.get_context("spawn")
_SAMPLE_BYTES = 4
_MOST_RATE = 16_000
_TICK = 0.5
"""Seconds after which it is looked at again whether somebody still waits."""
_WORTH_ENDING = 5.0
"""Seconds from which on a process whose caller has left is ended: to let it finish costs less than a new one before."""


class Workers:
    """Some processes, each with a thread here that hands it one task after the other.

    Args:
        count: of processes.
        folder: the only place where they keep files.
        limits: of memory, time and sizes.
        warm_up: called in each process before its first task, with the arguments after it.
    """

    def __init__(self, count: int, folder: Path, limits: Limits, *warm_up: Any):
        self._folder, self._limits, self._warm_up = folder, limits, warm_up
        self._warm = [threading.Event() for _ in range(count)]
        self._tasks: queue.SimpleQueue[tuple[_Task, Callable[..., Any], tuple[Any, ...]] | None]
        self._tasks = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, args=(event,), daemon=True) for event in self._warm]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function of a module in one of the processes.

        The future raises what the function raises; :class:`ApiError` where the process dies or takes too long.
        A future that is cancelled before its turn is passed over; one that is cancelled later ends what takes long.
        """
        future = _Task()
        self._tasks.put((future, function, args))
        return future

    def wait_until_warm(self) -> None:
        """Wait until all processes have started."""
        for event in self._warm:
            event.wait()

    def close(self) -> None:
        """End the processes, after what they are at."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(5)

    def _serve(self, warm: threading.Event) -> None:
        process = _Process(self._folder, self._limits, self._warm_up)
        warm.set()
        try:
            while (task := self._tasks.get()) is not None:
                future, function, args = task
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(process.call(function, args, future.left))
                except BaseException as error:
                    future.set_exception(error)
                del task, future, args
        finally:
            process.end()


class _Task(Future[Any]):
    """A future that tells of a caller who has left, also when its work has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()

    def cancel(self) -> bool:
        """As upstream's, which does nothing once the work has begun."""
        self.left.set()
        return super().cancel()


class _Process:
    def __init__(self, folder: Path, limits: Limits, warm_up: tuple[Any, ...]):
        self._folder, self._limits, self._warm_up = folder, limits, warm_up
        self._start()

    def _start(self) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(theirs, str(self._folder), self._limits), daemon=True)
        self._process.start()
        theirs.close()
        if self._warm_up:
            with contextlib.suppress(Exception):  # what fails there fails again with a file, which is told
                self.call(self._warm_up[0], self._warm_up[1:], threading.Event(), again=False)

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], left: threading.Event, again: bool = True
    ) -> Any:
        """What the function returns.

        Args:
            left: set when nobody waits for it any more.
            again: whether a process that fails is replaced.

        Raises:
            ApiError: the process has died, or has been ended.
        """
        try:
            self._connection.send((function, args))
            error = self._wait(left)
            if error is not None:
                self._restart(again)
                raise error
            good, answer = self._connection.recv()
        except (EOFError, OSError):
            self._restart(again)
            raise ApiError(BAD_REQUEST, "the file cannot be read: its reader failed on it") from None
        if good:
            return answer
        raise answer

    def _wait(self, left: threading.Event) -> ApiError | None:
        """Wait for the answer; an error where there is none, and the process is to be ended."""
        begun = time.monotonic()
        while not self._connection.poll(min(_TICK, self._limits.decode_seconds)):
            taken = time.monotonic() - begun
            if taken >= self._limits.decode_seconds:
                most = f"{self._limits.decode_seconds:g} s"
                return ApiError(TOO_LARGE, f"reading it took longer than {most}, and was ended")
            if left.is_set() and taken >= _WORTH_ENDING:
                return ApiError(CLOSED, "the caller has gone")
        return None

    def _restart(self, again: bool) -> None:
        self.end()
        if again:
            self._start()

    def end(self) -> None:
        self._connection.close()
        self._process.join(0.2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(connection: Connection, folder: str, limits: Limits) -> None:
    """The life of a process: tasks until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the server decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = folder
    _limit(resource.RLIMIT_AS, limits.worker_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, int(limits.audio_seconds * _MOST_RATE + _MOST_RATE) * _SAMPLE_BYTES)
    while True:
        try:
            function, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(*args))
        except BaseException as error:
            answer = (False, _told(error))
        with contextlib.suppress(BrokenPipeError):
            connection.send(answer)
        del function, args, answer


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _told(error: BaseException) -> Exception:
    """An error that can travel, without what it holds on to."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return InputError(str(error))
    if isinstance(error, MemoryError):
        return ApiError(TOO_LARGE, "reading it takes more memory than allowed")
    if isinstance(error, OSError) and error.strerror:
        return ApiError(INTERNAL, f"the server cannot keep it: {error.strerror}")
    import traceback

    traceback.print_exc()
    return ApiError(INTERNAL, f"its reader failed ({type(error).__name__}: {one_line(error)[:100]})")
