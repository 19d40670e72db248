"""What a row is: the JSON object that ms-swift trains on and what ``swift infer`` writes back::

    {"id": "talk1_0001", "messages": [{"role": "user", "content": "<audio>…"}, {"role": "assistant", "content": "…"}],
     "audios": ["/path/talk1_0001.flac"]}

Standard library only. Files of rows: :mod:`sap2.rowfiles`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sap2.errors import InputError
from sap2.prompts import AUDIO_TAG, CONTEXT_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT, parse_keywords

Row = dict[str, Any]

_INLINE_AUDIO = re.compile(r"<audio>([^<>]+)</audio>")


class Context(NamedTuple):
    """The span of one context in a text: ``text[start:end]`` includes both delimiters, ``body`` neither."""

    start: int
    end: int
    body: str


def find_contexts(text: str) -> list[Context]:
    """The contexts of a text, in order.

    Raises:
        InputError: a delimiter is missing, the two are in the wrong order or nested, or the text already holds
            the placeholder token.
    """
    if CONTEXT_TOKEN in text:
        raise InputError(f"{CONTEXT_TOKEN} is the placeholder of compressed context and must not be in a row")
    contexts: list[Context] = []
    position = 0
    while True:
        start, end = text.find(START_OF_CONTEXT, position), text.find(END_OF_CONTEXT, position)
        if start < 0 and end < 0:
            return contexts
        if start < 0 or 0 <= end < start:
            raise InputError(f"{END_OF_CONTEXT} at character {end} without {START_OF_CONTEXT} before it")
        if end < 0:
            raise InputError(f"{START_OF_CONTEXT} at character {start} is never closed by {END_OF_CONTEXT}")
        body_start = start + len(START_OF_CONTEXT)
        nested = text.find(START_OF_CONTEXT, body_start, end)
        if nested >= 0:
            raise InputError(f"{START_OF_CONTEXT} at character {nested} inside the context that opened at {start}")
        position = end + len(END_OF_CONTEXT)
        contexts.append(Context(start, position, text[body_start:end]))


def row_audios(row: Row) -> list[str]:
    """The audio paths of a row: ``audios`` as a list, a string, or objects with a ``path``."""
    audios = row.get("audios") or []
    if isinstance(audios, (str, dict)):
        audios = [audios]
    return [audio["path"] if isinstance(audio, dict) else audio for audio in audios]


def row_id(row: Row) -> str | None:
    """The utterance id: the row's ``id``, or else its (first) audio path; None where it has neither."""
    if row.get("id") not in (None, ""):
        return str(row["id"])
    audios = row_audios(row)
    return audios[0] if audios else None


def row_keywords(row: Row) -> list[str]:
    """The keywords of all contexts in the user's turns."""
    return [
        keyword
        for message in row.get("messages") or []
        if message.get("role") == "user" and isinstance(message.get("content"), str)
        for context in find_contexts(message["content"])
        for keyword in parse_keywords(context.body)
    ]


def lift_inline_audio(text: str) -> tuple[str, list[str]]:
    """``<audio>/path.wav</audio>``, as the released rows have it, to a tag and a path.

    >>> lift_inline_audio("<audio>/a.wav</audio>Transcribe speech to text.")
    ('<audio>Transcribe speech to text.', ['/a.wav'])
    """
    return _INLINE_AUDIO.sub(AUDIO_TAG, text), [path.strip() for path in _INLINE_AUDIO.findall(text)]
