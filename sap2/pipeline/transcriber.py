"""The Python interface: recordings of any length to transcripts."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from sap2.audio import open_recording
from sap2.audio_samples import Recording
from sap2.errors import InputError
from sap2.pipeline.batching import plan_batches
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.choice import open_engine
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.requests import as_recording, checked_keywords, shown_keywords
from sap2.pipeline.segmentation import Cutting, cut_at_pauses
from sap2.pipeline.stages import SPELLINGS, plan_stages, spelled_text
from sap2.pipeline.types import Request, Segment, Transcript
from sap2.pipeline.utterances import Job, Outcome
from sap2.pipeline.voice_activity import choose_detector
from sap2.progress import Progress
from sap2.prompts import PRUNE
from sap2.pruning.bank import TermBank
from sap2.slides.sources import TimedKeywords
from sap2.text import clean_keywords

_AHEAD = 4
"""Batches' worth of segments that are collected before they are put together by length."""
_AHEAD_SECONDS = 2 * 3600
"""Of recordings that are held while segments are collected, however little is said in them."""


class Piece(NamedTuple):
    """One segment of one recording: what is to be decoded, and from when to when it is (seconds)."""

    job: Job
    start: float
    end: float


class Decoded(NamedTuple):
    """A segment with all that came out of the model for it, for those who look closer."""

    segment: Segment
    job: Job
    outcome: Outcome


class _Recording(NamedTuple):
    id: str
    seconds: float
    pieces: list[Piece]


class Transcriber:
    """SAP² for recordings: one base model, an adapter for each stage, long audio cut at pauses.

    >>> t = Transcriber("Qwen/Qwen2-Audio-7B-Instruct", prune_adapter="out1/…", asr_adapter="out2/…")  # doctest: +SKIP
    >>> t.transcribe("talk.wav", keywords=["wozniak", "emily"]).text  # doctest: +SKIP
    "hi guys i'm emily wozniak"

    Args:
        model: folder or hub name of the base model.
        prune_adapter: LoRA checkpoint of stage one; without it the given list is used as it is.
        asr_adapter: LoRA checkpoint of stage two, or of the joint stage; None: the model alone transcribes.
        stages: ``asr``, ``prune,asr`` or ``joint``; None: ``prune,asr`` with a prune adapter or a pruner, else ``asr``.
        prune: how stage one is done, and with which bank of terms.
        batch_size: segments decoded together at most.
        max_batch_tokens: limit of a batch's size times its longest prompt.
        max_new_tokens: longest reply of a stage for one segment.
        max_segment_seconds: longest segment; None: what the model can hear (30 s for Qwen2-Audio).
        vad: what finds the speech: ``silero`` or ``energy`` (:mod:`sap2.pipeline.voice_activity`); None: Silero's
            network, or the energy where that cannot be loaded.
        case: of the keywords as the model is told them, one of :data:`sap2.spelling.CASES`; None: that of its training,
            where the checkpoint says it.
        guard_leaks, correct_keywords: see :mod:`sap2.pipeline.leaks` and :mod:`sap2.pipeline.correcting`.
        spelling: of the keywords in the transcript: ``keywords`` (as in the list) or ``model`` (as it replied).
        torch_dtype, attn_impl, device: see :class:`sap2.pipeline.loading.LoadedModel`.
        progress: show on stderr how far it is: a bar on a terminal, else a line a minute.
        engine: what generates, of :data:`sap2.pipeline.engines.choice.ENGINES`. vLLM starts processes, so that a
            program of its own makes a transcriber below ``if __name__ == "__main__":`` only, and closes it.
        engine_args: arguments of vLLM.

    Raises:
        InputError: settings or adapters that do not fit each other.
        EngineError: the engine did not start.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        prune_adapter: str | os.PathLike[str] | None = None,
        asr_adapter: str | os.PathLike[str] | None = None,
        *,
        stages: str | None = None,
        prune: PruneOptions | None = None,
        batch_size: int = 16,
        max_batch_tokens: int | None = None,
        max_new_tokens: int = 512,
        max_segment_seconds: float | None = None,
        vad: str | None = None,
        case: str | None = None,
        guard_leaks: bool = True,
        correct_keywords: bool = True,
        spelling: str = "keywords",
        torch_dtype: str | None = None,
        attn_impl: str | None = None,
        device: str | None = None,
        progress: bool = False,
        engine: str = "transformers",
        engine_args: Mapping[str, Any] | None = None,
    ):
        plan = plan_stages(stages, prune_adapter, asr_adapter, prune.names() if prune else ())
        if plan.stages == (PRUNE,):
            raise InputError("stages prune gives no transcript; allowed: asr, prune,asr, joint")
        if spelling not in SPELLINGS:
            raise InputError(f"spelling {spelling!r} is unknown; allowed: {', '.join(SPELLINGS)}")
        self._spelling = spelling
        self._detect = choose_detector(vad)
        given = (os.fspath(model), plan.adapters, device, torch_dtype, attn_impl)
        loaded, opened = open_engine(engine, *given, engine_args)
        self._decoder = Decoder(
            loaded,
            plan.stages,
            max_new_tokens,
            engine=opened,
            case=case,
            prune=prune,
            guard_leaks=guard_leaks,
            correct_keywords=correct_keywords,
        )
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens
        self.progress = progress
        self.cutting = self._choose_cutting(max_segment_seconds)

    def close(self) -> None:
        """End the processes of an engine that has some."""
        self._decoder.engine.close()

    def __enter__(self) -> Transcriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _choose_cutting(self, max_segment_seconds: float | None) -> Cutting:
        window = self._decoder.encoder.window_seconds
        if max_segment_seconds is None:
            return Cutting(window)
        if not max_segment_seconds <= window:
            raise InputError(f"max_segment_seconds is {max_segment_seconds:g}; the model hears at most {window:g} s")
        return Cutting(max_segment_seconds)

    @property
    def decoder(self) -> Decoder:
        """Runs the stages; it has the model and what makes its prompts."""
        return self._decoder

    @property
    def bank(self) -> TermBank | None:
        """The terms that are looked for in every segment."""
        return self._decoder.bank

    @property
    def times_words(self) -> bool:
        """Whether ``word_timestamps`` is possible: the model has a spotter that is trained."""
        return self._decoder.times_words

    def check_word_times(self, what: str) -> None:
        """Refuse ``what`` needs times of words where the model has no spotter that is trained.

        Raises:
            InputError: it has none.
        """
        self._decoder.check_word_times(what)

    @property
    def sampling_rate(self) -> int:
        """Samples per second of audio that is given as an array."""
        return self._decoder.encoder.sampling_rate

    @overload
    def transcribe(
        self,
        audio: str | os.PathLike[str] | np.ndarray | Request,
        keywords: Sequence[str] = ...,
        slides: Sequence[TimedKeywords] = ...,
        *,
        word_timestamps: bool = ...,
    ) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: Iterable[Request | str | os.PathLike[str]], *, word_timestamps: bool = ...
    ) -> Iterator[Transcript]: ...

    def transcribe(self, audio, keywords=(), slides=(), *, word_timestamps=False):
        """Transcribe one recording, or many.

        Args:
            audio: a path, samples at :attr:`sampling_rate`, or a :class:`Request`; or a list or an iterator of
                requests and paths.
            keywords: for one recording: what may be said in it.
            slides: for one recording: keywords that hold for a part of it.
            word_timestamps: segments have their words, with times from the spotter (:class:`sap2.pipeline.types.Word`).

        Returns:
            One :class:`Transcript`; for many, an iterator of them in the order given. Requests are read as they are
            needed.

        Raises:
            InputError: an audio that cannot be read, or keywords that are not a list of texts; it names the request.
                Times of words are asked for, and the model has no spotter that is trained.
        """
        if word_timestamps:
            self.check_word_times("word_timestamps")
        spelling = self._spelling if word_timestamps else None
        if isinstance(audio, Request):
            return next(self._stream([audio], spelling))
        if isinstance(audio, (str, os.PathLike, np.ndarray)):
            return next(self._stream([Request(audio, keywords, slides)], spelling))
        if len(keywords) or len(slides):
            raise InputError("keywords and slides go into the requests where there are many: Request(audio, keywords)")
        return self._stream((item if isinstance(item, Request) else Request(item) for item in audio), spelling)

    def decode(self, request: Request, *, word_timestamps: bool = False, corrected: bool = True) -> list[Decoded]:
        """The segments of one recording as :meth:`transcribe` makes them, with the model's replies; not ``corrected``:
        in the words that the model wrote.

        Raises:
            InputError: as :meth:`transcribe`.
        """
        if word_timestamps:
            self.check_word_times("word_timestamps")
        pieces = self._record(request, 1, self._spelling if word_timestamps else None).pieces
        pieces = [piece._replace(job=piece.job._replace(correct=corrected)) for piece in pieces]
        with Progress("decode", len(pieces), "segment", self.progress) as shown:
            outcomes = self._decode_pieces(pieces, shown)
        return [
            Decoded(self.segment(piece, outcome), piece.job, outcome)
            for piece, outcome in zip(pieces, outcomes, strict=True)
        ]

    def _stream(self, requests: Iterable[Request], word_spelling: str | None) -> Iterator[Transcript]:
        with Progress("decode", unit="segment", shown=self.progress) as shown:
            yield from self._transcripts(requests, word_spelling, shown)

    def _transcripts(
        self, requests: Iterable[Request], word_spelling: str | None, shown: Progress
    ) -> Iterator[Transcript]:
        """Read requests until enough segments for some batches are there, decode them, give what is complete."""
        window: list[_Recording] = []
        for number, request in enumerate(requests, 1):
            try:
                window.append(self._record(request, number, word_spelling))
            except InputError:
                yield from self._decode(window, shown)  # what is good before it is not lost
                raise
            shown.expect(len(window[-1].pieces))
            held = sum(recording.seconds for recording in window)
            if held >= _AHEAD_SECONDS or sum(len(one.pieces) for one in window) >= _AHEAD * self.batch_size:
                yield from self._decode(window, shown)
                window = []
        yield from self._decode(window, shown)

    def _record(self, request: Request, number: int, word_spelling: str | None) -> _Recording:
        """Read and cut one recording."""
        audio, rate = request.audio, self.sampling_rate
        is_path = isinstance(audio, (str, os.PathLike))
        id = request.id or (os.fspath(audio) if is_path else f"audio {number}")
        keywords = checked_keywords(request.keywords, id)
        samples = open_recording(audio, rate) if is_path else as_recording(audio, id)
        if not len(samples):
            raise InputError(f"{id}: the audio is empty")
        spans = cut_at_pauses(samples, rate, self.cutting, self._detect)
        pieces = self.offer(id, samples, spans, keywords, request.slides, word_spelling is not None)
        return _Recording(id, len(samples) / rate, pieces)

    def offer(
        self,
        id: str,
        samples: Recording,
        spans: Iterable[tuple[int, int]],
        keywords: Sequence[str],
        slides: Sequence[TimedKeywords] = (),
        word_timestamps: bool = False,
    ) -> list[Piece]:
        """The pieces of a recording that was cut at these samples, each with the keywords of its time."""
        spelling = self._spelling if word_timestamps else None
        pieces = []
        for first, last in spans:
            start, end = first / self.sampling_rate, last / self.sampling_rate
            offered = clean_keywords([*keywords, *shown_keywords(slides, start, end, id)])
            job = self._job(id, samples, (first, last), offered)
            pieces.append(Piece(job._replace(word_spelling=spelling), start, end))
        return pieces

    def _job(self, id: str, samples: Recording, span: tuple[int, int], keywords: list[str]) -> Job:
        # too short a piece for the model (a click) is heard with silence after it
        shortest = self.sampling_rate // 5
        first, last = span
        tokens = self._decoder.encoder.audio_tokens((last - first) / self.sampling_rate)

        def load() -> np.ndarray:
            return np.pad(samples[first:last], (0, max(0, shortest - (last - first))))

        return Job(id, load, keywords, about_tokens=tokens + sum(map(len, keywords)) // 4)

    def _decode(self, recordings: Sequence[_Recording], shown: Progress) -> Iterator[Transcript]:
        pieces = [piece for recording in recordings for piece in recording.pieces]
        outcomes = self._decode_pieces(pieces, shown)
        segments = (self.segment(piece, outcomes[index]) for index, piece in enumerate(pieces))
        for recording in recordings:
            own = list(itertools.islice(segments, len(recording.pieces)))
            yield Transcript.from_segments(recording.id, own, recording.seconds)

    def _decode_pieces(self, pieces: Sequence[Piece], shown: Progress) -> list[Outcome]:
        """Outcomes in the order of the pieces, which are decoded by length."""
        lengths = [piece.job.about_tokens for piece in pieces]
        batches = plan_batches(lengths, self.batch_size, self.max_batch_tokens)
        outcomes: dict[int, Outcome] = {}
        stream = self._decoder.stream(batches, lambda index: pieces[index].job, 2, shown)
        for index, outcome in itertools.chain.from_iterable(stream):
            if isinstance(outcome, Exception):
                raise outcome
            outcomes[index] = outcome
        return [outcomes[index] for index in range(len(pieces))]

    def segment(self, piece: Piece, outcome: Outcome) -> Segment:
        """What came out for a piece, in the time of its recording."""
        reading = outcome.reading
        start = round(piece.start, 3)
        return Segment(
            start=start,
            end=round(piece.end, 3),
            text=spelled_text(reading.text, reading.picked, self._spelling),
            keywords=len(piece.job.keywords),
            picked_keywords=reading.picked,
            unlisted_keywords=reading.unlisted,
            audio_tower_runs=outcome.audio_tower_runs,
            seconds=outcome.seconds,
            cut_off=outcome.cut_off,
            leak=None if outcome.leak is None else outcome.leak._asdict(),
            corrections=[one.to_dict() for one in outcome.corrections],
            words=None if outcome.words is None else [word.later(start) for word in outcome.words],
        )
