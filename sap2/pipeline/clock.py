"""How the time of an engine is shared among the requests that it works on at once."""

from __future__ import annotations

import threading
import time


class SharedClock:
    """Time shared equally among those who are in it, as an engine shares itself among its requests.

    Attributes:
        idle: seconds in which nobody was in it, between the first and the last.
    """

    def __init__(self) -> None:
        self.idle = 0.0
        self._now = 0.0
        self._users = 0
        self._since: float | None = None
        self._lock = threading.Lock()

    def enter(self) -> float:
        """The clock's time, to be given back to :meth:`leave`."""
        with self._lock:
            self._tick()
            self._users += 1
            return self._now

    def leave(self, entered: float) -> float:
        """Seconds that fell to one who entered then."""
        with self._lock:
            self._tick()
            self._users -= 1
            return self._now - entered

    def _tick(self) -> None:
        now = time.perf_counter()
        passed = 0.0 if self._since is None else now - self._since
        self._since = now
        if self._users:
            self._now += passed / self._users
        else:
            self.idle += passed
