"""What can be wrong with one row: its schema, its delimiters, its audio, its length."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sap2.audio import SilentAudioError, missing_seconds, open_recording
from sap2.audio_parts import Source
from sap2.audio_samples import Recording
from sap2.audio_urls import opened_audio
from sap2.errors import InputError
from sap2.lengths import MIN_SECONDS, SAMPLING_RATE
from sap2.prompts import AUDIO_TAG, parse_keywords
from sap2.rows import UTTERANCE_AUDIO, Context, Row, as_messages, find_contexts, is_url, lift_inline_audio, row_audios
from sap2.text import find_special

QUIET_PEAK = 1e-3
"""Full scale is 1: nothing in a recording this quiet is louder than -60 dB of it."""

ERRORS = {
    "schema": "not a row",
    "delimiters": "contexts that cannot be taken apart",
    "special-token": "text that would be read as a special token",
    "audio-missing": "no such audio file",
    "audio-unreadable": "not readable as audio",
    "audio-short": "too short to be speech",
    "audio-long": "longer than the model hears",
    "audio-silent": "nothing to hear",
    "too-many-tokens": "longer than --max-length after compression",
}
"""Kinds of problems for which training and decoding refuse or skip the row."""
WARNINGS = {
    "duplicate-id": "an id that an earlier row has",
    "empty-transcript": "an assistant's turn without text",
    "audio-quiet": "next to nothing to hear",
    "audio-incomplete": "shorter than its header says",
    "repeated-keyword": "a keyword twice in one list",
}
"""Kinds of problems that nothing refuses."""


class Problem(NamedTuple):
    """One thing wrong with a row."""

    kind: str
    message: str


class AudioFacts(NamedTuple):
    """Length and loudness of an audio file; ``problem`` is set where it could not be read.

    ``missing`` are the seconds that its header promises and that are not there.
    """

    seconds: float = 0.0
    peak: float = 0.0
    missing: float = 0.0
    problem: Problem | None = None


class RowParts(NamedTuple):
    """A row taken apart.

    Attributes:
        turns: role and text of every turn, in order, with ``<audio>`` where an audio stands.
        user: the texts of the user's turns.
        contexts: their contexts.
        reply: the assistant's last turn, or None in a row for decoding.
        audios: paths.
        keywords: of all contexts.
    """

    turns: list[tuple[str, str]]
    user: list[str]
    contexts: list[Context]
    reply: str | None
    audios: list[str]
    keywords: list[str]


def take_apart(row: Row) -> RowParts:
    """The parts of a row.

    Raises:
        InputError: it is not a row; the message says what is allowed.
    """
    row = as_messages(row)
    turns = row.get("messages")
    if turns is None and any(name in row for name in UTTERANCE_AUDIO):
        raise InputError("an utterance, not a row: build_prune, build_asr or build_joint makes rows of utterances")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f"messages must be a list of turns, not {turns!r:.80}")
    for turn in turns:
        if turn.get("role") not in ("system", "user", "assistant") or not isinstance(turn.get("content"), str):
            raise InputError(f"a turn has a role (system, user, assistant) and a text as content, not {turn!r:.80}")
    texts = [(turn["role"], turn["content"]) for turn in turns]
    texts = [(role, lift_inline_audio(text)[0] if role == "user" else text) for role, text in texts]
    user = [text for role, text in texts if role == "user"]
    if not user:
        raise InputError("no turn of the user")
    audios = _audios(row)
    tags = sum(text.count(AUDIO_TAG) for text in user)
    if tags > len(audios):
        raise InputError(f"{tags} {AUDIO_TAG} in the text and {len(audios)} audios; each needs its audio")
    try:
        contexts = [context for text in user for context in find_contexts(text)]
    except InputError as error:
        raise _Delimiters(str(error)) from None
    if len(contexts) > len(audios):
        raise _Delimiters(
            f"{len(contexts)} contexts and {len(audios)} audios; a context belongs to one audio before it"
        )
    reply = turns[-1]["content"] if turns[-1]["role"] == "assistant" else None
    keywords = [keyword for context in contexts for keyword in parse_keywords(context.body)]
    return RowParts(texts, user, contexts, reply, audios, keywords)


class _Delimiters(InputError):
    """Contexts that cannot be taken apart, or do not fit the audios."""


def _audios(row: Row) -> list[str]:
    try:
        audios = row_audios(row)
    except (KeyError, TypeError):
        audios = [None]
    if not all(isinstance(audio, str) and audio for audio in audios):
        raise InputError(f"audios must be paths, not {row.get('audios') or row.get('audio')!r:.80}")
    return audios


def schema_problems(row: Row) -> tuple[RowParts | None, list[Problem]]:
    """The parts of a row if it has a row's form, and what is wrong with its form and texts."""
    try:
        parts = take_apart(row)
    except InputError as error:
        return None, [Problem("delimiters" if isinstance(error, _Delimiters) else "schema", str(error))]
    return parts, list(_text_problems(parts))


def _text_problems(parts: RowParts) -> Iterator[Problem]:
    for context in parts.contexts:
        if token := find_special(context.body):
            yield Problem("special-token", f"{token} in the context; only plain text is allowed there")
    for text in parts.user:
        if token := find_special(_outside(text).replace(AUDIO_TAG, "")):
            yield Problem("special-token", f"{token} in the user's text")
    if parts.reply is not None:
        if token := find_special(parts.reply):
            yield Problem("special-token", f"{token} in the reply")
        if not parts.reply.strip():
            yield Problem("empty-transcript", "the reply is empty")
    seen: set[str] = set()
    for keyword in parts.keywords:
        if keyword.casefold() in seen:
            yield Problem("repeated-keyword", f"{keyword!r:.80} is in the list twice")
            break
        seen.add(keyword.casefold())


def _outside(text: str) -> str:
    """The text without its contexts and their delimiters."""
    pieces, position = [], 0
    for context in find_contexts(text):
        pieces.append(text[position : context.start])
        position = context.end
    return "".join([*pieces, text[position:]])


@functools.lru_cache(maxsize=1 << 14)
def audio_facts(path: str) -> AudioFacts:
    """Read one audio file."""
    if not (is_url(path) or Path(path).is_file()):
        return AudioFacts(problem=Problem("audio-missing", f"no audio at {path}"))
    try:
        with opened_audio(path) as source:
            return _facts(open_recording(source, SAMPLING_RATE, name=path), source)
    except SilentAudioError as error:
        return AudioFacts(problem=Problem("audio-silent", str(error)))
    except (InputError, OSError) as error:
        return AudioFacts(problem=Problem("audio-unreadable", str(error)))


def _facts(samples: Recording, source: Source) -> AudioFacts:
    seconds = len(samples) / SAMPLING_RATE
    peak = max((float(abs(block).max()) for block in samples.blocks()), default=0.0)
    return AudioFacts(seconds, peak, missing_seconds(source, seconds))


def audio_problems(path: str, facts: AudioFacts, max_seconds: float) -> Iterator[Problem]:
    """What is wrong with an audio file of a row."""
    if facts.problem:
        yield facts.problem
    elif facts.seconds < MIN_SECONDS:
        yield Problem("audio-short", f"{path}: {facts.seconds:.3f} s; at least {MIN_SECONDS} s are needed")
    elif facts.seconds > max_seconds:
        yield Problem("audio-long", f"{path}: {facts.seconds:.2f} s; the model hears {max_seconds:g} s")
    elif facts.peak < QUIET_PEAK:
        yield Problem("audio-quiet", f"{path}: hardly a sound (peak {facts.peak:.1e} of full scale)")
    if facts.missing:
        promised = facts.seconds + facts.missing
        yield Problem("audio-incomplete", f"{path}: {facts.seconds:.2f} s of the {promised:.2f} s that its header says")
