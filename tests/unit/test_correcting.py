"""Keywords that stage two wrote wrongly, and that the spotter puts right."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Future

import pytest
import soundfile
import torch

from sap2.commands import pipeline, serve, transcribe
from sap2.explain.explaining import explain
from sap2.explain.types import ExplainOptions
from sap2.model.spotter import SYMBOLS, spelling
from sap2.pipeline import transcriber, worker
from sap2.pipeline.confidence import Replaced, replaced_words, token_log_probs
from sap2.pipeline.correcting import (
    LIKELIER,
    SURE,
    Corrector,
    find_misspellings,
    likelier_keywords,
    sure_keywords,
    transcript_log_probs,
)
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.leaks import Leak
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.transcriber import Transcriber
from sap2.pipeline.utterances import Job, Utterance
from sap2.pipeline.words import find_words
from sap2.pruning.spotting import RankedKeyword
from sap2.rowfiles import read_rows
from sap2.slides.common import common_words
from sap2.spelling import Writing
from sap2.tiny.speech import speak


def heard(text, doubt=4.0):
    """What a spotter hears that spells a text: each symbol in two frames, a blank after it. ``doubt``: nats that any
    other symbol is below."""
    frames = torch.full((3 * len(spelling(text)), SYMBOLS), -doubt)
    for place, symbol in enumerate(spelling(text)):
        frames[3 * place : 3 * place + 2, symbol] = 0.0
        frames[3 * place + 2, 0] = 0.0
    return frames.log_softmax(-1)


def corrected(text, *keywords, said=None, probability=0.99, doubt=1.0, told=None):
    """The text with its corrections."""
    ranked = [RankedKeyword(keyword, probability) for keyword in keywords]
    log_probs = heard(said or text, doubt)
    missing = sure_keywords(text, ranked, told or keywords)
    for one in reversed(find_misspellings(log_probs, text, missing, told or keywords, common_words())):
        assert text[one.start : one.end] == one.written and one.probability == probability
        text = f"{text[: one.start]}{one.keyword}{text[one.end :]}"
    return text


@pytest.mark.parametrize(
    ("written", "keywords", "right"),
    [
        ("please look at bailvan here", ["gailvan"], "please look at gailvan here"),
        ("please look at bailvan, here.", ["gailvan"], "please look at gailvan, here."),
        ("(bailvan's) page", ["gailvan"], "(gailvan's) page"),
        ("bailvan’s page", ["Gailvan’s"], "Gailvan’s page"),
        ("bailvan and fitus met", ["pitus", "gailvan"], "gailvan and pitus met"),
        ("we met sagrada famila there", ["Sagrada Familia"], "we met Sagrada Familia there"),
        ("we met sagradafamila there", ["Sagrada Familia"], "we met Sagrada Familia there"),
        ("我们见王晓明了", ["王小明"], "我们见王小明了"),
        ("au café\u0301s bar", ["cafés"], "au cafés bar"),  # a mark beyond a letter goes with it
    ],
)
def test_what_is_spelled_like_a_sure_keyword_becomes_it(written, keywords, right):
    assert corrected(written, *keywords, doubt=0.5) == right


@pytest.mark.parametrize(
    ("written", "keywords"),
    [
        ("this water comes from there", ["wader"]),  # a common word
        ("the main, machine", ["manin"]),
        ("gailvan met bailvan", ["gailvan"]),  # it was written
        ("GPT 4 met gpt5", ["gpt-4"]),  # and so, with other marks between its letters
        ("please look at bailvan here", ["mortadel"]),  # nothing like it
        ("now bx", ["by"]),  # too short to be told from other words
        ("", ["gailvan"]),
        ("… —", ["gailvan"]),
        ("in a wall here", ["inawall"]),  # common words
    ],
)
def test_anything_else_stays(written, keywords):
    assert corrected(written, *keywords, said=written or "silence", doubt=0.5) == written


def test_another_keyword_of_the_list_stays():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", told=["gailvan", "bailvan"]) == written
    # and what was not told to stage two was not meant by it
    assert corrected(written, "gailvan", told=["fitus"]) == written


def test_only_a_sure_keyword_corrects():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", probability=SURE) == "please look at gailvan here"
    assert corrected(written, "gailvan", probability=SURE - 0.01) == written


def test_the_speech_may_speak_against_it():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", doubt=2.0) == "please look at gailvan here"
    assert corrected(written, "gailvan", doubt=9.0) == written
    # the spotter heard the keyword, and nothing of what was written
    assert corrected(written, "gailvan", said="please look at gailvan here", doubt=9.0) == "please look at gailvan here"


def test_of_several_places_it_is_the_one_where_the_keyword_is_heard():
    assert corrected("bailvan met dailvan", "gailvan", said="bailvan met gailvan", doubt=9.0) == "bailvan met gailvan"
    assert corrected("bailvan met dailvan", "gailvan", said="gailvan met dailvan", doubt=9.0) == "gailvan met dailvan"


@pytest.mark.parametrize(
    ("written", "keyword", "right"),
    [
        ("kuber netis and more", "kubernetes", "kubernetes and more"),  # one word written as two
        ("buy an aple watch today", "Apple Watch", "buy an Apple Watch today"),  # a common word is a part of it
        ("watch the apel today", "Apple Watch", "watch the apel today"),
    ],
)
def test_keywords_and_words_need_not_be_as_many(written, keyword, right):
    assert corrected(written, keyword, said=right) == right


def test_a_doubled_consonant_that_nobody_hears_is_written():
    assert corrected("beeloony works", "Beelloony", said="beeloony works", doubt=20.0) == "Beelloony works"


def test_a_transcript_that_does_not_fit_into_the_speech_stays():
    missing = [RankedKeyword("gailvan", 0.99)]
    text = "please look at bailvan here"
    assert find_misspellings(heard(text), text, missing, ["gailvan"], ())
    assert not find_misspellings(heard(text)[:10], text, missing, ["gailvan"], ())


def test_a_likelier_keyword_of_the_slides_stands_for_a_term_of_the_bank():
    def written(text, own, **probabilities):
        ranked = [RankedKeyword(*one) for one in probabilities.items()]
        found = likelier_keywords(text, ranked, [one.keyword for one in ranked], own, common_words())
        for one in reversed(found):
            text = f"{text[: one.start]}{one.keyword}{text[one.end :]}"
        return text

    assert written("we met meller, there", ["Meler"], meler=0.78, meller=0.35) == "we met meler, there"
    assert written("we met meler, there", ["meler"], meler=0.78, meller=0.35) == "we met meler, there"
    assert written("we met meller", ["meler"], meler=0.6, meller=0.5) == "we met meller"  # no more than a guess
    assert LIKELIER == 1.0 and written("we met meller", ["meler"], meler=0.75, meller=0.5) == "we met meler"  # 1.1
    assert written("we met meller", ["fitus"], fitus=0.99, meller=0.1) == "we met meller"  # not alike
    assert written("meller met meler", ["meler"], meler=0.78, meller=0.35) == "meller met meler"  # both were said
    assert written("meller met meller", ["meler"], meler=0.78, meller=0.35) == "meller met meller"  # which of them?
    assert written("mellar met meller", ["meler"], meler=0.78, meller=0.35, mellar=0.2) == "meler met meller"
    assert written("the water here", ["wader"], wader=0.7, water=0.2) == "the water here"
    assert written("we met meller", ["meler"], meller=1.0, meler=0.2) == "we met meller"
    # of one list, or of the bank, both: the model has chosen
    assert written("we met meller", ["meler", "meller"], meler=0.78, meller=0.35) == "we met meller"
    assert written("we met meller", [], meler=0.78, meller=0.35) == "we met meller"
    assert written("we met meler", ["meller"], meler=0.35, meller=0.1) == "we met meler"


def test_texts_are_heard_alike_alone_and_together():
    texts = ["a" * number + " bailvan" for number in range(1, 40)]
    log_probs = heard("aaaaaaaa gailvan")
    together = transcript_log_probs(log_probs, texts)
    alone = torch.cat([transcript_log_probs(log_probs, [text]) for text in texts])
    assert torch.equal(torch.isinf(together), torch.isinf(alone)) and torch.isinf(alone).any()
    finite = ~torch.isinf(alone)
    assert torch.allclose(together[finite], alone[finite], atol=1e-4)


def test_words_know_where_their_tokens_are_before_a_correction():
    pieces = ["we", " met", " bail", "van", " to", "day"]
    reply = Reply("".join(pieces), True, pieces, [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
    replaced = [Replaced(7, 14, "sagrada familia")]
    assert reply.text[7:14] == "bailvan"
    text = "We met Sagrada Familia today"
    places = find_words(text)
    found = token_log_probs(reply, reply.text, text, places, replaced)
    assert [found[0], found[1], found[4]] == [[-1.0], [-2.0], [-5.0, -6.0]]
    assert set(found[2]) | set(found[3]) == {-3.0, -4.0}  # those of what was replaced
    assert replaced_words(text, places, reply.text, replaced) == [None, None, 0, 0, None]
    assert replaced_words(reply.text, find_words(reply.text), reply.text, []) == [None] * 4


class Spelled:
    """A hearing in which everything is spelled as it is said."""

    def __init__(self, said):
        self.said, self.asked = said, []

    def take(self, rows):
        self.asked.append(list(rows))
        return self

    def letters(self, stage):
        log_probs = heard(self.said)[None]
        return log_probs, torch.ones(log_probs.shape[:2], dtype=torch.bool)


def utterance(text, probabilities, told=None, **job):
    own = [keyword for keyword in probabilities if keyword != "meller"]  # which is in the bank
    made = Utterance(Job("x", None, own, **job), None, None, list(told or probabilities), text=text)
    made.probabilities = probabilities
    return made


def test_both_kinds_of_corrections_meet_in_one_transcript():
    made = utterance("meller met bailvan, and fitus", {"gailvan": 0.95, "meler": 0.8, "fitus": 0.7, "meller": 0.3})
    quiet = utterance("meler met fitus", {"meler": 0.9, "fitus": 0.9})
    hearing = Spelled("meler met gailvan and fitus")
    Corrector("asr", Writing("upper"), common_words()).correct(hearing, [(0, quiet), (3, made)])
    assert hearing.asked == [[3]]  # what is right is not heard again
    assert made.text == "MELER met GAILVAN, and fitus" and made.written == "meller met bailvan, and fitus"
    assert [one.to_dict() for one in made.corrections] == [
        {"written": "meller", "keyword": "MELER"},
        {"written": "bailvan", "keyword": "GAILVAN"},
    ]
    assert quiet.text == quiet.written and not quiet.corrections


def test_a_reply_without_the_list_is_not_corrected():
    for more in ({"correct": False}, {}):
        made = utterance("we met bailvan", {"gailvan": 0.95}, **more)
        made.leak = None if more else Leak("list", "gailvan", True)
        Corrector("asr", Writing(), common_words()).correct(Spelled("we met gailvan"), [(0, made)])
        assert made.text == "we met bailvan" and not made.corrections
    made = utterance("we met bailvan", {"gailvan": 0.95})
    made.leak = Leak("list", "gailvan", False)
    Corrector("asr", Writing(), common_words()).correct(Spelled("we met gailvan"), [(0, made)])
    assert made.text == "we met gailvan"


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
