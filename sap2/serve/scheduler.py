"""Which pieces are decoded together: those that are there at a time, of whichever request, each request in its turn."""

from __future__ import annotations

import dataclasses
import heapq
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sap2.errors import EngineError, InputError
from sap2.pipeline.sharing import Lane
from sap2.pipeline.transcriber import Piece
from sap2.pipeline.types import Segment
from sap2.pipeline.utterances import Prepared

Deliver = Callable[[int, Segment | Exception], None]
_FOR_RETURNING, _FOR_COMING = 0.1, 0.3
"""Shares of the last batch's time that a batch waits for more: for callers that have just been answered and will ask
again, and for requests that are on their way. Without it, eight callers would for ever be decoded as one and seven."""
_SHORT = 0.02
"""Seconds that a batch waits in any case for what is on its way."""
_AHEAD = 2
"""Batches' worth of pieces that are prepared ahead, over all requests."""


@dataclasses.dataclass(eq=False)
class Ticket:
    """The pieces of one request, and who is told what comes of them."""

    lane: Lane
    pieces: Sequence[Piece]
    deliver: Deliver
    begun: int = 0
    preparing: int = 0
    ready: list[tuple[int, Prepared]] = dataclasses.field(default_factory=list)
    cancelled: bool = False

    @property
    def waits(self) -> bool:
        """Whether something is still to be decoded."""
        return bool(self.ready or self.preparing or self.begun < len(self.pieces))


class Scheduler:
    """Decodes pieces of all requests in batches.

    Args:
        batch_size: pieces of a batch at most.
        max_batch_tokens: limit of a batch's size times its longest prompt.
        threads: batches that are decoded at a time: more than one only for an engine that works on many.
        patience: most seconds that a batch waits for others; that it waits a share of the last one's time at most.
        failed: told when the engine has died.
        noted: told how many pieces a batch had.
    """

    def __init__(
        self,
        batch_size: int,
        max_batch_tokens: int | None = None,
        threads: int = 1,
        patience: float = 0.5,
        failed: Callable[[EngineError], None] = lambda error: None,
        noted: Callable[[int], None] = lambda size: None,
    ):
        self._batch_size, self._max_tokens, self._patience = batch_size, max_batch_tokens, patience
        self._failed, self._noted = failed, noted
        self._tickets: deque[Ticket] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._expected = self._last_size = 0
        self._last_seconds = 0.0
        self._pool = ThreadPoolExecutor(2, "prepare")
        self._threads = [threading.Thread(target=self._run, name=f"decode {n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Lane, pieces: Sequence[Piece], deliver: Deliver) -> Ticket:
        """Have pieces decoded.

        Args:
            deliver: called in a thread of the scheduler with a piece's number and what came of it, in any order.
        """
        ticket = Ticket(lane, pieces, deliver)
        with self._change:
            self._tickets.append(ticket)
            self._prepare_more()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request; what is being decoded is decoded for nobody."""
        with self._change:
            ticket.cancelled = True
            ticket.ready.clear()
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            self._prepare_more()

    def expect(self, change: int) -> None:
        """Say that a request is on its way (1), or that it has come or will not (-1): a batch waits a little for it."""
        with self._change:
            self._expected += change
            self._change.notify_all()

    def close(self) -> None:
        """End the threads after the batches that they are at."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _prepare_more(self) -> None:
        """Keep some pieces of every request prepared; a batch's worth of a request that is alone."""
        share = max(1, _AHEAD * self._batch_size // max(1, len(self._tickets)))
        for ticket in self._tickets:
            while ticket.begun < len(ticket.pieces) and ticket.preparing + len(ticket.ready) < share:
                ticket.preparing += 1
                self._pool.submit(self._prepare, ticket, ticket.begun)
                ticket.begun += 1

    def _prepare(self, ticket: Ticket, index: int) -> None:
        prepared: Prepared | None = None
        try:
            if not ticket.cancelled:
                prepared = ticket.lane.prepare(ticket.pieces[index])
        except Exception as error:
            _report(error)
            ticket.deliver(index, error)
        with self._change:
            ticket.preparing -= 1
            if prepared is not None and not ticket.cancelled:
                heapq.heappush(ticket.ready, (index, prepared))
            self._drop_done()
            self._change.notify_all()

    def _drop_done(self) -> None:
        done = [ticket for ticket in self._tickets if not ticket.waits]
        for ticket in done:
            self._tickets.remove(ticket)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._decode(batch)

    def _next_batch(self) -> list[tuple[Ticket, int, Prepared]] | None:
        with self._change:
            self._change.wait_for(lambda: self._closed or any(ticket.ready for ticket in self._tickets))
            if self._closed:
                return None
            begun = time.monotonic()
            while not self._is_full() and (left := begun + self._wait_seconds() - time.monotonic()) > 0:
                self._change.wait(left)
            batch = self._take()
            self._prepare_more()
            return batch

    def _is_full(self) -> bool:
        return self._ready() >= self._batch_size

    def _ready(self) -> int:
        return sum(len(ticket.ready) for ticket in self._tickets)

    def _wait_seconds(self) -> float:
        """How long a batch that could begin waits for more."""
        if self._expected > 0 or any(ticket.preparing for ticket in self._tickets):
            return min(self._patience, max(_SHORT, _FOR_COMING * self._last_seconds))
        return min(self._patience, _FOR_RETURNING * self._last_seconds) if self._ready() < self._last_size else 0.0

    def _take(self) -> list[tuple[Ticket, int, Prepared]]:
        """One piece of each request in turn, until the batch is full. All are of the first one's lane."""
        batch: list[tuple[Ticket, int, Prepared]] = []
        longest = 0
        first = next((ticket for ticket in self._tickets if ticket.ready), None)
        if first is None:
            return batch
        turn = deque(ticket for ticket in self._tickets if ticket.lane is first.lane and ticket.ready)
        while turn and len(batch) < self._batch_size:
            ticket = turn.popleft()
            longest = max(longest, ticket.pieces[ticket.ready[0][0]].job.about_tokens)
            if batch and self._max_tokens is not None and (len(batch) + 1) * longest > self._max_tokens:
                break
            batch.append((ticket, *heapq.heappop(ticket.ready)))
            if ticket.ready:
                turn.append(ticket)
        for ticket in dict.fromkeys(ticket for ticket, _, _ in batch):  # their turn comes after all others
            self._tickets.remove(ticket)
            self._tickets.append(ticket)
        self._drop_done()
        return batch

    def _decode(self, batch: Sequence[tuple[Ticket, int, Prepared]]) -> None:
        if not batch:
            return
        pieces = [ticket.pieces[index] for ticket, index, _ in batch]
        found: Sequence[Segment | Exception]
        begun = time.monotonic()
        try:
            found = batch[0][0].lane.decode(pieces, [prepared for _, _, prepared in batch])
        except Exception as error:
            _report(error)
            found = [error] * len(batch)
            if isinstance(error, EngineError):
                self._failed(error)
        self._last_size, self._last_seconds = len(batch), time.monotonic() - begun
        self._noted(len(batch))
        for (ticket, index, _), one in zip(batch, found, strict=True):
            if not ticket.cancelled:
                ticket.deliver(index, one)


def _report(error: Exception) -> None:
    if not isinstance(error, (InputError, EngineError)):
        traceback.print_exception(error)
