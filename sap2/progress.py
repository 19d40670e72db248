"""How far a long job is: a bar on a terminal, and a line every minute where standard error is a file or a pipe.

Standard library only; tqdm draws the bar and is imported when there is one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")

SECONDS = 60.0
"""Time between two lines."""


class Progress:
    """Counts what is done and shows it on standard error; use it as a context manager.

    Args:
        what: what is going on, such as ``decode``.
        total: how many items there are; None where nobody knows.
        unit: what an item is, in the singular.
        shown: False shows nothing, as for all ranks but the first.
        every: seconds between two lines where standard error is not a terminal.
    """

    def __init__(
        self, what: str, total: int | None = None, unit: str = "row", shown: bool = True, every: float = SECONDS
    ) -> None:
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.done = 0
        self._shown = shown
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if self._shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, desc=self.what, unit=f" {self.unit}s", leave=False)
        return self

    def expect(self, items: int) -> None:
        """So many more items are to come than was known."""
        self.total = (self.total or 0) + items
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, items: int = 1, note: str = "") -> None:
        """So many more items are done; ``note`` stands behind the numbers, such as ``real-time factor 0.08``."""
        self.done += items
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(items)
        elif self._shown and time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            print(self._line(self._last - self._start, note), file=sys.stderr, flush=True)

    def _line(self, seconds: float, note: str) -> str:
        from tqdm import tqdm

        of = f" of {self.total}" if self.total else ""
        line = f"{self.what}: {self.done}{of} {self.unit}s in {tqdm.format_interval(seconds)}"
        if self.total and self.done:
            left = seconds / self.done * max(0, self.total - self.done)
            line += f", about {tqdm.format_interval(left)} left"
        return f"{line}; {note}" if note else line


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "row") -> Iterator[Item]:
    """The items, counted as :class:`Progress` does; their number is found by itself where they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total, unit) as shown:
        for item in items:
            yield item
            shown.update()
