"""Utterances with an engine that works on many at once: the same outcomes, no barrier, and what is done is kept."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import Future

import pytest
import torch
from pipeline_rows import LISTS, TOKENS, prune_rows, write_jsonl

from sap2.audio import load_samples
from sap2.errors import EngineError, InputError
from sap2.pipeline import flow, worker
from sap2.pipeline.asking import Hearing
from sap2.pipeline.clock import SharedClock
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.pruners import PruneOptions, RankedKeyword
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.utterances import Job, Pruning
from sap2.progress import Progress


class SlowEngine(TransformersEngine):
    """Replies at once but for what is held; notes the stage and length of what comes.

    Args:
        hold: how many of the first requests wait until :meth:`release`.
        die_after: requests that are replied before the engine dies.
    """

    def __init__(self, loaded, hold=0, die_after=None):
        super().__init__(loaded)
        self.hold, self.die_after = hold, die_after
        self.asked, self.held = [], []

    def submit(self, stage, prompt, max_new_tokens):
        future = Future()
        self.asked.append(stage)
        if self.die_after is not None and len(self.asked) > self.die_after:
            future.set_exception(EngineError("the engine process has died"))
        elif len(self.asked) <= self.hold:
            self.held.append((future, stage, prompt, max_new_tokens))
        else:
            future.set_result(self.generate(stage, [prompt], max_new_tokens)[0])
        return future

    def release(self):
        for future, stage, prompt, max_new_tokens in self.held:
            future.set_result(self.generate(stage, [prompt], max_new_tokens)[0])


@pytest.fixture(scope="module")
def loaded(tiny, prune, asr):
    return LoadedModel(str(tiny), {"prune": prune, "asr": asr})


def jobs_of(wavs):
    return [
        Job(f"{wav} {n}", lambda wav=wav: load_samples(wav, 16_000), LISTS[n % len(LISTS)])
        for n, wav in enumerate([*wavs, *wavs])
    ]


def stream(decoder, jobs, size=2):
    batches = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    return decoder.stream(batches, lambda job: job, 2, Progress("decode", shown=False))


def compared(outcome):
    return outcome._replace(seconds=None, probabilities={k: round(v, 2) for k, v in outcome.probabilities.items()})


def test_outcomes_are_those_of_whole_batches(loaded, wavs):
    jobs = jobs_of(wavs)
    expected = {
        job.id: outcome for done in stream(Decoder(loaded, ("prune", "asr"), TOKENS), jobs) for job, outcome in done
    }
    decoder = Decoder(loaded, ("prune", "asr"), TOKENS, engine=SlowEngine(loaded))
    found = {job.id: outcome for done in stream(decoder, jobs) for job, outcome in done}
    assert len(found) == len(jobs)
    assert {id: compared(outcome) for id, outcome in found.items()} == {
        id: compared(outcome) for id, outcome in expected.items()
    }
    assert all(set(outcome.seconds) == {"audio", "prune", "asr"} for outcome in found.values())
    assert all(value > 0 for outcome in found.values() for value in outcome.seconds.values())


def test_nobody_waits_for_an_utterance_that_takes_long(loaded, wavs):
    """The first stays in stage one; all others come out, also those of the following batches."""
    jobs = jobs_of(wavs)
    engine = SlowEngine(loaded, hold=1)
    decoder = Decoder(loaded, ("prune", "asr"), TOKENS, engine=engine)
    order = []
    for done in stream(decoder, jobs):
        order += [job.id for job, _ in done]
        if len(order) == len(jobs) - 1:
            engine.release()
    assert sorted(order) == sorted(job.id for job in jobs) and order[-1] == jobs[0].id
    assert engine.asked.index("asr") < 3  # stage two before the second batch's stage one was through


def test_the_number_under_way_is_bounded(monkeypatch, loaded, wavs):
    monkeypatch.setattr(flow, "BATCHES_IN_FLIGHT", 1)
    engine = SlowEngine(loaded, hold=2)
    decoder = Decoder(loaded, ("prune",), 4, engine=engine)
    results = stream(decoder, jobs_of(wavs))
    take = flow.Flow._take

    def take_once_all_wait(self, wait):
        if wait:
            engine.release()
        return take(self, wait)

    monkeypatch.setattr(flow.Flow, "_take", take_once_all_wait)
    assert len(next(results)) == 2 and len(engine.asked) == 2


def test_bad_audio_and_a_list_too_long_take_their_own_utterance_only(loaded, wavs):
    def broken():
        raise InputError("no such audio")

    good = jobs_of(wavs)[:2]
    bad = [good[0]._replace(id="broken", load=broken), good[1]._replace(id="long", keywords=["wozniak"] * 5000)]
    decoder = Decoder(loaded, ("prune", "asr"), 4, engine=SlowEngine(loaded))
    found = {job.id: outcome for done in stream(decoder, [*bad, *good], size=4) for job, outcome in done}
    errors = {id: str(outcome) for id, outcome in found.items() if isinstance(outcome, Exception)}
    assert set(errors) == {"broken", "long"} and "shorter keyword list" in errors["long"]
    assert all(found[job.id].replies.keys() == {"prune", "asr"} for job in good)


def test_a_batch_that_does_not_fit_the_memory_is_heard_in_halves(monkeypatch, loaded, wavs):
    sizes, states = [], Hearing.states

    def crowded(self, stage):
        sizes.append(len(self.mask))
        if len(self.mask) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return states(self, stage)

    monkeypatch.setattr(Hearing, "states", crowded)
    decoder = Decoder(loaded, ("prune", "asr"), 4, engine=SlowEngine(loaded))
    (done,) = list(stream(decoder, jobs_of(wavs)[:2]))
    assert sizes[0] == 2 and all(not isinstance(outcome, Exception) for _, outcome in done)


def test_a_pruner_that_only_listens_asks_the_engine_nothing(loaded, wavs):
    class Loudest:
        asks_model = False

        def prune(self, hearing, utterances):
            assert len(hearing.mask) == len(utterances)
            return [Pruning([RankedKeyword("bob", 0.9)], ["bob"], []) for _ in utterances]

    engine = SlowEngine(loaded)
    decoder = Decoder(loaded, ("prune", "asr"), 4, engine=engine, pruner=Loudest())
    outcomes = [outcome for done in stream(decoder, jobs_of(wavs)) for _, outcome in done]
    assert set(engine.asked) == {"asr"} and all(outcome.reading.picked == ["bob"] for outcome in outcomes)


def test_a_union_of_pruners_finds_what_it_finds_in_whole_batches(wavs):
    shipped = LoadedModel("sap2-tiny", {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"})
    found = []
    for engine in (None, SlowEngine(shipped)):
        prune = PruneOptions("spot+generate", prune_top=3)
        decoder = Decoder(shipped, ("prune", "asr"), TOKENS, engine=engine, prune=prune)
        found.append({job.id: compared(out) for done in stream(decoder, jobs_of(wavs)) for job, out in done})
    assert found[0] == found[1]
    assert any(len(outcome.probabilities) > 1 for outcome in found[0].values())


def test_an_engine_that_dies_leaves_what_is_done_and_the_run_goes_on(monkeypatch, tiny, prune, asr, wavs, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", prune_rows(wavs))
    options = PipelineOptions(
        path, str(tmp_path / "r.jsonl"), str(tiny), str(prune), str(asr), max_new_tokens=TOKENS, batch_size=1
    )
    whole = dataclasses.replace(options, result_path=str(tmp_path / "whole.jsonl"))
    run_pipeline(whole)

    def opened(engine, *given):
        loaded = LoadedModel(*given[:-1])
        return loaded, SlowEngine(loaded, die_after=3)

    monkeypatch.setattr(flow, "BATCHES_IN_FLIGHT", 1)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "open_engine", opened)
        with pytest.raises(EngineError, match=r"has died; 1 of 3 rows have a result, the same command goes on"):
            run_pipeline(options)
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
    report = run_pipeline(options)
    assert (report.resumed, report.failed) == (1, 0)
    rows = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("r.jsonl", "whole.jsonl")
    ]
    assert [(row["id"], row["replies"]) for row in rows[0]] == [(row["id"], row["replies"]) for row in rows[1]]


def test_a_shared_clock_shares_its_time_and_knows_when_it_was_idle():
    clock = SharedClock()
    start = time.perf_counter()
    first = clock.enter()
    second = clock.enter()
    shares = [clock.leave(first)]
    time.sleep(0.02)
    shares.append(clock.leave(second))
    busy = time.perf_counter() - start
    assert clock.idle == 0.0
    assert 0.02 <= sum(shares) <= busy and shares[1] > shares[0]
    time.sleep(0.02)
    clock.leave(clock.enter())
    assert clock.idle >= 0.02
