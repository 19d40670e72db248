"""From an upload to segments: places in the queue, decoding in workers, and the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from sap2.audio_samples import Recording
from sap2.errors import EngineError, InputError
from sap2.pipeline.engines.base import ConcurrentEngine
from sap2.pipeline.sharing import Lane, Lanes, Way
from sap2.pipeline.transcriber import Piece
from sap2.pipeline.types import Segment, Transcript
from sap2.serve.decks import Deck, times_of
from sap2.serve.decoding import Upload, decode_recording, read_slides, warm_up
from sap2.serve.errors import BAD_REQUEST, INTERNAL, TOO_LARGE, TOO_MANY, UNAVAILABLE, ApiError
from sap2.serve.forms import Asked
from sap2.serve.metrics import Metrics
from sap2.serve.options import ServeOptions
from sap2.serve.scheduler import Scheduler
from sap2.serve.workers import Workers

_CONCURRENT = 4
"""Batches under way with an engine that works on many at once."""


@dataclasses.dataclass
class Opened:
    """A request whose files are read: what is to be decoded, and what its slides hold."""

    name: str
    seconds: float
    lane: Lane
    pieces: Sequence[Piece]
    decks: Sequence[Deck]
    segments: list[Segment] = dataclasses.field(default_factory=list)

    def transcript(self) -> Transcript:
        """Of the segments that have come."""
        return Transcript.from_segments(self.name, self.segments, self.seconds)


class Service:
    """One model for all requests.

    Args:
        options: of the server.
        folder: private, for uploads.

    Attributes:
        lanes: the model, as soon as it is loaded.
        draining: whether nothing new is begun.
        failure: why the server has to end, or None.
    """

    def __init__(self, options: ServeOptions, folder: Path):
        self.options, self.folder = options, folder
        self.metrics = Metrics()
        self.lanes: Lanes | None = None
        self.draining = False
        self.failure: BaseException | None = None
        self.busy = 0
        self._held: set[Path] = set()
        self._average = 1.0
        self._scheduler: Scheduler | None = None
        limits = options.limits
        self._audio_workers = Workers(options.workers, folder, limits, warm_up, options.vad)
        self._slide_workers = Workers(1, folder, limits)

    def start(self, lanes: Lanes) -> None:
        """Take the model, read the term banks and decode a little, so that the first caller waits for nothing."""
        import numpy as np

        for bank in self.options.banks.values():
            lanes.lane(Way(bank=bank))
        engine = lanes.transcriber.decoder.engine
        threads = _CONCURRENT if isinstance(engine, ConcurrentEngine) else 1
        options = self.options
        self._scheduler = Scheduler(
            options.batch_size,
            options.max_batch_tokens,
            threads,
            failed=self._fail,
            noted=self.metrics.batches.observe,
        )
        rate = lanes.transcriber.sampling_rate
        noise = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
        lane = lanes.lane(Way())
        pieces = lane.pieces("warming up", Recording(noise), [(0, rate)], ["one", "two"])
        for outcome in lane.decode(pieces, [lane.prepare(piece) for piece in pieces]):
            if isinstance(outcome, Exception):
                raise outcome
        self._audio_workers.wait_until_warm()
        self.lanes = lanes
        self.metrics.ready.set(1)

    def close(self) -> None:
        """End threads and processes, and the engine's."""
        if self._scheduler is not None:
            self._scheduler.close()
        self._audio_workers.close()
        self._slide_workers.close()
        if self.lanes is not None:
            self.lanes.transcriber.close()

    def drain(self) -> None:
        """Begin nothing new."""
        self.draining = True
        self.metrics.ready.set(0)

    def check_ready(self) -> Lanes:
        """The model.

        Raises:
            ApiError: it is still being loaded, or the server is about to end.
        """
        if self.draining or self.failure is not None:
            raise ApiError(UNAVAILABLE, "the server is about to end", code="ending")
        if self.lanes is None:
            raise ApiError(UNAVAILABLE, "the model is being loaded", code="loading")
        return self.lanes

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """A place in the queue, and a folder for the files of its request.

        Raises:
            ApiError: there is no place.
        """
        self.check_ready()
        if self.busy >= self.options.limits.requests:
            wait = max(1, min(60, math.ceil(self._average)))
            raise ApiError(TOO_MANY, f"{self.busy} requests are being served; ask again", code="busy", retry_after=wait)
        self.busy += 1
        self.metrics.queue.set(self.busy)
        begun = time.monotonic()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        self._held.add(folder)
        try:
            yield folder
        finally:
            self._held.discard(folder)
            shutil.rmtree(folder, ignore_errors=True)
            self._average += 0.1 * (time.monotonic() - begun - self._average)
            self.busy -= 1
            self.metrics.queue.set(self.busy)

    async def open(self, asked: Asked) -> Opened:
        """Read the files of a request that has a :meth:`place`, and is finished therefore though the server drains.

        Raises:
            ApiError: what is wrong with them.
        """
        lanes = self.lanes
        assert lanes is not None and self._scheduler is not None
        self._scheduler.expect(1)
        try:
            with _told(asked.file, "file"):
                lane = await asyncio.to_thread(lanes.lane, asked.way)
                if asked.words:
                    lanes.transcriber.decoder.check_word_times("timestamp_granularities word")
            transcriber = lanes.transcriber
            rate, limits = transcriber.sampling_rate, self.options.limits
            given = (asked.file, rate, transcriber.cutting, self.options.vad, limits)
            decoding = self._read(self._audio_workers, decode_recording, *given)
            try:
                decks = [await self._read_deck(upload, asked.language) for upload in asked.slides]
                timed = self._times(asked, decks)
            except BaseException:
                decoding.cancel()
                raise
            with _told(asked.file, "file"):
                decoded = await asyncio.wrap_future(decoding)
                samples = Recording(Path(decoded.path).open("rb"), decoded.count)  # noqa: SIM115 - the recording's
                Path(decoded.path).unlink()
                keywords = [*asked.keywords]
                if asked.manifest is None:
                    keywords += [keyword for deck in decks for keyword in deck.choose(asked.language)]
                pieces = await asyncio.to_thread(
                    lane.pieces, asked.file.name, samples, decoded.spans, keywords, timed, asked.words
                )
        finally:
            self._scheduler.expect(-1)
        return Opened(asked.file.name, decoded.count / rate, lane, pieces, decks)

    async def _read_deck(self, upload: Upload, language: str) -> Deck:
        with _told(upload, "slides"):
            reading = self._read(self._slide_workers, read_slides, upload, language, self.options.limits)
            return Deck(upload.name, await asyncio.wrap_future(reading))

    def _read(self, workers: Workers, function: Callable[..., Any], upload: Upload, *args: Any) -> Future[Any]:
        """Have a file read. A worker whose caller has left may still write beside it, so that it is cleared after."""
        folder = Path(upload.path).parent
        reading = workers.submit(function, upload, *args)
        reading.add_done_callback(lambda _: None if folder in self._held else shutil.rmtree(folder, ignore_errors=True))
        return reading

    def _times(self, asked: Asked, decks: Sequence[Deck]) -> list:
        if asked.manifest is None:
            return []
        if Path(asked.manifest.path).stat().st_size > self.options.limits.field_bytes:
            raise ApiError(TOO_LARGE, f"{asked.manifest.name} is too long for a manifest", "manifest")
        return times_of(asked.manifest, asked.file.name, decks, asked.language)

    async def decode(self, opened: Opened) -> AsyncGenerator[Segment, None]:
        """The segments of a request in their order, as they come. Closing the iterator frees its place.

        Raises:
            ApiError: a segment could not be decoded.
        """
        assert self._scheduler is not None
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[int, Segment | Exception]] = asyncio.Queue()
        ticket = self._scheduler.submit(opened.lane, opened.pieces, _deliver_to(loop, queue))
        try:
            come: dict[int, Segment] = {}
            while len(opened.segments) < len(opened.pieces):
                index, found = await queue.get()
                if isinstance(found, Exception):
                    raise _failed(found)
                come[index] = found
                self.metrics.note_segment(found.end - found.start, sum(found.seconds.values()))
                while (segment := come.pop(len(opened.segments), None)) is not None:
                    opened.segments.append(segment)
                    yield segment
        finally:
            self._scheduler.cancel(ticket)

    def _fail(self, error: EngineError) -> None:
        self.failure = self.failure or error


def _deliver_to(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[tuple[int, Segment | Exception]]
) -> Callable[[int, Segment | Exception], None]:
    def deliver(index: int, found: Segment | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(queue.put_nowait, (index, found))

    return deliver


def _failed(error: Exception) -> ApiError:
    """What a caller is told of an error of decoding."""
    if isinstance(error, InputError):
        return ApiError(BAD_REQUEST, str(error))
    if isinstance(error, EngineError):
        return ApiError(UNAVAILABLE, "the engine has died; the server ends", code="ending")
    return ApiError(INTERNAL, f"decoding failed ({type(error).__name__})")


@contextlib.contextmanager
def _told(upload: Upload, field: str) -> Iterator[None]:
    """Errors about a file, with the caller's name of it."""
    try:
        yield
    except ApiError as error:
        error.param = error.param or field
        raise
    except InputError as error:
        raise ApiError(BAD_REQUEST, str(error).replace(upload.path, upload.name), field) from None
