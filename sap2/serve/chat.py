"""Chat completions with audio, for those who asked ``swift deploy``: the reply is the transcript."""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from sap2.pipeline.types import Segment
from sap2.prompts import ASR_PROMPT, END_OF_CONTEXT, PLAIN_ASR_PROMPT, PRUNE_PROMPT, START_OF_CONTEXT, parse_keywords
from sap2.serve.decoding import Upload
from sap2.serve.errors import BAD_REQUEST, ApiError
from sap2.serve.forms import Asked, check_model, decode_base64, prompt_keywords
from sap2.serve.multipart import place_upload
from sap2.serve.options import ServeOptions
from sap2.serve.service import Opened
from sap2.serve.shapes import event

_CONTEXT = re.compile(f"{re.escape(START_OF_CONTEXT)}(.*?){re.escape(END_OF_CONTEXT)}", re.S)
_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.A)
_HEADS = tuple(prompt.partition("{context}")[0] for prompt in (ASR_PROMPT, PLAIN_ASR_PROMPT))


@dataclasses.dataclass(frozen=True)
class Chat:
    """A chat request, and what its answer repeats of it."""

    asked: Asked
    model: str
    id: str
    created: int

    def answer(self, opened: Opened) -> dict[str, Any]:
        """The whole answer."""
        message = {"role": "assistant", "content": opened.transcript().text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> str:
        """A part of a streamed answer."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def read_chat(body: dict[str, Any], options: ServeOptions, folder: Path) -> Chat:
    """What a chat request asks for: the audio of the last user's turn, and the keywords of its text.

    Raises:
        ApiError: it has no audio, or several, or asks for what is not served.
    """
    model = body.get("model") or options.names[0]
    check_model(model if isinstance(model, str) else "?", options)
    if body.get("temperature") not in (None, 0, 0.0):
        raise ApiError(BAD_REQUEST, "temperature: decoding is greedy; allowed: 0", "temperature")
    if body.get("n") not in (None, 1):
        raise ApiError(BAD_REQUEST, "n: there is one transcript; allowed: 1", "n")
    audios, text = _turn(body)
    if len(audios) != 1:
        raise ApiError(BAD_REQUEST, f"the last user's message has {len(audios)} audios; allowed: 1", "messages")
    upload: Upload = place_upload(folder, 0, "file", "audio", audios[0])
    asked = Asked(upload, stream=bool(body.get("stream")), keywords=_keywords(text))
    return Chat(asked, model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))


def _turn(body: dict[str, Any]) -> tuple[list[bytes], str]:
    """The audios and the text of the last turn of the user."""
    messages = body.get("messages")
    turns = [one for one in messages if _is_user(one)] if isinstance(messages, list) else []
    if not turns:
        raise ApiError(BAD_REQUEST, "messages hold no turn of the user", "messages")
    content = turns[-1].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    audios, texts = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("input_audio", "audio_url") and isinstance(part.get(kind), dict):
            audios.append(_audio(kind, part[kind]))
        else:
            raise ApiError(
                BAD_REQUEST,
                "a part of the message is not of a known type; allowed: text, input_audio, audio_url",
                "messages",
            )
    return audios, " ".join(texts)


def _is_user(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _audio(kind: str, part: dict[str, Any]) -> bytes:
    given = part.get("data" if kind == "input_audio" else "url")
    if not isinstance(given, str):
        raise ApiError(BAD_REQUEST, f"{kind} holds no text in base64", "messages")
    if kind == "audio_url":
        match = _DATA.match(given)
        if match is None:
            raise ApiError(
                BAD_REQUEST, "audio_url: no address is fetched; allowed: data:audio/wav;base64,…", "messages"
            )
        given = given[match.end() :]
    return decode_base64(given, "messages")


def _keywords(text: str) -> Sequence[str]:
    """Those between the marks of a context, or where there are none the words of the text that are keywords."""
    if text.lstrip().startswith(PRUNE_PROMPT.partition("{context}")[0]):
        raise ApiError(
            BAD_REQUEST,
            "this is the question of stage one; the server asks it itself: send that of stage two",
            "messages",
        )
    contexts = _CONTEXT.findall(text)
    if contexts:
        return [keyword for context in contexts for keyword in parse_keywords(context)]
    for head in _HEADS:
        text = text.replace(head, "")
    return prompt_keywords(text, "en")


async def answer_chat(chat: Chat, opened: Opened, segments: AsyncGenerator[Segment, None]) -> AsyncGenerator[str, None]:
    """The chunks of a streamed answer."""
    yield chat.chunk({"role": "assistant", "content": ""})
    said = False
    async for segment in segments:
        if text := segment.text.strip():
            yield chat.chunk({"content": f" {text}" if said else text})
            said = True
    yield chat.chunk({}, "stop")
    yield "data: [DONE]\n\n"
