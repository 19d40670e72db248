"""Keywords that the spotter puts right: in runs, recordings, streams and explanations, and on the command line."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Future

import pytest
import soundfile

from sap2.commands import pipeline, serve, transcribe
from sap2.explain.explaining import explain
from sap2.explain.types import ExplainOptions
from sap2.pipeline import transcriber, worker
from sap2.pipeline.correcting import (
    SURE,
)
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.transcriber import Transcriber
from sap2.pipeline.utterances import Job
from sap2.rowfiles import read_rows
from sap2.tiny.speech import speak

SAID = "we looked at gailvan today"
WRITTEN = "we looked at bailvan today"
LIST = ["gailvan", "fitus", "mortadel"]


class Misspelling(TransformersEngine):
    """Misspells the name."""

    writes = WRITTEN

    def reply(self):
        pieces = [piece if number == 0 else f" {piece}" for number, piece in enumerate(self.writes.split())]
        return Reply(self.writes, True, pieces, [-0.01] * len(pieces))

    def generate(self, stage, prompts, max_new_tokens):
        return [self.reply() for _ in prompts]

    def stream(self, stage, prompt, max_new_tokens):
        yield self.writes
        return self.reply()


class MisspellingConcurrently(Misspelling):
    def submit(self, stage, prompt, max_new_tokens):
        future = Future()
        future.set_result(self.reply())
        return future


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel("sap2-tiny", {"asr": "sap2-tiny-asr"})


@pytest.fixture(params=[Misspelling, MisspellingConcurrently])
def engine(request, monkeypatch, loaded):
    made = request.param(loaded)
    monkeypatch.setattr(worker, "open_engine", lambda *args: (loaded, made))
    return made


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    soundfile.write(folder / "a.wav", speak(SAID), 16_000)
    rows = [
        {"id": name, "audio": str(folder / "a.wav"), "text": SAID, "keywords": keywords}
        for name, keywords in (("listed", LIST), ("unlisted", LIST[1:]), ("none", []))
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def options(utterances, folder, **more):
    given = {"model": "sap2-tiny", "asr_adapter": "sap2-tiny-asr", "pruner": "spot", **more}
    return PipelineOptions(str(utterances), str(folder / "result.jsonl"), **given)


def decode(given):
    report = run_pipeline(given)
    assert report.failed == 0
    return report, {row["id"]: row for _, row in read_rows(given.result_path)}


def test_a_run_corrects_notes_and_counts(utterances, engine, tmp_path):
    report, rows = decode(options(utterances, tmp_path, words=True))
    assert {id: row["response"] for id, row in rows.items()} == {"listed": SAID, "unlisted": WRITTEN, "none": WRITTEN}
    listed = rows["listed"]
    assert listed["corrections"] == [{"written": "bailvan", "keyword": "gailvan"}]
    assert listed["replies"]["asr"] == WRITTEN and listed["messages"][-1]["content"] == SAID
    assert "corrections" not in rows["unlisted"] and "corrections" not in rows["none"]
    assert report.corrected == 1 and ", 1 keyword put right" in str(report)
    words, others = listed["words"], rows["unlisted"]["words"]
    assert [word["word"] for word in words] == SAID.split() and words[3]["keyword"] == "gailvan"
    assert words[3]["probability"] == listed["keyword_probabilities"]["gailvan"] >= SURE
    # what the model said of the other words still counts
    assert [word["probability"] for word in words[:3]] == pytest.approx(
        [word["probability"] for word in others[:3]], abs=0.02
    )


def test_a_run_can_leave_it_and_does_not_mix(utterances, engine, tmp_path, capsys):
    report, rows = decode(options(utterances, tmp_path, correct_keywords=False))
    assert {row["response"] for row in rows.values()} == {WRITTEN} and report.corrected == 0
    assert "put right" not in str(report) and not any("corrections" in row for row in rows.values())
    with pytest.raises(ValueError, match="correct_keywords None \\(now True\\)"):
        run_pipeline(options(utterances, tmp_path))


def test_without_the_spotter_nothing_is_corrected(utterances, engine, tmp_path):
    for more in ({"pruner": "match"}, {"pruner": None, "stages": "asr"}):
        given = options(utterances, tmp_path, overwrite=True, **more)
        assert "correct_keywords" not in given.result_settings()
        _, rows = decode(given)
        assert {row["response"] for row in rows.values()} == {WRITTEN}


def test_a_recording_says_what_was_corrected(monkeypatch, loaded):
    monkeypatch.setattr(transcriber, "open_engine", lambda *args: (loaded, Misspelling(loaded)))
    given = ("sap2-tiny", None, "sap2-tiny-asr")
    spot = PruneOptions("spot")
    keywords = ["GAILVAN", *LIST[1:]]
    transcript = Transcriber(*given, prune=spot).transcribe(speak(SAID), keywords, word_timestamps=True)
    (segment,) = transcript.segments
    assert segment.text == "we looked at GAILVAN today"  # as the list writes it
    assert segment.corrections == [{"written": "bailvan", "keyword": "gailvan"}]
    assert [word.keyword for word in segment.words] == [None, None, None, "GAILVAN", None]
    assert segment.to_dict()["corrections"] == segment.corrections
    (other,) = Transcriber(*given, prune=spot, correct_keywords=False).transcribe(speak(SAID), keywords).segments
    assert other.text == WRITTEN and "corrections" not in other.to_dict()


def test_what_is_explained_is_what_the_model_wrote(loaded, monkeypatch):
    monkeypatch.setattr(transcriber, "open_engine", lambda *args: (loaded, Misspelling(loaded)))
    made = Transcriber("sap2-tiny", None, "sap2-tiny-asr", prune=PruneOptions("spot"))
    found = explain(made, speak(SAID), LIST, words=(4, 4), options=ExplainOptions(masks=4, steps=1))
    assert found.text == WRITTEN and [word.text for one in found.segments for word in one.words] == ["bailvan"]


def test_a_streamed_reply_ends_with_what_is_right(loaded):
    decoder = Decoder(loaded, ("prune", "asr"), 16, engine=Misspelling(loaded), prune=PruneOptions("spot"))
    pieces = decoder.speak(decoder.prepare(Job("x", lambda: speak(SAID), LIST)))
    said = []
    while True:
        try:
            said.append(next(pieces))
        except StopIteration as end:
            outcome = end.value
            break
    assert "".join(said) == outcome.replies["asr"] == WRITTEN and outcome.reading.text == SAID


def test_a_variant_keeps_what_was_turned_off(loaded):
    engine = Misspelling(loaded)
    for on in (True, False):
        decoder = Decoder(loaded, ("asr",), 16, engine=engine, guard_leaks=on, correct_keywords=on)
        variant = decoder.variant(("prune", "asr"), PruneOptions("spot"))
        (outcome,) = variant.decode([variant.prepare(Job("x", lambda: speak(SAID), LIST))])
        assert outcome.reading.text == (SAID if on else WRITTEN)
        assert bool(variant._guard._on) is on


@pytest.mark.parametrize("command", [pipeline, transcribe, serve])
def test_each_command_can_turn_it_off(command):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    needed = {"--val-dataset": "x", "--result-path": "y", "--model": "z"}
    known = {flag for action in parser._actions for flag in action.option_strings}
    given = [part for flag, value in needed.items() if flag in known for part in (flag, value)]
    given += ["a.wav"] if command is transcribe else []
    assert parser.parse_args(given).correct_keywords is True
    args = parser.parse_args([*given, "--correct-keywords", "false", "--guard-leaks", "false"])
    assert args.correct_keywords is False and args.guard_leaks is False
    if command is not pipeline:  # which takes all options that there are
        assert {"correct_keywords", "guard_leaks"} <= set(command._OPTIONS)
