"""Utterances through the stages with an engine that works on many at once: no utterance waits for others.

One that has its reply of stage one enters stage two while others are still in stage one and the next ones' audio is
heard. Three kinds of work go on at a time: threads read audio, the engine generates, and the caller's thread hears
(batch by batch), pools, embeds and reads replies.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple, cast

import torch

from sap2.errors import EngineError, InputError
from sap2.pipeline.asking import Asker, Hearing
from sap2.pipeline.batching import by_halves, result_of
from sap2.pipeline.clock import SharedClock
from sap2.pipeline.correcting import Corrector
from sap2.pipeline.engines.base import ConcurrentEngine, EmbeddedPrompt, Reply
from sap2.pipeline.guard import LeakGuard
from sap2.pipeline.leaks import Suspicion
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Prompt
from sap2.pipeline.pruners import AskingPruner, Pruner
from sap2.pipeline.stages import read_reply
from sap2.pipeline.utterances import Outcome, Prepared, Pruning, Utterance
from sap2.pipeline.words import WordTimer
from sap2.prompts import PRUNE

AHEAD = 2
"""Batches whose audio is read and waits to be heard."""
BATCHES_IN_FLIGHT = 8
"""So many batches' worth of utterances are with the engine at most; what the tower made of them is kept meanwhile."""


@dataclasses.dataclass(eq=False)
class _Journey:
    """One utterance under way: its item in the run, its audio (a row of a hearing), the stage that it is in.

    ``heard`` is what stage one found without the model, where it asks the model as well. ``suspicion``: the last
    stage's reply may be a leak, and the stage is asked again without the list.
    """

    item: Any
    utterance: Utterance
    hearing: Hearing
    row: int
    stage: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: {"audio": 0.0})
    tower_runs: int = 0
    heard: list[Pruning] = dataclasses.field(default_factory=list)
    suspicion: Suspicion | None = None

    def spend(self, kind: str, seconds: float) -> None:
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def outcome(self) -> Outcome:
        rounded = {kind: round(seconds, 4) for kind, seconds in self.seconds.items()}
        return self.utterance.outcome(rounded, self.tower_runs)


class _Replied(NamedTuple):
    journey: _Journey
    future: Future[Reply]
    seconds: float


Done = list[tuple[Any, Outcome | Exception]]
"""Items of a run, each with its outcome or with the error that took its place."""


class Flow:
    """One run.

    Args:
        loaded: hears, pools and embeds.
        stages: names.
        asker: writes prompts.
        engine: generates.
        pruner: stage one.
        guard: against leaks.
        corrector: of keywords, in the end.
        timer: of words, in the end.

    Attributes:
        clock: of the engine; its idle time is what the engine waited for audio, pooling and embedding.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        stages: Sequence[str],
        asker: Asker,
        engine: ConcurrentEngine,
        pruner: Pruner,
        guard: LeakGuard,
        corrector: Corrector,
        timer: WordTimer,
    ):
        self._loaded = loaded
        self._engine = engine
        self._stages = tuple(stages)
        self._asker = asker
        self._pruner = pruner
        self._guard = guard
        self._corrector = corrector
        self._timer = timer
        self._asking = cast(AskingPruner, pruner)  # where it asks the model
        self.clock = SharedClock()
        self._events: SimpleQueue[_Replied | None] = SimpleQueue()
        self._flying = 0
        self._died: EngineError | None = None

    def run(self, batches: Sequence[Sequence[Any]], prepare: Callable[[Any], Prepared], workers: int) -> Iterator[Done]:
        """Outcomes as they come.

        Args:
            batches: items whose audio is heard together.
            prepare: reads the audio of an item; called in ``workers`` threads.

        Raises:
            EngineError: the engine has died; what was done before has been yielded.
        """
        limit = BATCHES_IN_FLIGHT * max(map(len, batches), default=0)
        with _Reader(batches, prepare, workers, lambda _: self._events.put(None)) as reader:
            while reader.busy or self._flying:
                begin = reader.ready and self._flying < limit
                done = self._advance(self._take(wait=not begin))
                if begin:
                    done += self._begin(*reader.take())
                if done:
                    yield done
                if self._died is not None:
                    raise self._died

    def _take(self, wait: bool) -> list[_Replied]:
        """The replies that have come; with ``wait``, once something has."""
        events = [self._events.get()] if wait else []
        while not self._events.empty():
            events.append(self._events.get())
        return [event for event in events if event is not None]

    @torch.inference_mode()
    def _begin(self, items: Sequence[Any], made: Sequence[Prepared | Exception]) -> Done:
        """Hear a batch and send it into the first stage."""
        done: Done = [(item, one) for item, one in zip(items, made, strict=True) if isinstance(one, Exception)]
        good = [(item, one) for item, one in zip(items, made, strict=True) if not isinstance(one, Exception)]
        journeys = by_halves(good, self._hear) if good else []
        done += [(item, one) for (item, _), one in zip(good, journeys, strict=True) if isinstance(one, Exception)]
        return done + self._enter([one for one in journeys if not isinstance(one, Exception)])

    def _hear(self, items: Sequence[tuple[Any, Prepared]]) -> list[_Journey]:
        hearing = Hearing(self._loaded, [prepared.heard for _, prepared in items])
        hearing.states(self._stages[0])
        journeys = [
            _Journey(item, Utterance(job, heard, prompt, list(job.keywords)), hearing, row)
            for row, (item, (job, heard, prompt)) in enumerate(items)
        ]
        _note_hearing(journeys, hearing)
        return journeys

    @torch.inference_mode()
    def _advance(self, replied: Sequence[_Replied]) -> Done:
        """Read replies and send their utterances on, those that were heard together at once."""
        done: Done = []
        groups: dict[tuple[int, int], list[_Journey]] = {}
        for journey, future, seconds in replied:
            self._flying -= 1
            try:
                reply = future.result()
            except EngineError as error:
                self._died = error
                continue
            journey.spend(self._stages[journey.stage], seconds)
            self._read(journey, reply)
            groups.setdefault((id(journey.hearing), journey.stage), []).append(journey)
        for journeys in groups.values():
            done += self._enter(journeys)
        return done

    def _read(self, journey: _Journey, reply: Reply) -> None:
        """Take a reply; the stage is done, or it is asked once more without the list."""
        stage, utterance = self._stages[journey.stage], journey.utterance
        if journey.suspicion is not None:
            self._guard.settle(stage, utterance, journey.suspicion, reply)
            journey.suspicion = None
        else:
            utterance.note(stage, reply)
            if stage == PRUNE:
                utterance.take_pruning(self._asking.read(reply, utterance.keywords, journey.heard))
            else:
                utterance.take_reading(read_reply(stage, reply.text, utterance.keywords))
            journey.suspicion = self._guard.suspect(stage, utterance)
        if journey.suspicion is None:
            journey.stage += 1

    def _enter(self, journeys: Sequence[_Journey]) -> Done:
        """Send utterances that were heard together into their stage, or out where there is none any more."""
        if not journeys:
            return []
        if journeys[0].stage == len(self._stages):
            numbered = [(journey.row, journey.utterance) for journey in journeys]
            self._corrector.correct(journeys[0].hearing, numbered)
            self._timer.add(journeys[0].hearing, numbered)
            return [(journey.item, journey.outcome()) for journey in journeys]
        if self._stages[journeys[0].stage] == PRUNE and not self._pruner.asks_model:
            return self._prune(journeys)
        return self._ask(journeys)

    def _prune(self, journeys: Sequence[_Journey]) -> Done:
        """Stage one by a pruner that only listens."""

        def prune(some: Sequence[_Journey]) -> list[Pruning]:
            hearing = some[0].hearing.take([journey.row for journey in some])
            return self._pruner.prune(hearing, [journey.utterance for journey in some])

        start = time.perf_counter()
        found = by_halves(journeys, prune)
        share = (time.perf_counter() - start) / len(journeys)
        done: Done = []
        on: list[_Journey] = []
        for journey, pruning in zip(journeys, found, strict=True):
            if isinstance(pruning, Exception):
                done.append((journey.item, pruning))
                continue
            journey.spend(PRUNE, share)
            journey.utterance.take_pruning(pruning)
            journey.stage += 1
            on.append(journey)
        return done + self._enter(on)

    def _ask(self, journeys: Sequence[_Journey]) -> Done:
        """Put the stage's question about each utterance to the engine."""
        stage = self._stages[journeys[0].stage]
        done: Done = []
        asked: list[tuple[_Journey, Prompt]] = []
        start = time.perf_counter()
        for journey in journeys:
            try:
                writer = self._asker if journey.suspicion is None else self._guard
                asked.append((journey, writer.prompt(stage, journey.utterance)))
            except InputError as error:
                done.append((journey.item, error))

        def embed(some: Sequence[tuple[_Journey, Prompt]]) -> list[EmbeddedPrompt]:
            hearing = some[0][0].hearing.take([journey.row for journey, _ in some])
            embedded = hearing.embed(stage, self._asker.encoder, [prompt for _, prompt in some])
            if stage == PRUNE:
                found = self._asking.listen(hearing, [journey.utterance for journey, _ in some])
                for (journey, _), heard in zip(some, found, strict=True):
                    journey.heard = heard
            _note_hearing([journey for journey, _ in some], hearing)
            return embedded

        embedded = by_halves(asked, embed) if asked else []
        share = (time.perf_counter() - start) / len(journeys)
        for (journey, _), prompt in zip(asked, embedded, strict=True):
            if isinstance(prompt, Exception):
                done.append((journey.item, prompt))
                continue
            journey.spend(stage, share)
            self._submit(stage, journey, prompt)
        return done

    def _submit(self, stage: str, journey: _Journey, prompt: EmbeddedPrompt) -> None:
        entered = self.clock.enter()
        self._flying += 1
        future = self._engine.submit(stage, prompt, self._asker.room(prompt))
        future.add_done_callback(lambda done: self._events.put(_Replied(journey, done, self.clock.leave(entered))))


def _note_hearing(journeys: Sequence[_Journey], hearing: Hearing) -> None:
    for journey in journeys:
        journey.spend("audio", hearing.seconds / len(journeys))
        journey.tower_runs = hearing.tower_runs


class _Reader:
    """Reads the audio of batches in threads, some batches ahead; ``awake`` is called whenever one has been read."""

    def __init__(
        self,
        batches: Sequence[Sequence[Any]],
        prepare: Callable[[Any], Prepared],
        workers: int,
        awake: Callable[[Any], None],
    ):
        self._left = iter(batches)
        self._prepare = prepare
        self._awake = awake
        self._pool = ThreadPoolExecutor(workers, "read-ahead")
        self._waiting: deque[tuple[Sequence[Any], list[Future[Prepared]]]] = deque()

    def __enter__(self) -> _Reader:
        for batch in itertools.islice(self._left, AHEAD):
            self._read(batch)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, batch: Sequence[Any]) -> None:
        futures = [self._pool.submit(self._prepare, item) for item in batch]
        self._waiting.append((batch, futures))
        for future in futures:
            future.add_done_callback(self._awake)

    @property
    def busy(self) -> bool:
        """Whether there are batches that were not taken."""
        return bool(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether one can be taken."""
        return bool(self._waiting) and all(future.done() for future in self._waiting[0][1])

    def take(self) -> tuple[Sequence[Any], list[Prepared | Exception]]:
        """The first batch: its items, and what was read or the error that took its place."""
        batch, futures = self._waiting.popleft()
        for following in itertools.islice(self._left, 1):
            self._read(following)
        made: list[Prepared | Exception] = []
        made += map(result_of, futures)
        return batch, made
