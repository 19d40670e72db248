"""The lengths that ``check`` reports are those that the template makes."""

from __future__ import annotations

import copy
import random

import pytest

from sap2.data.row_checks import take_apart
from sap2.data.token_counts import TokenCounter
from sap2.prompts import asr_prompt, format_context

RATE = 16_000
WORDS = ("emily", "steve wozniak", "GPT-4", "Zürich", "数据", "a", "kubernetes", "don't")


def draw_row(rng: random.Random, wavs: list[str]) -> dict:
    """A row as people write them: none to two audios, with a tag, without one, inline; with a system prompt, or not."""
    keywords = rng.choices(WORDS, k=rng.choice([0, 1, 2, 5, 40]))
    audio = rng.choice(wavs)
    form = rng.choice(["tag", "no tag", "inline", "two", "none", "turns"])
    reply = {"role": "assistant", "content": "hi guys"}
    turns = {
        "tag": [("<audio>" + asr_prompt(keywords), [audio])],
        "no tag": [(asr_prompt(keywords), [audio])],
        "inline": [(f"<audio>{audio}</audio>" + asr_prompt(keywords), [])],
        "two": [(f"<audio>one{format_context(keywords)}<audio>two", [audio, wavs[0]])],
        "none": [("hello", [])],
        "turns": [("<audio>" + asr_prompt(keywords), [audio]), ("again?", [])],
    }[form]
    messages = [{"role": "system", "content": "Be brief."}] if rng.random() < 0.3 else []
    for text, _ in turns:
        messages += [{"role": "user", "content": text}, reply]
    audios = [path for _, paths in turns for path in paths]
    return {"messages": messages, **({"audios": audios} if audios else {})}


@pytest.mark.parametrize(("window", "least"), [(1, 0), (2, 0), (4, 10), (32, 64)])
def test_counts_are_those_of_the_template(make_template, tiny, wavs, speeches, window, least):
    pooling = {"sap_pooling": "salience", "sap_min_positions": least} if least else {}
    settings = {"sap_window_size": window, **pooling}
    template = make_template(sap_settings=settings)
    counter, rng = TokenCounter(tiny, window, least), random.Random(window)
    seconds = {path: len(samples) / RATE for path, samples in zip(wavs, speeches, strict=True)}
    for _ in range(60):
        row = draw_row(rng, wavs)
        parts = take_apart(row)
        counts = counter.count(parts, [seconds[path] for path in parts.audios])
        assert counts.after == len(template.encode(copy.deepcopy(row))["input_ids"]), row


def test_a_long_list_at_a_wide_window_keeps_its_least_positions(tiny):
    parts = take_apart(
        {"messages": [{"role": "user", "content": "<audio>" + asr_prompt(["a"] * 500)}], "audios": ["x"]}
    )
    counts = TokenCounter(tiny, 32, 64).count(parts, [1.0])
    assert counts.context > 500
    assert counts.pooled == 64
