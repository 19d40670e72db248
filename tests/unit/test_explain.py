"""``explain`` on the shipped model: what it says of each word, its page, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import sap2

from sap2.errors import InputError
from sap2.explain.explaining import explain
from sap2.explain.page import pack, page_data, spectrogram, write_html
from sap2.explain.types import Cost, ExplainOptions
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.stages import stage_content
from sap2.pipeline.transcriber import Transcriber
from sap2.pipeline.types import Request

TALK = str(Path(__file__).parents[2] / "examples" / "my_talk" / "talk.flac")
KEYWORDS = ["Wailtal", "Wailtol", "Droldol", "Krapix"]
HOSTILE = "</script><img src=x onerror=alert(1)>&<b>"


@pytest.fixture(scope="module")
def transcriber():
    """It tells the model the two likeliest keywords, however likely."""
    prune = PruneOptions(pruner="spot", prune_top=2, prune_threshold=0.0)
    return Transcriber("sap2-tiny", asr_adapter="sap2-tiny-asr", prune=prune, max_segment_seconds=3, device="cpu")


@pytest.fixture(scope="module")
def told():
    """The costs that were announced."""
    return []


@pytest.fixture(scope="module")
def explanation(transcriber, told):
    options = ExplainOptions(masks=48, steps=2)
    return explain(transcriber, TALK, KEYWORDS, words=(2, 3), options=options, announce=told.append)


def test_the_words_that_were_asked_for_are_explained(explanation, transcriber):
    assert [(word.number, word.text, word.keyword) for word in explanation.words] == [
        (2, "Wailtol", "Wailtol"),
        (3, "gives", None),
    ]
    assert explanation.text == transcriber.transcribe(TALK, KEYWORDS).text
    assert [segment.first_word for segment in explanation.segments[:2]] == [1, 7]
    assert not any(segment.words or segment.keywords for segment in explanation.segments[1:])


def test_the_cost_is_said_before(explanation, told):
    (cost,) = told
    kept = sum(keyword.told for keyword in explanation.segments[0].keywords)
    assert cost == explanation.cost and cost[:4] == (1, 2, 2 + kept + 48, 4) and cost.seconds > 0


def test_the_effect_of_a_keyword_is_the_difference_of_two_forced_passes(explanation, transcriber):
    """Against two calls of the model, with the list written by hand."""
    one = transcriber.decode(Request(TALK, KEYWORDS))[0]
    decoder = transcriber.decoder
    heard = decoder.encoder.hear(one.job.load(), "talk")
    reply = decoder.encoder.tokenizer("now wailtol", add_special_tokens=False)["input_ids"]
    written = [keyword.lower() for keyword in one.outcome.reading.picked]
    assert {"wailtal", "wailtol"} == set(written)

    def plain(keywords):
        prompt = decoder.encoder.prompt(stage_content("asr", keywords), decoder.loaded.systems["asr"], heard.tokens)
        inputs = decoder.encoder.collate([prompt._replace(input_ids=[*prompt.input_ids, *reply])], torch.device("cpu"))
        sound = {"input_features": heard.features[None], "feature_attention_mask": heard.mask[None]}
        with decoder.loaded.use("asr") as model, torch.no_grad():
            rows = model(**inputs, **sound).logits[0].log_softmax(-1)
        first = len(prompt.input_ids) - 1
        return sum(rows[first + n, id].item() for n, id in enumerate(reply) if n > reply.index(220))

    word = explanation.words[0]
    assert word.log_prob == pytest.approx(plain(written), abs=1e-3)
    for keyword in ("Wailtal", "Wailtol"):
        rest = [other for other in written if other != keyword.lower()]
        assert word.without[keyword] == pytest.approx(plain(rest), abs=1e-3)
    assert word.effect("Wailtol") > 1 > abs(word.effect("Wailtal"))


def test_the_list_says_what_was_told_ranked_and_written(explanation):
    by_name = {keyword.text: keyword for keyword in explanation.segments[0].keywords}
    assert set(by_name) == set(KEYWORDS)
    spoken, unspoken = by_name["Wailtol"], by_name["Krapix"]
    assert spoken.told and spoken.written and spoken.rank == 1
    assert not unspoken.told and not unspoken.written and unspoken.probability < spoken.probability / 10
    assert spoken.salience > unspoken.salience and spoken.pooled is None, "the shipped model pools by salience"


def test_a_word_rests_on_its_own_part_of_the_sound(explanation):
    first, second = explanation.words
    tokens = len(first.attention)
    assert first.silenced.shape[1] == tokens == len(first.gradients)
    assert first.attention.argmax() < second.attention.argmax()
    assert explanation.segments[0].start < first.start < first.end <= second.start < second.end
    segment = explanation.segments[0]
    own = ((second.start + second.end) / 2 - segment.start) / (segment.end - segment.start)
    found = second.silenced.sum(0).argmax() / tokens
    assert abs(found - own) < 0.2, "of the word after the keyword, which the model copies from the list"
    for word in explanation.words:
        assert sum(word.looked.values()) == pytest.approx(1, abs=1e-4)
        assert word.looked["speech"] == pytest.approx(word.attention.sum(), abs=1e-5)
        assert set(word.looked_at) == set(word.without)


def test_all_of_it_is_json(explanation):
    data = json.loads(json.dumps(explanation.to_dict()))
    word = data["segments"][0]["words"][0]
    assert word["text"] == "Wailtol" and np.shape(word["silenced"]) == explanation.words[0].silenced.shape
    assert "features" not in data["segments"][0] and data["cost"]["words"] == 2


def test_the_page_is_whole_and_asks_nobody(explanation, tmp_path):
    segment = explanation.segments[0]
    words = [dataclasses.replace(word, text=HOSTILE) for word in segment.words]
    keywords = [dataclasses.replace(keyword, text=HOSTILE) for keyword in segment.keywords]
    hostile = dataclasses.replace(segment, text=HOSTILE, words=words, keywords=keywords)
    changed = dataclasses.replace(explanation, id=HOSTILE, segments=[hostile, *explanation.segments[1:]])
    write_html(tmp_path / "a.html", changed)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "@@" not in page and "http:" not in page and "https:" not in page and "<img" not in page
    assert "default-src 'none'" in page
    before, after = (page.split(mark)[1] for mark in ('type="application/json">', "<script>"))
    assert json.loads(before.split("</script>")[0])["segments"][0]["words"][0][1] == HOSTILE
    assert after.strip().startswith('"use strict"')


def test_what_the_page_reads(explanation):
    data = page_data(explanation)
    shown, segment = data["segments"][0], explanation.segments[0]
    assert shown["rows"] == 64 and shown["columns"] == math.ceil(segment.features.shape[1] / 2)
    assert shown["timed"] and data["segments"][1]["words"] == []
    assert [word[2:4] for word in shown["words"]] == [[word.start, word.end] for word in explanation.words]


def test_words_without_times_stand_where_the_model_looked(explanation):
    words = [dataclasses.replace(word, start=None, end=None) for word in explanation.words]
    segment = dataclasses.replace(explanation.segments[0], words=words)
    shown = page_data(dataclasses.replace(explanation, segments=[segment]))["segments"][0]
    starts = [word[2] for word in shown["words"]]
    assert not shown["timed"] and starts == sorted(starts) and segment.start <= starts[0] and starts[-1] < segment.end


def test_pictures_and_maps_are_bytes():
    picture = spectrogram(np.arange(128)[:, None] + np.zeros((1, 5)))
    assert picture.shape == (64, 3) and picture[0].max() == 0 and picture[-1].min() == 255
    assert (spectrogram(np.zeros((128, 4))) == 0).all(), "silence"
    assert pack(np.array([0.5, -0.25, 0]))[0] == 0.5 and pack(np.zeros(3))[0] == 1


@pytest.mark.parametrize("words", [(30, 40), (9, 3), (0, 2)])
def test_words_that_are_not_there(transcriber, words):
    with pytest.raises(
        InputError, match=rf"words {words[0]}-{words[1]} of {re.escape(TALK)}: the transcript has 34; allowed: from 1"
    ):
        explain(transcriber, TALK, words=words)


def test_silence_and_nothing_said(transcriber, monkeypatch):
    with pytest.raises(InputError, match="audio 1: no speech was found; there is nothing to explain"):
        explain(transcriber, np.zeros(16_000, np.float32))
    (one, *_) = transcriber.decode(Request(TALK))
    outcome = one.outcome._replace(replies={"asr": ""}, reading=one.outcome.reading._replace(text=""))
    monkeypatch.setattr(
        transcriber, "decode", lambda request, word_timestamps, corrected: [one._replace(outcome=outcome)]
    )
    with pytest.raises(InputError, match="the transcript is empty; there is nothing to explain"):
        explain(transcriber, TALK)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--words", "9-3"], "'9-3' is not a range of words, such as 3-7 or 3, counted from 1"),
        (["--words", "0"], "'0' is not a range of words"),
        (["--words", "x"], "'x' is not a range of words"),
        (["--engine", "vllm"], "--engine vllm: explain looks into the language model; allowed: transformers"),
        (["--keywords", ", ,"], "holds no keyword"),
        (["--masks", "0"], "'0' is not a whole number from 1"),
        (["--html", "/"], "is a folder"),
    ],
)
def test_the_command_refuses(arguments, problem, capsys):
    assert sap2("explain", TALK, "--model", "/no/model", *arguments) == 2
    error = capsys.readouterr().err
    assert problem in error and "Traceback" not in error
    assert sum(line.startswith("sap2: error:") for line in error.splitlines()) == 1


def test_the_command_says_what_it_costs(monkeypatch, capsys):
    from sap2.commands.explain import _announce

    _announce(Cost(2, 12, 1032, 384, 61.4))
    said = capsys.readouterr().err
    assert said == "12 words in 2 segments: 1032 forward passes and 384 with gradients, about 61 s\n"
