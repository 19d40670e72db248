"""Why was this word written? One recording, segment by segment, as the transcriber cuts it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from sap2.errors import InputError
from sap2.explain.forced import ForcedReply
from sap2.explain.lists import told_keywords, without_each
from sap2.explain.looking import Listening, Looks, listen, look, salience
from sap2.explain.saliency import Told, by_gradients, by_perturbation, word_log_probs
from sap2.explain.spans import SpelledReply, spell_reply, word_keywords
from sap2.explain.types import (
    Cost,
    ExplainedKeyword,
    ExplainedSegment,
    ExplainedWord,
    ExplainOptions,
    Explanation,
)
from sap2.pipeline.engines.base import ConcurrentEngine
from sap2.pipeline.transcriber import Decoded, Transcriber
from sap2.pipeline.types import Request
from sap2.pipeline.words import find_words
from sap2.progress import Progress
from sap2.slides.sources import TimedKeywords

GRADIENT_PASSES = 3
"""Forward passes that a pass with its gradient takes as long as."""


class _Chosen(NamedTuple):
    """A segment, its reply in words, the number of its first word, and which of its words are to be explained."""

    decoded: Decoded
    reply: SpelledReply
    first: int
    words: list[int]


def explain(
    transcriber: Transcriber,
    audio: str | os.PathLike[str] | np.ndarray | Request,
    keywords: Sequence[str] = (),
    slides: Sequence[TimedKeywords] = (),
    *,
    words: tuple[int, int] | None = None,
    options: ExplainOptions | None = None,
    announce: Callable[[Cost], object] | None = None,
) -> Explanation:
    """Transcribe a recording and say of each word what it rests on.

    Args:
        transcriber: with the model; its engine must be transformers.
        audio, keywords, slides: as :meth:`sap2.pipeline.transcriber.Transcriber.transcribe` takes them.
        words: the first and the last word to explain, counted from 1 through the transcript; None: all.
        options: how closely.
        announce: is told the cost before the work begins.

    Raises:
        InputError: nothing is said in the recording, the transcript has no such words, or the engine does not fit.
    """
    if isinstance(transcriber.decoder.engine, ConcurrentEngine):
        raise InputError("explain reads the language model in this process; allowed: --engine transformers")
    options = options or ExplainOptions()
    request = audio if isinstance(audio, Request) else Request(audio, keywords, slides)
    decoded = transcriber.decode(request, word_timestamps=transcriber.times_words, corrected=False)
    id = request.id or (os.fspath(request.audio) if isinstance(request.audio, (str, os.PathLike)) else "audio 1")
    if not decoded:
        raise InputError(f"{id}: no speech was found; there is nothing to explain")
    chosen = _choose(decoded, transcriber, words, id)
    start = time.monotonic()
    work = [_Segment(transcriber, options, one) for one in chosen]
    cost = _cost(work)
    if announce is not None:
        announce(cost)
    with Progress("explain", cost.forward + cost.backward, "input", transcriber.progress) as shown:
        segments = [one.explain(shown.update) for one in work]
    text = " ".join(segment.text for segment in segments if segment.text)
    return Explanation(id, text, segments, cost, time.monotonic() - start)


def _choose(decoded: Sequence[Decoded], transcriber: Transcriber, words: tuple[int, int] | None, id: str):
    """The words that are to be explained, by segment.

    Raises:
        InputError: there are no such words.
    """
    tokenizer = transcriber.decoder.encoder.tokenizer
    stage = transcriber.decoder.stages[-1]
    replies = [spell_reply(one.outcome.replies[stage], one.outcome.reading.text, tokenizer) for one in decoded]
    count = sum(len(reply.words) for reply in replies)
    if not count:
        raise InputError(f"{id}: the transcript is empty; there is nothing to explain")
    first, last = words or (1, count)
    if not 1 <= first <= last <= count:
        raise InputError(f"words {first}-{last} of {id}: the transcript has {count}; allowed: from 1 to {count}")
    chosen, number = [], 1
    for one, reply in zip(decoded, replies, strict=True):
        inside = [n for n in range(len(reply.words)) if first <= number + n <= last]
        chosen.append(_Chosen(one, reply, number, inside))
        number += len(reply.words)
    return chosen


def _cost(work: Sequence[_Segment]) -> Cost:
    busy = [one for one in work if one.words]
    seconds = busy[0].seconds_per_input() / busy[0].size
    units = sum((one.forward + GRADIENT_PASSES * one.backward) * one.size for one in busy)
    forward, backward = (sum(getattr(one, name) for one in busy) for name in ("forward", "backward"))
    return Cost(len(busy), sum(len(one.words) for one in busy), forward, backward, seconds * units)


class _Segment:
    """One segment's work: what it will cost, and the doing of it."""

    def __init__(self, transcriber: Transcriber, options: ExplainOptions, chosen: _Chosen):
        self._decoder, self._batch, self._options = transcriber.decoder, transcriber.batch_size, options
        self._decoded, self._reply, self._first, self._numbers = chosen
        self.words = [self._reply.words[number] for number in self._numbers]
        self._told = told_keywords(self._decoded.outcome, self._decoded.job.keywords)
        self.forward = 2 + len(self._told) + options.masks if self.words else 0
        self.backward = len(self.words) * options.steps
        self.size = self._decoded.job.about_tokens + len(self._reply.ids)

    def _force(self) -> ForcedReply:
        """The audio is heard again: the features of a long recording's segments are not all kept."""
        stage, encoder = self._decoder.stages[-1], self._decoder.encoder
        heard = encoder.hear(self._decoded.job.load(), self._decoded.job.id)
        prompt = encoder.prompt(self._decoded.outcome.content, self._decoder.loaded.systems[stage], heard.tokens)
        return ForcedReply(self._decoder.loaded, encoder, stage, heard, prompt, self._reply.ids)

    @torch.no_grad()
    def seconds_per_input(self) -> float:
        """How long one of a batch takes, by one batch after another that is not counted."""
        forced = self._force()
        features = forced.features.expand(self._batch, -1, -1)
        forced.log_probs(features)
        start = time.perf_counter()
        forced.log_probs(features).cpu()  # waits for the device
        return (time.perf_counter() - start) / self._batch

    def explain(self, done: Told) -> ExplainedSegment:
        """Do it; ``done`` is told how many inputs have gone through."""
        segment, forced = self._decoded.segment, self._force()
        features = forced.heard.features[:, : forced.frames].cpu().numpy()
        words, keywords = [], []
        if self.words:
            listening = listen(forced)
            words = list(self._explain_words(forced, listening, done))
            keywords = self._keywords(forced, listening)
        return ExplainedSegment(segment.start, segment.end, segment.text, self._first, words, keywords, features)

    def _explain_words(self, forced: ForcedReply, listening: Listening, done: Told) -> Iterator[ExplainedWord]:
        looks = look(forced, forced.attention().mean((0, 1)), self.words, listening.shares)
        with torch.no_grad():
            given = word_log_probs(forced.log_probs(forced.features[None]), self.words)[0].tolist()
        done(2)
        without = without_each(forced, self._decoded.outcome.content, self.words, self._batch, done)
        silenced = by_perturbation(forced, self.words, self._options.masks, self._batch, done, self._options.seed)
        steps = self._options.steps
        gradients = by_gradients(forced, self.words, steps, self._batch, done) if steps else None
        (texts, listed), times = self._texts(), self._times()
        for index, number in enumerate(self._numbers):
            yield ExplainedWord(
                number=self._first + number,
                text=texts[number],
                start=times[number][0],
                end=times[number][1],
                log_prob=given[index],
                keyword=listed[number],
                attention=looks.speech[index],
                looked=_masses(looks, index),
                looked_at=dict(zip(self._told, map(float, looks.keywords[index]), strict=False)),
                silenced=silenced[index],
                gradients=None if gradients is None else gradients[index],
                without={keyword: float(row[index]) for keyword, row in zip(self._told, without, strict=True)},
            )

    def _texts(self) -> tuple[list[str], list[str | None]]:
        """The words as the transcript writes them, where it has as many, and the keyword that each belongs to."""
        written, own = self._decoded.segment.text, [word.text for word in self._reply.words]
        places = find_words(written)
        if len(places) != len(own):
            return own, word_keywords(" ".join(own), self._decoded.job.keywords)
        return [written[first:last] for first, last in places], word_keywords(written, self._decoded.job.keywords)

    def _times(self) -> list[tuple[float | None, float | None]]:
        """When each word is said, where that is known."""
        timed = self._decoded.segment.words or []
        if len(timed) != len(self._reply.words):
            return [(None, None)] * len(self._reply.words)
        return [(word.start, word.end) for word in timed]

    def _keywords(self, forced: ForcedReply, listening: Listening) -> list[ExplainedKeyword]:
        probabilities, offered = self._decoded.outcome.probabilities, self._decoded.job.keywords
        written = {keyword for keyword in self._texts()[1] if keyword is not None}
        ranks = {keyword: rank for rank, keyword in enumerate(probabilities, 1)}
        every = list(dict.fromkeys([*self._told, *ranks, *sorted(written), *offered]))
        spotted = salience(forced, forced.speech(), every)
        pooled = None if listening.pooling is None else dict(zip(self._told, listening.pooling.mean(0), strict=False))
        return [
            ExplainedKeyword(
                text=keyword,
                told=keyword in self._told,
                written=keyword in written,
                rank=ranks.get(keyword),
                probability=probabilities.get(keyword),
                salience=None if spotted is None or not spotted[n].isfinite() else float(spotted[n]),
                pooled=float(pooled[keyword]) if pooled and keyword in pooled else None,
            )
            for n, keyword in enumerate(every)
        ]


def _masses(looks: Looks, index: int) -> dict[str, float]:
    parts = {"speech": looks.speech[index].sum(), "keywords": looks.keywords[index].sum()}
    parts |= {"prompt": looks.prompt[index], "reply": looks.reply[index]}
    return {name: float(value) for name, value in parts.items()}
