"""Token strings, prompts and the keyword separator of SAP²: their one home.

A row's user turn looks like this (one line)::

    <audio>Transcribe speech to text according to keywords may appear in the utterance.
    Possible keywords are: <|startofcontext|>emily, wozniak<|endofcontext|>

The strings are those of the released SAP² data, so that its rows and this project's are
interchangeable. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

START_OF_CONTEXT = "<|startofcontext|>"
END_OF_CONTEXT = "<|endofcontext|>"
CONTEXT_TOKEN = "<|context|>"
"""Placeholder of one pooled embedding. Written by the template, never by a user."""
SAP_TOKENS = (START_OF_CONTEXT, END_OF_CONTEXT, CONTEXT_TOKEN)

AUDIO_TOKEN = "<|AUDIO|>"
AUDIO_BOS = "<|audio_bos|>"
AUDIO_EOS = "<|audio_eos|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
"""The marks of ChatML, around each turn of a conversation."""
DEFAULT_SYSTEM = "You are a helpful assistant."
"""What ms-swift's template and Qwen2-Audio's own put in front where a row and a checkpoint say nothing."""
AUDIO_TAG = "<audio>"
"""Marks the place of an audio in a row (ms-swift's tag)."""

KEYWORD_SEPARATOR = ", "
OTHER_SEPARATORS = ",，、،;；؛\t\n"
"""What may stand between keywords too: of other scripts, and of tables and lists."""
NO_KEYWORDS = "none"
"""What stage one replies when no keyword of the list is spoken."""

PRUNE_PROMPT = "Select keywords that may appear in the speech from the following keywords list: {context}"
ASR_PROMPT = (
    "Transcribe speech to text according to keywords may appear in the utterance. Possible keywords are: {context}"
)
PLAIN_ASR_PROMPT = "Transcribe speech to text.{context}"
JOINT_PROMPT = (
    "Select keywords that may appear in the speech from the following keywords list, "
    "then transcribe the speech to text: {context}"
)
PRUNE, ASR, JOINT = "prune", "asr", "joint"
"""The stages: pick keywords, transcribe, both in one reply."""
STAGE_PROMPTS = {PRUNE: (PRUNE_PROMPT,), ASR: (ASR_PROMPT, PLAIN_ASR_PROMPT), JOINT: (JOINT_PROMPT,)}
JOINT_REPLY = "Selected keywords are: {keywords}.\nTranscription: {transcript}"

_JOINT_REPLY = re.compile(
    r"\s*Selected keywords are: ?(?P<keywords>.*?)\.\s*\n\s*Transcription: ?(?P<transcript>.*)", re.S
)
_SEPARATORS = re.compile(f"[{OTHER_SEPARATORS}]")
_TRANSCRIPTION = re.compile(r"Transcription: ?(?P<transcript>.*)", re.DOTALL)


class JointReply(NamedTuple):
    """The two parts of a joint reply."""

    keywords: list[str]
    transcript: str


def format_keywords(keywords: Iterable[str]) -> str:
    """Join keywords with :data:`KEYWORD_SEPARATOR`."""
    return KEYWORD_SEPARATOR.join(keywords)


def divide_list(text: str) -> tuple[list[str], list[int]]:
    """The keywords of a list as they stand there, and where the part of each begins.

    They are divided at :data:`OTHER_SEPARATORS`, which belong to the keyword before them, or, where there is none, at
    spaces, which belong to the keyword after them (the released data has both).
    """
    marks = list(_SEPARATORS.finditer(text))
    if marks:
        return _SEPARATORS.split(text), [0, *(mark.end() for mark in marks)]
    words = list(re.finditer(r"\S+", text))
    return [word[0] for word in words], [0, *(word.end() for word in words[:-1])]


def close_list(text: str) -> str:
    """A keyword list in which every keyword has its separator, so that they may be put in another order.

    >>> close_list("emily, bob"), close_list("emily bob")
    ('emily, bob,', ' emily bob')
    """
    if not text.strip() or _SEPARATORS.match(text.rstrip(" ")[-1]):
        return text
    last = _SEPARATORS.findall(text)[-1:]
    if last or len(text.split()) == 1:
        return text + (last[0] if last else KEYWORD_SEPARATOR.strip())
    return " " + text.lstrip()


def parse_keywords(text: str) -> list[str]:
    """Split a keyword list (:func:`divide_list`).

    >>> parse_keywords("steve wozniak, emily")
    ['steve wozniak', 'emily']
    >>> parse_keywords("wozniak emily")
    ['wozniak', 'emily']
    >>> parse_keywords("语音识别、滑动平均，GPU")
    ['语音识别', '滑动平均', 'GPU']
    """
    return [part.strip() for part in divide_list(text)[0] if part.strip()]


def format_context(keywords: Iterable[str]) -> str:
    """The keywords between their two delimiters. The keywords must be clean (:func:`sap2.text.clean_keyword`).

    One keyword of several words gets a comma after it, since :func:`parse_keywords` splits a list without any comma
    at the spaces.
    """
    keywords = list(keywords)
    closing = "," if len(keywords) == 1 and " " in keywords[0] else ""
    return START_OF_CONTEXT + format_keywords(keywords) + closing + END_OF_CONTEXT


def prune_prompt(keywords: Iterable[str]) -> str:
    """Stage one: which of these keywords are spoken? (paper, section "Speech-Aware Context Pruning")."""
    return PRUNE_PROMPT.format(context=format_context(keywords))


def asr_prompt(keywords: Iterable[str]) -> str:
    """Stage two: transcribe with these keywords; without any, the plain prompt and an empty context."""
    keywords = list(keywords)
    prompt = ASR_PROMPT if keywords else PLAIN_ASR_PROMPT
    return prompt.format(context=format_context(keywords))


def joint_prompt(keywords: Iterable[str]) -> str:
    """Both stages in one reply (the paper's JPI baseline)."""
    return JOINT_PROMPT.format(context=format_context(keywords))


def prune_reply(keywords: Iterable[str]) -> str:
    """The target of stage one: the spoken keywords, or :data:`NO_KEYWORDS`.

    A comma closes the list where :func:`parse_prune_reply` could not tell a keyword from what is around it: one that
    ends with a full stop, and the keyword "none" alone.
    """
    reply = format_keywords(keywords)
    closing = "," if reply.endswith(".") or reply.lower() == NO_KEYWORDS else ""
    return reply + closing or NO_KEYWORDS


def parse_prune_reply(reply: str) -> list[str]:
    """Keywords of a stage-one reply, in its order, each once. Any text is a valid reply."""
    reply = reply.strip().rstrip(".")
    if reply.lower() == NO_KEYWORDS:
        return []
    parts = [part.strip() for part in reply.split(",")]
    return list(dict.fromkeys(part for part in parts if part))


def joint_reply(keywords: Iterable[str], transcript: str) -> str:
    """The target of the joint baseline."""
    return JOINT_REPLY.format(keywords=prune_reply(keywords), transcript=transcript)


def parse_joint_reply(reply: str) -> JointReply | None:
    """Both parts of a joint reply, or None where it has no ``Transcription:`` part."""
    match = _JOINT_REPLY.match(reply)
    if match:
        return JointReply(parse_prune_reply(match["keywords"]), match["transcript"].strip())
    match = _TRANSCRIPTION.search(reply)
    return JointReply([], match["transcript"].strip()) if match else None


def said_in(user: str, reply: str | None) -> str | None:
    """What is said in the audio of a row, as far as its prompt and its reply tell; None where they do not.

    Only a reply to one of the prompts of transcription is what is said. The reply of stage one holds keywords, and that
    to any other prompt may be anything: an answer, a translation.
    """
    heads = {prompt: prompt.partition("{context}")[0] for prompt in (ASR_PROMPT, PLAIN_ASR_PROMPT, JOINT_PROMPT)}
    asked = next((prompt for prompt, head in heads.items() if head in user), None)
    if not reply or asked is None:
        return None
    if asked == JOINT_PROMPT:
        joint = parse_joint_reply(reply)
        return joint.transcript if joint else None
    return reply


def system_turn(system: str) -> str:
    """The turn of the system in ChatML; an empty system prompt is left out."""
    return f"{IM_START}system\n{system}{IM_END}\n" if system else ""


def open_user_turn(user: str) -> str:
    """The beginning of a user's turn in ChatML, or all of its text."""
    return f"{IM_START}user\n{user}"


def close_user_turn() -> str:
    """The end of a user's turn in ChatML, up to where the reply begins."""
    return f"{IM_END}\n{IM_START}assistant\n"


def chat_text(system: str, user: str) -> str:
    """A system prompt and one user's turn in ChatML, up to where the reply begins."""
    return system_turn(system) + open_user_turn(user) + close_user_turn()
