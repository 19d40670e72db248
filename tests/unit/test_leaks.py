"""A list that comes out as the transcript: noticed, decoded again without the list, counted."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import Future

import pytest
import soundfile

from sap2.pipeline import transcriber, worker
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.leaks import Suspicion, is_leak, suspect
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.transcriber import Transcriber
from sap2.pipeline.utterances import Job
from sap2.prompts import joint_reply
from sap2.rowfiles import read_rows
from sap2.tiny.speech import speak

TOLD = ["Emily", "steve wozniak", "Apple II", "garage", "co-op"]


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("emily, steve wozniak, apple ii", 3),
        ("so today Steve Wozniak Apple II garage, and that is all", 3),
        ("we saw emily steve wozniak apple ii garage co op", 5),
        ("emily and steve wozniak and apple ii", 0),  # something between them
        ("apple ii steve wozniak emily", 0),  # another order
        ("emily steve wozniak went home", 0),  # two of five
        ("emily steve apple ii garage", 0),  # a half entry, and two
        ("", 0),
    ],
)
def test_a_run_of_entries_is_suspect(text, run):
    found = suspect(text, TOLD, 1.0)
    assert (len(found.entries) if found else 0) == run
    assert found is None or found.reason == "list"


@pytest.mark.parametrize(
    ("text", "told", "suspected"),
    [
        ("emily, bob.", ["emily", "bob"], True),  # the list itself
        ("emily bob", ["bob", "emily"], False),
        ("hi emily bob", ["emily", "bob"], False),
        ("emily", ["emily"], False),  # who says one name says no list
        ("语音识别滑动平均卷积", ["语音识别", "滑动平均", "卷积", "池化"], True),
        ("语音识别用滑动平均和卷积", ["语音识别", "滑动平均", "卷积", "池化"], False),
        ("the café naïve résumé", ["cafe\u0301", "nai\u0308ve", "résumé"], True),
        ("anything", [], False),
        ("… —", ["…", "—", "!"], False),
    ],
)
def test_what_a_list_is(text, told, suspected):
    assert (suspect(text, told, 1.0) is not None) is suspected


def test_a_short_reply_to_long_audio_is_suspect():
    assert suspect("emily", TOLD, 10.0) == Suspicion("short")
    assert suspect("", TOLD, 2.0) == Suspicion("short")
    assert suspect("", TOLD, 1.9) is None
    assert suspect("emily meets bob", TOLD, 8.0) is None
    assert suspect("", [], 30.0) is None  # without a list there is nothing to leave out


def test_the_reply_without_the_list_decides():
    run = suspect("wailtol droldol sater", ["wailtol", "droldol", "sater"], 1.0)
    assert not is_leak(run, "wailtol droldol sater", "waltol trolldoll saita")  # they are said
    assert not is_leak(run, "wailtol droldol sater", "we have wale toll droll doll and others")
    assert is_leak(run, "wailtol droldol sater", "the teacher gives a hand")
    assert is_leak(run, "wailtol droldol sater", "waltol gives a hand")  # one of three
    assert is_leak(run, "wailtol droldol sater", "")
    short = Suspicion("short")
    assert is_leak(short, "emily", "so emily went home to the others")
    assert not is_leak(short, "emily", "emily") and not is_leak(short, "", "") and is_leak(short, "", "hi")


SAID = "the teacher gives a hand"
LIST = ["krovon", "vendett", "jaltitol", "nailveek"]
LEAK = "krovon, vendett, jaltitol"


class LeakingEngine(TransformersEngine):
    """Says the list where it is told one, and else what is said. ``asked``: how often with and without a list."""

    says = SAID

    def __init__(self, loaded):
        super().__init__(loaded)
        self.mark = loaded.processor.context_token_id
        self.asked = {True: 0, False: 0}

    def reply(self, stage, prompt):
        told = self.mark in prompt.input_ids
        self.asked[told] += 1
        text = LEAK if told else self.says
        if stage == "joint":
            text = joint_reply(["krovon"], text)
        return Reply(text, True, [text], [0.0])

    def generate(self, stage, prompts, max_new_tokens):
        return [self.reply(stage, prompt) for prompt in prompts]


def test_a_reply_that_reached_the_limit_of_tokens_is_not_short(loaded):
    engine = LeakingEngine(loaded)
    decoder = Decoder(loaded, ("asr",), 8, engine=engine)
    for complete in (False, True):
        engine.reply = lambda stage, prompt, complete=complete: Reply("h", complete, ["h"], [0.0])
        (outcome,) = decoder.decode([decoder.prepare(Job("x", lambda: speak(f"{SAID} {SAID}"), LIST))])
        assert (outcome.leak is not None) is complete


class LeakingConcurrentEngine(LeakingEngine):
    def submit(self, stage, prompt, max_new_tokens):
        future = Future()
        future.set_result(self.reply(stage, prompt))
        return future


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel("sap2-tiny", {"asr": None, "joint": None})


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    soundfile.write(folder / "a.wav", speak(SAID), 16_000)
    rows = [
        {"id": f"utt{number}", "audio": str(folder / "a.wav"), "text": SAID, "keywords": keywords}
        for number, keywords in enumerate((LIST, [], LIST[:1], LIST[1:]))
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(params=[LeakingEngine, LeakingConcurrentEngine])
def engine(request, monkeypatch, loaded):
    made = request.param(loaded)
    monkeypatch.setattr(worker, "open_engine", lambda *args: (loaded, made))
    return made


def decode(utterances, folder, **options):
    options = PipelineOptions(str(utterances), str(folder / "result.jsonl"), "sap2-tiny", batch_size=3, **options)
    report = run_pipeline(options)
    assert report.failed == 0
    return report, {row["id"]: row for _, row in read_rows(folder / "result.jsonl")}


@pytest.mark.parametrize("stages", ["asr", "joint"])
def test_leaks_are_decoded_again_noted_and_counted(utterances, engine, tmp_path, stages):
    report, rows = decode(utterances, tmp_path, stages=stages)
    # of one keyword no list can come out; of the last list only two stand side by side
    said = {"utt0": SAID, "utt1": SAID, "utt2": LEAK, "utt3": LEAK}
    assert {id: row["response"] for id, row in rows.items()} == said
    assert "leak" not in rows["utt1"] and "leak" not in rows["utt2"]
    noted = rows["utt0"]["leak"]
    assert noted["reason"] == "list" and LEAK in noted["reply"] and noted["replaced"]
    assert rows["utt0"]["replies"] == {stages: joint_reply(["krovon"], SAID) if stages == "joint" else SAID}
    assert report.asked_again == report.leaks == 1
    assert ", 1 decoded again without the list (1 had leaked it)" in str(report)
    assert engine.asked == {True: 3, False: 2}


def test_a_list_that_is_read_aloud_stays(utterances, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "says", "crow von, vendet and jalty toll")
    report, rows = decode(utterances, tmp_path)
    assert rows["utt0"]["response"] == LEAK and rows["utt0"]["replies"] == {"asr": LEAK}
    assert rows["utt0"]["leak"] == {"reason": "list", "reply": LEAK, "replaced": False}
    assert (report.asked_again, report.leaks) == (1, 0)


def test_the_guard_can_be_turned_off(utterances, engine, tmp_path):
    report, rows = decode(utterances, tmp_path, guard_leaks=False)
    assert rows["utt0"]["response"] == LEAK and "leak" not in rows["utt0"] and report.asked_again == 0
    assert engine.asked == {True: 3, False: 1} and "decoded again" not in str(report)
    settings = json.loads((tmp_path / "result.settings.json").read_text())
    assert settings["guard_leaks"] is False


def test_results_from_before_the_guard_go_on():
    options = PipelineOptions("x", "y.jsonl", "sap2-tiny")
    assert "guard_leaks" not in options.result_settings()
    assert dataclasses.replace(options, guard_leaks=False).result_settings()["guard_leaks"] is False


def test_a_recording_says_which_segments_were_decoded_again(monkeypatch, loaded):
    monkeypatch.setattr(transcriber, "open_engine", lambda *args: (loaded, LeakingEngine(loaded)))
    transcript = Transcriber("sap2-tiny").transcribe(speak(SAID), keywords=LIST)
    (segment,) = transcript.segments
    assert segment.text == SAID and segment.leak == {"reason": "list", "reply": LEAK, "replaced": True}
    assert transcript.to_dict()["segments"][0]["leak"]["reply"] == LEAK
    (quiet,) = Transcriber("sap2-tiny", guard_leaks=False).transcribe(speak(SAID), keywords=LIST).segments
    assert quiet.text == LEAK and "leak" not in quiet.to_dict()


def test_the_words_are_those_of_the_reply_that_stays():
    loaded = LoadedModel("sap2-tiny", {"asr": "sap2-tiny-asr"})
    decoder = Decoder(loaded, ("asr",), 8, engine=LeakingEngine(loaded))
    prepared = decoder.prepare(Job("x", lambda: speak(SAID), LIST, word_spelling="model"))
    (outcome,) = decoder.decode([prepared])
    assert [word.text for word in outcome.words] == SAID.split()
