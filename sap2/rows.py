"""What a row is: the JSON object that ms-swift trains on and what ``swift infer`` writes back::

    {"id": "talk1_0001", "messages": [{"role": "user", "content": "<audio>…"}, {"role": "assistant", "content": "…"}],
     "audios": ["/path/talk1_0001.flac"]}

Standard library only. Files of rows: :mod:`sap2.rowfiles`.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, NamedTuple

from sap2.errors import InputError
from sap2.prompts import AUDIO_TAG, CONTEXT_TOKEN, END_OF_CONTEXT, STAGE_PROMPTS, START_OF_CONTEXT, parse_keywords

Row = dict[str, Any]

UTTERANCE_AUDIO = ("audio", "audio_path", "audio_filepath", "wav")
"""What the audio of an utterance is called, by us and by other tools."""
_UTTERANCE_NAMES = {
    "id": ("id", "utt_id", "utt", "key"),
    "audio": UTTERANCE_AUDIO,
    "text": ("text", "transcript", "transcription", "sentence"),
    "keywords": ("keywords", "hotwords"),
}
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
RESULTS_ARE_ADDED = "swift infer adds to a result file that is there: delete the file and decode again"
"""What to say where ids of a result file are repeated."""

_URL = re.compile(r"[a-z][a-z0-9+.\-]+(::[a-z][a-z0-9+.\-]+)*://.+", re.I | re.S)
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


def as_messages(row: Row) -> Row:
    """A row with ``messages``, from the forms that ms-swift takes too: ``conversations`` (ShareGPT's ``from`` and
    ``value``), or ``query`` and ``response`` with ``system`` and ``history``. Any other row stays as it is."""
    if "messages" in row:
        return row
    turns = row.get("conversations")
    if isinstance(turns, list):
        rest = {name: value for name, value in row.items() if name != "conversations"}
        return {**rest, "messages": [_turn(turn) for turn in turns]}
    if not isinstance(row.get("query"), str):
        return row
    history = row.get("history") or []
    pairs = [*(history if isinstance(history, list) else [history]), [row["query"], row.get("response")]]
    texts = [("system", row.get("system"))]
    for pair in pairs:
        user, reply = pair if isinstance(pair, list) and len(pair) == 2 else (pair, None)
        texts += [("user", user), ("assistant", reply)]
    rest = {name: value for name, value in row.items() if name not in ("query", "response", "system", "history")}
    return {**rest, "messages": [{"role": role, "content": text} for role, text in texts if text is not None]}


def _turn(turn: Any) -> Any:
    if not isinstance(turn, dict) or "from" not in turn:
        return turn
    return {"role": _ROLES.get(turn["from"], turn["from"]), "content": turn.get("value")}


def as_utterance(record: Row) -> Row:
    """An utterance (id, audio, text, keywords) with our names for what other tools call otherwise (``audio_path``,
    ``audio_filepath``, ``transcript``, …). Without an id, the name of the audio file is it.

    Raises:
        InputError: it is a row to train on, or gives one thing twice and differently.
    """
    if any(name in record for name in ("messages", "conversations", "query")):
        raise InputError(
            "a row to train on already, not an utterance (id, audio, text, keywords); ms-swift takes it as it is, and "
            "`sap2 data check` looks at it"
        )
    named = dict(record)
    for ours, names in _UTTERANCE_NAMES.items():
        given = {name: record[name] for name in names if record.get(name) is not None}
        if len({str(value) for value in given.values()}) > 1:
            raise InputError(f"{' and '.join(given)} contradict each other; one of them is enough")
        if given:
            named[ours] = next(iter(given.values()))
    if named.get("id") is None and isinstance(named.get("audio"), str):
        named["id"] = PurePath(named["audio"]).stem
    return named


def row_audios(row: Row) -> list[str]:
    """The audio paths of a row, by the one rule that holds everywhere: ``audios`` (or ``audio``) as a list, a string,
    or objects with a ``path``; else those that stand in the user's turns (``<audio>path</audio>``)."""
    audios: Any = next((row[name] for name in ("audios", *UTTERANCE_AUDIO) if row.get(name)), [])
    if isinstance(audios, (str, dict)):
        audios = [audios]
    paths = [audio["path"] if isinstance(audio, dict) else audio for audio in audios]
    return paths or [path for text in user_texts(row) for path in lift_inline_audio(text)[1]]


def is_url(audio: object) -> bool:
    """Whether an audio is named by an address (``s3://bucket/talk.flac``), not by a path.

    >>> is_url("s3://bucket/talk.flac"), is_url("zip://a.wav::s3://bucket/all.zip"), is_url("/data/talk.flac")
    (True, True, False)
    """
    return isinstance(audio, str) and _URL.fullmatch(audio) is not None


def user_texts(row: Row) -> list[str]:
    """The texts of the user's turns."""
    turns = as_messages(row).get("messages") or []
    return [turn["content"] for turn in turns if turn.get("role") == "user" and isinstance(turn.get("content"), str)]


def content_stage(content: str) -> str | None:
    """The stage whose prompt a user's turn holds; None where the wording is the user's own."""
    contexts = find_contexts(content)
    before = content[: contexts[0].start] if contexts else content
    for stage, prompts in STAGE_PROMPTS.items():
        if before.endswith(tuple(prompt.partition("{context}")[0] for prompt in prompts)):
            return stage
    return None


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
        for text in user_texts(row)
        for context in find_contexts(text)
        for keyword in parse_keywords(context.body)
    ]


def lift_inline_audio(text: str) -> tuple[str, list[str]]:
    """``<audio>/path.wav</audio>``, as the released rows have it, to a tag and a path.

    >>> lift_inline_audio("<audio>/a.wav</audio>Transcribe speech to text.")
    ('<audio>Transcribe speech to text.', ['/a.wav'])
    """
    return _INLINE_AUDIO.sub(AUDIO_TAG, text), [path.strip() for path in _INLINE_AUDIO.findall(text)]
