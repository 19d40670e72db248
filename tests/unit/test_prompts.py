"""Prompts, replies, and taking them apart again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2 import prompts
from sap2.rows import find_contexts
from sap2.text import clean_keywords

CLEAN = st.lists(st.one_of(st.text(max_size=12), st.sampled_from(["none", "None", "U.S.", "new york", "a."]))).map(
    clean_keywords
)


def context_of(text):
    (context,) = find_contexts(text)
    return prompts.parse_keywords(context.body)


def test_prompts_are_those_of_the_released_data():
    assert prompts.asr_prompt(["emily", "wozniak"]) == (
        "Transcribe speech to text according to keywords may appear in the utterance. Possible keywords are: "
        "<|startofcontext|>emily, wozniak<|endofcontext|>"
    )
    assert prompts.asr_prompt([]) == "Transcribe speech to text.<|startofcontext|><|endofcontext|>"
    assert prompts.prune_prompt(["emily"]) == (
        "Select keywords that may appear in the speech from the following keywords list: "
        "<|startofcontext|>emily<|endofcontext|>"
    )
    assert prompts.prune_reply([]) == "none"
    assert prompts.prune_reply(["emily", "wozniak"]) == "emily, wozniak"
    assert prompts.joint_reply(["emily"], "hi emily") == "Selected keywords are: emily.\nTranscription: hi emily"


def test_asr_prompt_takes_any_iterable():
    assert prompts.asr_prompt(iter(["a"])) == prompts.asr_prompt(["a"])


@given(CLEAN)
def test_a_context_gives_back_its_keywords(keywords):
    for prompt in (prompts.asr_prompt, prompts.prune_prompt, prompts.joint_prompt):
        assert context_of(prompt(keywords)) == keywords


@given(CLEAN)
def test_a_prune_reply_gives_back_its_keywords(keywords):
    assert prompts.parse_prune_reply(prompts.prune_reply(keywords)) == keywords


@given(CLEAN, st.text(max_size=20).map(str.strip))
def test_a_joint_reply_gives_back_both_parts(keywords, transcript):
    reply = prompts.joint_reply(keywords, transcript)
    assert prompts.parse_joint_reply(reply) == (keywords, transcript)


def test_one_keyword_of_two_words_stays_one():
    assert prompts.format_context(["new york"]) == "<|startofcontext|>new york,<|endofcontext|>"
    assert context_of(prompts.asr_prompt(["new york"])) == ["new york"]


def test_keywords_of_the_original_readme_are_divided_by_spaces():
    assert prompts.parse_keywords("keyword1 keyword2 keyword3") == ["keyword1", "keyword2", "keyword3"]


@pytest.mark.parametrize(
    ("reply", "keywords"),
    [
        ("none", []),
        ("None.", []),
        ("", []),
        ("emily, wozniak.", ["emily", "wozniak"]),
        (" emily ,, emily, x y ", ["emily", "x y"]),
    ],
)
def test_any_text_is_a_prune_reply(reply, keywords):
    assert prompts.parse_prune_reply(reply) == keywords


def test_joint_replies_of_a_model():
    assert prompts.parse_joint_reply("Selected keywords are: none.\nTranscription: hi") == ([], "hi")
    assert prompts.parse_joint_reply("Transcription: hi\nyou") == ([], "hi\nyou")
    assert prompts.parse_joint_reply("hi") is None


@given(st.text())
def test_parsing_never_fails(reply):
    prompts.parse_prune_reply(reply)
    prompts.parse_joint_reply(reply)
    prompts.parse_keywords(reply)


@pytest.mark.parametrize(
    ("user", "reply", "said"),
    [
        (prompts.asr_prompt(["emily"]), "hi emily", "hi emily"),
        (prompts.asr_prompt([]), "hi", "hi"),
        ("<audio>" + prompts.asr_prompt(["emily"]), "hi emily", "hi emily"),
        (prompts.joint_prompt(["emily"]), prompts.joint_reply(["emily"], "hi emily"), "hi emily"),
        (prompts.joint_prompt(["emily"]), "no transcript at all", None),
        (prompts.prune_prompt(["emily"]), "emily", None),
        ("<audio>What does the speaker complain about?", "the weather", None),
        ("<audio>Translate the speech to German.", "hallo", None),
        (prompts.asr_prompt(["emily"]), None, None),
        (prompts.asr_prompt(["emily"]), "", None),
    ],
)
def test_only_a_transcription_says_what_is_said(user, reply, said):
    assert prompts.said_in(user, reply) == said
