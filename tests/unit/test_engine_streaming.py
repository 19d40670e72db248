"""A reply in pieces while it is generated: together they are the reply, and nothing goes on for a reader that left."""

from __future__ import annotations

import threading

import pytest
import torch
from pipeline_rows import LISTS, TOKENS

from sap2.audio import load_samples
from sap2.pipeline.asking import Hearing
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines import transformers
from sap2.pipeline.engines.replies import TokenQueue, read_reply, read_stream
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.utterances import Job


@pytest.fixture(scope="module")
def loaded(tiny, prune, asr):
    return LoadedModel(str(tiny), {"prune": prune, "asr": asr})


@pytest.fixture(scope="module")
def prompts(loaded, wavs):
    decoder = Decoder(loaded, ("asr",), TOKENS)
    prepared = [
        decoder.prepare(Job(wav, lambda wav=wav: load_samples(wav, 16_000), LISTS[n])) for n, wav in enumerate(wavs)
    ]
    with torch.inference_mode():
        hearing = Hearing(loaded, [one.heard for one in prepared])
        return hearing.embed("asr", decoder.encoder, [one.prompt for one in prepared])


def spoken(stream):
    """The pieces of a stream, and what it returns."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


@pytest.mark.parametrize("stage", ["prune", "asr", "neither"])
def test_pieces_make_up_the_reply(loaded, prompts, stage):
    engine, most = TransformersEngine(loaded), 0
    for prompt in prompts:
        (expected,) = engine.generate(stage, [prompt], TOKENS)
        pieces, reply = spoken(engine.stream(stage, prompt, TOKENS))
        assert "".join(pieces) == expected.text and reply == expected
        most = max(most, len(pieces))
    assert most > 1


def test_a_character_of_several_tokens_comes_whole(loaded):
    tokenizer = loaded.processor.tokenizer
    ids = [*tokenizer("é沃 ok")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert len(ids) > len("é沃 ok") + 1
    for length in (len(ids), 3):  # the reply is cut off within a character
        tokens = TokenQueue()
        for token in ids[:length]:
            tokens.put([token], [-1.0])
        tokens.end()
        pieces, reply = spoken(read_stream(tokens, tokenizer))
        assert reply == read_reply(ids[:length], [-1.0] * length, tokenizer)
        assert "".join(pieces) == reply.text
        assert pieces[0] == "é"


def test_what_goes_wrong_is_raised_where_the_reply_is_read(monkeypatch, loaded, prompts):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(loaded.model, "generate", fail)
    with pytest.raises(torch.OutOfMemoryError):
        next(TransformersEngine(loaded).stream("asr", prompts[0], TOKENS))


def test_a_reader_that_leaves_ends_the_reply(loaded, prompts):
    engine = TransformersEngine(loaded)
    reading = engine.stream("neither", prompts[0], 4000)
    next(reading)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "generate"]
    reading.close()
    thread.join(60)
    assert not thread.is_alive()
    assert engine.generate("neither", prompts[:1], 2)


@pytest.mark.parametrize("stages", [("prune", "asr"), ("asr",), ("joint",), ("prune",)])
def test_the_last_stage_speaks_in_pieces_and_the_outcome_is_that_of_a_batch(loaded, wavs, stages):
    model = LoadedModel(loaded.path, {"joint": None}) if stages == ("joint",) else loaded
    decoder = Decoder(model, stages, TOKENS)
    for wav, keywords in zip(wavs, LISTS, strict=False):
        prepared = decoder.prepare(Job(wav, lambda wav=wav: load_samples(wav, 16_000), keywords))
        (expected,) = decoder.decode([prepared])
        pieces, outcome = spoken(decoder.speak(prepared))
        assert "".join(pieces) == expected.replies[stages[-1]]
        assert outcome._replace(seconds=None) == expected._replace(seconds=None)
        assert outcome.seconds.keys() == expected.seconds.keys()
        assert all(value > 0 for value in outcome.seconds.values())


def test_the_first_piece_does_not_wait_for_the_last(monkeypatch, loaded, prompts):
    """The model says "aaa…", and stands still before the last token until a piece was read."""
    was_read, steps = threading.Event(), []
    record, letter = transformers._RecordLogProbs.__call__, loaded.processor.tokenizer.convert_tokens_to_ids("a")

    def say_a(self, input_ids, scores):
        steps.append(input_ids)
        if len(steps) == TOKENS:
            assert was_read.wait(60)
        return record(self, input_ids, torch.zeros_like(scores).index_fill_(1, torch.tensor([letter]), 1.0))

    monkeypatch.setattr(transformers._RecordLogProbs, "__call__", say_a)
    reading = TransformersEngine(loaded).stream("asr", prompts[1], TOKENS)
    pieces = [next(reading)]
    was_read.set()
    assert [*pieces, *reading] == ["a"] * TOKENS
