"""Which pieces share a batch, whose turn it is, and what becomes of those whose caller has gone."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from sap2.errors import EngineError, InputError
from sap2.serve.app import while_there
from sap2.serve.errors import CLOSED, TIMEOUT, TOO_LARGE, ApiError
from sap2.serve.guards import read_body
from sap2.serve.options import Limits
from sap2.serve.scheduler import Scheduler


class Lane:
    """Decodes a batch when it may, and remembers it."""

    def __init__(self):
        self.batches = []
        self.may = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def prepare(self, piece):
        if isinstance(piece.name, Exception):
            raise piece.name
        return piece

    def decode(self, pieces, prepared):
        assert list(pieces) == list(prepared)
        self.batches.append([piece.name for piece in pieces])
        self.begun.release()
        assert self.may.acquire(timeout=30)
        if any(piece.name == "dies" for piece in pieces):
            raise EngineError("it has died")
        return [f"said {piece.name}" for piece in pieces]


def pieces(*names, tokens=1):
    return [SimpleNamespace(name=name, job=SimpleNamespace(about_tokens=tokens)) for name in names]


class Answers:
    """What is delivered, by number."""

    def __init__(self, count):
        self.found, self._left, self._all = {}, count, threading.Event()

    def __call__(self, index, what):
        assert index not in self.found
        self.found[index] = what
        self._left -= 1
        if not self._left:
            self._all.set()

    def wait(self):
        assert self._all.wait(30)
        return [self.found[index] for index in sorted(self.found)]


@pytest.fixture
def lane():
    return Lane()


@pytest.fixture
def make(lane):
    made = []

    def make(batch_size=4, **kwargs):
        made.append(Scheduler(batch_size, patience=0.5, **kwargs))
        return made[-1]

    yield make
    for _ in range(100):
        lane.may.release()
    for scheduler in made:
        scheduler.close()


def submit(scheduler, lane, *names, **kwargs):
    """Have pieces decoded, and wait until they are prepared: their batch does not hang on the clock then."""
    answers = Answers(len(names))
    ticket = scheduler.submit(lane, pieces(*names, **kwargs), answers)
    with scheduler._change:
        assert scheduler._change.wait_for(lambda: not ticket.preparing, 30)
    return ticket, answers


def hold(scheduler, lane):
    """Keep the scheduler at a batch of its own, until :attr:`Lane.may` is released once."""
    submit(scheduler, lane, "first")
    assert lane.begun.acquire(timeout=30)


def test_what_arrives_together_is_decoded_together(make, lane):
    scheduler = make()
    hold(scheduler, lane)
    answers = [submit(scheduler, lane, name)[1] for name in "abc"]
    lane.may.release(2)
    assert [answer.wait() for answer in answers] == [["said a"], ["said b"], ["said c"]]
    assert lane.batches == [["first"], ["a", "b", "c"]]


def test_a_long_request_lets_short_ones_take_their_turn(make, lane):
    scheduler = make(batch_size=2)
    hold(scheduler, lane)
    _, long = submit(scheduler, lane, *(f"long {n}" for n in range(6)))
    _, short = submit(scheduler, lane, "short")
    lane.may.release(2)
    assert short.wait() == ["said short"]
    assert lane.batches[1] == ["long 0", "short"]
    lane.may.release(10)
    assert long.wait() == [f"said long {n}" for n in range(6)]


def test_a_batch_keeps_to_its_tokens(make, lane):
    scheduler = make(max_batch_tokens=10)
    hold(scheduler, lane)
    _, answers = submit(scheduler, lane, "a", "b", "c", tokens=5)
    lane.may.release(10)
    answers.wait()
    assert lane.batches == [["first"], ["a", "b"], ["c"]]


def test_lanes_do_not_share_batches(make, lane):
    scheduler, other = make(), Lane()
    other.may = lane.may
    hold(scheduler, lane)
    waited = [submit(scheduler, one, name)[1] for one, name in ((lane, "a"), (other, "b"), (lane, "c"))]
    lane.may.release(10)
    assert [answer.wait() for answer in waited] == [["said a"], ["said b"], ["said c"]]
    assert lane.batches == [["first"], ["a", "c"]] and other.batches == [["b"]]


def test_one_that_is_cancelled_is_not_decoded(make, lane):
    scheduler = make()
    hold(scheduler, lane)
    gone, nothing = submit(scheduler, lane, "gone 1", "gone 2")
    _, answers = submit(scheduler, lane, "stays")
    scheduler.cancel(gone)
    lane.may.release(10)
    assert answers.wait() == ["said stays"]
    assert lane.batches == [["first"], ["stays"]] and not nothing.found


def test_an_error_is_that_of_its_piece_alone(make, lane):
    scheduler = make()
    error = InputError("too long")
    _, answers = submit(scheduler, lane, "a", error, "b")
    lane.may.release(10)
    assert answers.wait() == ["said a", error, "said b"]


def test_an_engine_that_dies_is_told(make, lane):
    died = []
    scheduler = make(failed=died.append)
    _, answers = submit(scheduler, lane, "dies")
    lane.may.release(10)
    assert [type(one) for one in answers.wait()] == [EngineError] and len(died) == 1


class Caller:
    """A request whose messages come from a list; then nothing comes any more."""

    def __init__(self, *messages):
        self._messages = list(messages)

    async def receive(self):
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


def test_work_ends_when_its_caller_goes_away():
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ApiError) as caught:
        asyncio.run(while_there(Caller({"type": "http.disconnect"}), work()))
    assert caught.value.status == CLOSED and ended == [True]


def test_work_that_is_done_is_its_result():
    async def work():
        return 7

    assert asyncio.run(while_there(Caller(), work())) == 7


def body(*parts):
    return [{"type": "http.request", "body": part, "more_body": True} for part in parts]


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        (body(b"x" * 60, b"x" * 60), TOO_LARGE),
        (body(b"x"), TIMEOUT),
        ([*body(b"x"), {"type": "http.disconnect"}], CLOSED),
    ],
)
def test_bodies_that_are_refused(messages, status):
    async def read():
        return [part async for part in read_body(Caller(*messages), Limits(upload_bytes=100, idle_seconds=0.1))]

    with pytest.raises(ApiError) as caught:
        asyncio.run(read())
    assert caught.value.status == status
