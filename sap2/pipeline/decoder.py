"""The core: batches of utterances through the stages, their audio read ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import torch

from sap2.pipeline.asking import Asker, Hearing
from sap2.pipeline.batching import by_halves, read_ahead
from sap2.pipeline.correcting import Corrector
from sap2.pipeline.engines.base import ConcurrentEngine, Engine
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.flow import Flow
from sap2.pipeline.guard import LeakGuard
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.pruners import PruneOptions, Pruner, make_pruner
from sap2.pipeline.stages import read_reply
from sap2.pipeline.utterances import Job, Outcome, Prepared, Utterance
from sap2.pipeline.words import WordTimer
from sap2.progress import Progress
from sap2.prompts import PRUNE
from sap2.pruning.bank import read_bank
from sap2.slides.common import common_words

Item = TypeVar("Item")


class Decoder:
    """Runs the stages.

    Args:
        loaded: model and adapters.
        stages: of :data:`sap2.pipeline.stages.STAGES`.
        max_new_tokens: longest reply of a stage.
        truncate_audio: hear the beginning of too long an audio instead of refusing it.
        case: see :meth:`sap2.pipeline.loading.LoadedModel.writing`.
        engine: generates; None: ``generate`` of transformers.
        prune: how stage one is done, and its bank, which is read here; None: the model is asked.
        pruner: stage one, in place of that of ``prune``.
        guard_leaks: decode replies that look like the list again without it (:mod:`sap2.pipeline.leaks`); those that
            :meth:`speak` hands out in pieces stay.
        correct_keywords: put right what stage two wrote where the spotter is sure of a keyword
            (:mod:`sap2.pipeline.correcting`).

    Attributes:
        bank: the terms that are looked for in every utterance, or None.
        asks_first: whether the first stage puts a question to the model.
        listening: the stage with whose adapter the spotter listens.
        engine_idle_seconds: how long a concurrent engine waited for audio in the last :meth:`stream`.

    Raises:
        InputError: the bank cannot be read, or the pruner does not fit the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        stages: Sequence[str],
        max_new_tokens: int,
        truncate_audio: bool = False,
        case: str | None = None,
        engine: Engine | None = None,
        prune: PruneOptions | None = None,
        pruner: Pruner | None = None,
        guard_leaks: bool = True,
        correct_keywords: bool = True,
    ):
        self.loaded = loaded
        self.stages = tuple(stages)
        self.engine: Engine = engine or TransformersEngine(loaded)
        self.encoder = Encoder(loaded.processor, self.engine.max_length, truncate_audio)
        writings = {stage: loaded.writing(stage, case) for stage in self.stages}
        self._asker = Asker(self.encoder, self.engine, loaded.systems, writings, max_new_tokens)
        self.engine_idle_seconds = 0.0
        self._options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "truncate_audio": truncate_audio,
            "case": case,
            "guard_leaks": guard_leaks,
            "correct_keywords": correct_keywords,
        }
        prune = prune or PruneOptions()
        self.listening = list(loaded.systems)[-1]
        self.bank = read_bank(prune.term_bank) if prune.term_bank else None
        self._pruner = pruner or make_pruner(prune, self._asker, loaded, self.listening, self.bank)
        self._guard = LeakGuard(self._asker, self.stages, guard_leaks)
        corrects = correct_keywords and prune.corrects(self.stages)
        self._corrector = Corrector(self.listening, writings[self.stages[-1]], common_words(), corrects)
        self._timer = WordTimer(self.listening, loaded.word_calibration(self.listening))
        self.asks_first = self.stages[0] != PRUNE or self._pruner.asks_model

    @property
    def times_words(self) -> bool:
        """Whether times of words are possible: the model has a spotter that is trained."""
        return self.loaded.has_spotter(self.listening)

    def check_word_times(self, what: str) -> None:
        """Refuse times of words where the model has no spotter that is trained.

        Raises:
            InputError: ``what`` needs one.
        """
        self.loaded.check_spotter(self.listening, what)

    def variant(self, stages: Sequence[str], prune: PruneOptions) -> Decoder:
        """One with other stages or another pruner, which shares model and engine.

        Raises:
            InputError: as of the class.
        """
        return Decoder(self.loaded, stages, **self._options, engine=self.engine, prune=prune)

    def prepare(self, job: Job) -> Prepared:
        """Hear the audio and encode the first prompt; safe to call from several threads.

        Raises:
            InputError: what is wrong with the audio or the prompt.
        """
        heard = self.encoder.hear(job.load(), job.id)
        prompt = self._asker.first_prompt(self.stages[0], job, heard.tokens) if self.asks_first else None
        return Prepared(job, heard, prompt)

    @torch.inference_mode()
    def decode(self, prepared: Sequence[Prepared]) -> list[Outcome]:
        """Run all stages on a batch; outcomes in its order. Safe to call from several threads."""
        utterances = [Utterance(job, heard, prompt, list(job.keywords)) for job, heard, prompt in prepared]
        hearing = Hearing(self.loaded, [item.heard for item in prepared])
        seconds = {"audio": 0.0}
        for stage in self.stages:
            start, heard = time.perf_counter(), hearing.seconds
            self._run_stage(stage, hearing, utterances)
            self._guard.check(stage, hearing, utterances)
            seconds[stage] = time.perf_counter() - start - (hearing.seconds - heard)
        numbered = list(enumerate(utterances))
        self._corrector.correct(hearing, numbered)
        self._timer.add(hearing, numbered)
        seconds["audio"] = hearing.seconds
        share = {stage: round(value / len(utterances), 4) for stage, value in seconds.items()}
        return [utterance.outcome(share, hearing.tower_runs) for utterance in utterances]

    @torch.inference_mode()
    def speak(self, prepared: Prepared) -> Generator[str, None, Outcome]:
        """Run all stages on one utterance and hand out the last one's reply in pieces, as they come.

        Together the pieces are what the model said (``outcome.replies``), before keywords are corrected. Safe to call
        from several threads.

        Returns:
            Of the generator: the outcome.
        """
        utterance = Utterance(prepared.job, prepared.heard, prepared.prompt, list(prepared.job.keywords))
        hearing = Hearing(self.loaded, [prepared.heard])
        seconds: dict[str, float] = {}
        for stage in self.stages:
            start, heard = time.perf_counter(), hearing.seconds
            if stage == PRUNE:
                self._run_stage(stage, hearing, [utterance])
            else:
                reply = yield from self._asker.stream(stage, hearing, utterance)
                utterance.take_reading(read_reply(stage, reply.text, utterance.keywords))
            seconds[stage] = round(time.perf_counter() - start - (hearing.seconds - heard), 4)
        if self.stages[-1] == PRUNE:
            yield utterance.text
        self._corrector.correct(hearing, [(0, utterance)])
        self._timer.add(hearing, [(0, utterance)])
        return utterance.outcome({"audio": round(hearing.seconds, 4), **seconds}, hearing.tower_runs)

    def _run_stage(self, stage: str, hearing: Hearing, utterances: Sequence[Utterance]) -> None:
        if stage == PRUNE:
            for utterance, found in zip(utterances, self._pruner.prune(hearing, utterances), strict=True):
                utterance.take_pruning(found)
            return
        for utterance, reply in zip(utterances, self._asker.ask(stage, hearing, utterances), strict=True):
            utterance.take_reading(read_reply(stage, reply.text, utterance.keywords))

    def stream(
        self,
        batches: Sequence[Sequence[Item]],
        job_of: Callable[[Item], Job],
        workers: int,
        progress: Progress,
    ) -> Iterator[list[tuple[Item, Outcome | Exception]]]:
        """Decode batch by batch, reading the next one's audio in threads meanwhile; with a concurrent engine, utterance
        by utterance (see :mod:`sap2.pipeline.flow`).

        Args:
            batches: of anything that ``job_of`` makes a job of.
            workers: threads that read.
            progress: told of each batch, and how its computing time compares with its audio's.

        Yields:
            Some items, each with its outcome or with the error that took its place. A batch that does not fit the
            memory is tried again in halves.

        Raises:
            EngineError: the engine has died; what was done before has been yielded.
        """
        run = self._flow if isinstance(self.engine, ConcurrentEngine) else self._by_batches
        start, heard = time.perf_counter(), 0.0
        for done in run(batches, lambda item: self.prepare(job_of(item)), workers):
            heard += sum(outcome.audio_seconds for _, outcome in done if isinstance(outcome, Outcome))
            factor = f"real-time factor {(time.perf_counter() - start) / heard:.3f}" if heard else ""
            progress.update(len(done), factor)
            yield done

    def _flow(
        self, batches: Sequence[Sequence[Item]], prepare: Callable[[Item], Prepared], workers: int
    ) -> Iterator[list[tuple[Item, Outcome | Exception]]]:
        assert isinstance(self.engine, ConcurrentEngine)
        after = (self._guard, self._corrector, self._timer)
        flow = Flow(self.loaded, self.stages, self._asker, self.engine, self._pruner, *after)
        for done in flow.run(batches, prepare, workers):
            self.engine_idle_seconds = flow.clock.idle
            yield done

    def _by_batches(
        self, batches: Sequence[Sequence[Item]], prepare: Callable[[Item], Prepared], workers: int
    ) -> Iterator[list[tuple[Item, Outcome | Exception]]]:
        for batch, made in zip(batches, read_ahead(batches, prepare, workers), strict=True):
            yield list(zip(batch, self._decode_good(made), strict=True))

    def _decode_good(self, made: Sequence[Prepared | Exception]) -> list[Outcome | Exception]:
        """Outcomes of what could be prepared, and the errors of the rest in their places."""
        good = [item for item in made if isinstance(item, Prepared)]
        outcomes = iter(by_halves(good, self.decode) if good else [])
        return [next(outcomes) if isinstance(item, Prepared) else item for item in made]
