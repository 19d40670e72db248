"""Rows and utterances of a test set to jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from sap2.errors import InputError
from sap2.pipeline.stages import stage_content
from sap2.prompts import ASR, AUDIO_TAG, JOINT, PRUNE, parse_joint_reply, prune_reply
from sap2.rowfiles import read_rows
from sap2.rows import Row, as_messages, as_utterance, content_stage, lift_inline_audio, row_audios, row_id, row_keywords
from sap2.text import clean_keywords, spoken_keywords


class Item(NamedTuple):
    """One row of a test set.

    Attributes:
        number: its line or row in the file, from 1.
        id: unique.
        audio: path, or an address (``s3://…``).
        keywords: clean.
        content: the user's turn for the first stage.
        system: the row's own system prompt, or None.
        labels: the reference transcript, where the row has one.
        prune_labels: the right reply of stage one: the row's own, or what is spoken by the transcript.
        session: as the row has it.
    """

    number: int
    id: str
    audio: str
    keywords: list[str]
    content: str
    system: str | None
    labels: str | None
    prune_labels: str | None
    session: Any

    def result_fields(self) -> Row:
        """What a result repeats of its row."""
        return {"audios": [self.audio], **({"session": self.session} if self.session is not None else {})}


class BadRow(NamedTuple):
    """A row that cannot be decoded, and why."""

    number: int
    id: str | None
    error: str


def read_items(path: str | os.PathLike[str], first_stage: str) -> Iterator[Item | BadRow]:
    """Items of a file of rows (``messages``) or utterances (``audio``, ``keywords``, ``text``), in order.

    A user's turn with another stage's prompt is written anew for the first stage; one with that stage's prompt or a
    wording of its own is taken as it stands.
    """
    bad: list[BadRow] = []
    seen: set[str] = set()
    rows = read_rows(path, on_error=lambda number, error: bad.append(BadRow(number, None, str(error))))
    for number, row in rows:
        yield from bad
        bad.clear()
        name = None
        try:
            name = _name(row)
            if name in seen:
                raise InputError(f"id {name} occurs a second time; allowed: each id once")
            yield _item(number, name, row, first_stage)
            seen.add(name)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            yield BadRow(number, name, str(error) if isinstance(error, ValueError) else f"not a row: {error!r}")
    yield from bad


def _name(row: Row) -> str:
    name = row_id(row)
    if not isinstance(name, str):
        raise InputError("the row has neither an id nor an audio; allowed: a row with one audio")
    name.encode()  # half a surrogate pair, which JSON can hold, would not come back from a file
    return name


def _item(number: int, name: str, row: Row, first_stage: str) -> Item:
    row = as_messages(row)
    if "messages" not in row:
        return _utterance(number, name, as_utterance(row), first_stage)
    content, audios = lift_inline_audio(_user_turn(row))[0], row_audios(row)
    if len(audios) != 1 or not isinstance(audios[0], str):
        raise InputError(f"the row has {len(audios)} audios; allowed: one path")
    if AUDIO_TAG not in content:  # as ms-swift does
        content = AUDIO_TAG + content
    keywords = clean_keywords(row_keywords(row))
    stage = content_stage(content)
    reply = _last_reply(row)
    labels = _transcript(stage, reply)
    return Item(
        number=number,
        id=name,
        audio=audios[0],
        keywords=keywords,
        content=content if stage in (None, first_stage) else stage_content(first_stage, keywords),
        system=next((m["content"] for m in row["messages"] if m["role"] == "system"), row.get("system")),
        labels=labels,
        prune_labels=reply if stage == PRUNE else _spoken(keywords, labels),
        session=row.get("session"),
    )


def _utterance(number: int, name: str, row: Row, first_stage: str) -> Item:
    """An utterance as the converters of ``data_tools`` write it."""
    audio, keywords, text = row.get("audio"), row.get("keywords") or [], row.get("text")
    if not isinstance(audio, str):
        raise InputError("the row has neither messages nor an audio; allowed: a row of ms-swift, or an utterance")
    if not isinstance(keywords, list) or not all(isinstance(keyword, str) for keyword in keywords):
        raise InputError(f"keywords must be a list of strings, not {keywords!r:.80}")
    keywords = clean_keywords(keywords)
    content = stage_content(first_stage, keywords)
    return Item(number, name, audio, keywords, content, None, text, _spoken(keywords, text), row.get("session"))


def _spoken(keywords: list[str], transcript: str | None) -> str | None:
    """The reply that ``sap2.data.build_prune`` would write, by its default normaliser."""
    return None if transcript is None else prune_reply(spoken_keywords(keywords, transcript, "whisper-en"))


def _user_turn(row: Row) -> str:
    turns = [m["content"] for m in row.get("messages") or [] if m["role"] == "user"]
    if len(turns) != 1 or not isinstance(turns[0], str):
        raise InputError(f"the row has {len(turns)} turns of the user; allowed: one, of text")
    return turns[0]


def _last_reply(row: Row) -> str | None:
    replies = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
    return replies[-1] if replies else None


def _transcript(stage: str | None, reply: str | None) -> str | None:
    """The transcript in a row's reply; a row of stage one has none."""
    if reply is None or stage == PRUNE:
        return None
    if stage == JOINT:
        parsed = parse_joint_reply(reply)
        return parsed.transcript if parsed else None
    assert stage in (ASR, None)
    return reply
