"""Answers in OpenAI's shapes, with what is ours beside it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from sap2.pipeline.subtitles import format_transcript
from sap2.pipeline.types import Segment
from sap2.serve.decks import Deck
from sap2.serve.forms import Asked
from sap2.serve.service import Opened
from sap2.text import clean_keyword

MEDIA = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""Types of the formats."""


def format_answer(asked: Asked, opened: Opened) -> str:
    """The answer, when all segments have come."""
    transcript = opened.transcript()
    if asked.format == "text":
        return transcript.text + "\n"
    if asked.format in ("srt", "vtt"):
        return format_transcript(transcript, asked.format)
    body: dict[str, Any] = {"text": transcript.text, "usage": _usage(opened)}
    if asked.format == "verbose_json":
        body |= {"task": "transcribe", "language": asked.language, "duration": round(opened.seconds, 3)}
        body |= _details(asked, opened)
    return dump(body)


def _details(asked: Asked, opened: Opened) -> dict[str, Any]:
    transcript = opened.transcript()
    details: dict[str, Any] = {}
    if asked.segments:
        details["segments"] = [segment_object(number, segment) for number, segment in enumerate(opened.segments)]
    if asked.words:
        details["words"] = [word for segment in opened.segments for word in word_objects(segment)]
    details["keywords"] = keyword_objects(transcript.picked_keywords, opened.decks)
    details["seconds"] = transcript.seconds
    if "slides" in asked.include:
        details["slides"] = slide_objects(opened.decks)
    return details


def segment_object(number: int, segment: Segment) -> dict[str, Any]:
    """A segment. ``avg_logprob`` is null where the probabilities of its words are not known."""
    content = segment.text.encode()
    probabilities = [p for word in word_objects(segment) if (p := word.get("probability"))]
    logprob = sum(map(math.log, probabilities)) / len(probabilities) if probabilities else None
    return {
        "id": number,
        "seek": round(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": logprob,
        "compression_ratio": round(len(content) / len(zlib.compress(content)), 3) if content else 0.0,
        "no_speech_prob": 0.0,
        "picked_keywords": segment.picked_keywords,
        "corrections": segment.corrections,
    }


def word_objects(segment: Segment) -> list[dict[str, Any]]:
    """The words of a segment with their times, where they were asked for."""
    return [word.to_dict() for word in segment.words or []]


def keyword_objects(picked: Sequence[str], decks: Sequence[Deck]) -> list[dict[str, Any]]:
    """The keywords that were used, each with the slides that it stands on."""
    places: dict[str, list[dict[str, Any]]] = {}
    for deck in decks:
        for number, slide in enumerate(deck.slides, 1):
            for form in {clean_keyword(keyword).casefold() for keyword in slide.keywords}:
                places.setdefault(form, []).append({"deck": deck.name, "slide": number})
    return [{"keyword": keyword, "slides": places.get(keyword.casefold(), [])} for keyword in picked]


def slide_objects(decks: Sequence[Deck]) -> list[dict[str, Any]]:
    """The slides of a request: their text, and the words of them that are keywords."""
    return [
        {"deck": deck.name, "slide": number, "text": slide.text, "keywords": slide.keywords}
        for deck in decks
        for number, slide in enumerate(deck.slides, 1)
    ]


def delta_event(asked: Asked, opened: Opened, number: int, segment: Segment) -> str:
    """A segment that has come, as ``transcript.text.delta``; the deltas together are the text."""
    spoken = segment.text.strip()
    first = not any(one.text.strip() for one in opened.segments[:number])
    body: dict[str, Any] = {
        "type": "transcript.text.delta",
        "delta": spoken if first or not spoken else f" {spoken}",
        "segment": segment_object(number, segment),
        "segments": len(opened.pieces),
        "duration": round(opened.seconds, 3),
    }
    if asked.words:
        body["words"] = word_objects(segment)
    return event(body)


def done_event(asked: Asked, opened: Opened) -> str:
    """The end of a stream, ``transcript.text.done``: all of the text."""
    body: dict[str, Any] = {"type": "transcript.text.done", "text": opened.transcript().text, "usage": _usage(opened)}
    if asked.format == "verbose_json":
        body |= {"language": asked.language, "duration": round(opened.seconds, 3), **_details(asked, opened)}
    return event(body)


def event(body: Any) -> str:
    """A server-sent event."""
    return f"data: {dump(body)}\n\n"


def dump(body: Any) -> str:
    """JSON; keywords of all scripts stay readable."""
    return json.dumps(body, ensure_ascii=False)


def _usage(opened: Opened) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(opened.seconds)}
