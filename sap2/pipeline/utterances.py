"""One utterance on its way through the stages: what is to be done, what is known so far, what came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sap2.pipeline.confidence import Evidence
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.leaks import Leak
from sap2.pipeline.prompting import Heard, Prompt
from sap2.pipeline.stages import Reading
from sap2.pipeline.types import Correction, Word
from sap2.prompts import PRUNE, prune_reply
from sap2.pruning.spotting import RankedKeyword


class Job(NamedTuple):
    """One utterance to decode.

    Attributes:
        id: for messages and results.
        load: gives (samples,) at the model's rate; called when the utterance's turn comes.
        keywords: clean, to pick from.
        content: the user's turn of the first stage, where it is not to be written from the keywords.
        system: the system prompt of the first stage, where it is not the checkpoint's.
        about_tokens: about how long the first prompt is, to put utterances of like length together.
        word_spelling: of the keywords in the words that get times (:data:`sap2.pipeline.stages.SPELLINGS`); None: no
            words are asked for.
        correct: whether keywords may be put right (:mod:`sap2.pipeline.correcting`), where the decoder does so.
    """

    id: str
    load: Callable[[], np.ndarray]
    keywords: Sequence[str]
    content: str | None = None
    system: str | None = None
    about_tokens: int = 0
    word_spelling: str | None = None
    correct: bool = True


class Pruning(NamedTuple):
    """What a pruner found in one utterance.

    Attributes:
        ranked: keywords of the list, the likeliest first; those that the pruner says nothing about are left out.
        picked: those that go to the next stage: in the list's order where the model named them, else as ranked.
        unlisted: what the pruner named though no list has it.
        reply: what the model said, where it was asked.
    """

    ranked: list[RankedKeyword]
    picked: list[str]
    unlisted: list[str]
    reply: Reply | None = None


class Prepared(NamedTuple):
    """A job whose audio was heard and whose first prompt is encoded (None where the first stage asks nothing)."""

    job: Job
    heard: Heard
    prompt: Prompt | None


@dataclasses.dataclass
class Utterance:
    """What the stages of one utterance share.

    Attributes:
        job, heard: what is decoded.
        prompt: of the next stage, where it is encoded already.
        keywords: what the next stage is told; in the end what the last one was told or picked.
        unlisted: what stage one named though the list lacks it.
        probabilities: of the keywords that stage one ranked, the likeliest first.
        content: the user's turn of the last question.
        text: the last reply, understood.
        replies: what the model said, by stage; of a pruner that does not ask it, what it would have said.
        cut_off: stages whose reply reached the limit of tokens.
        told: the keywords of the last question.
        leak: the reply that was decoded again without the list (:mod:`sap2.pipeline.leaks`).
        uncorrected: the text before there were corrections, where there are some.
        corrections: keywords that stand in the text in the place of what was written, in its order.
        reply: the last one.
        words: of the text with their times in the audio, where the job asks for them, what speaks for each (None: that
            is not known), and the seconds of computing.
    """

    job: Job
    heard: Heard
    prompt: Prompt | None
    keywords: list[str]
    unlisted: list[str] = dataclasses.field(default_factory=list)
    probabilities: dict[str, float] = dataclasses.field(default_factory=dict)
    content: str = ""
    text: str = ""
    replies: dict[str, str] = dataclasses.field(default_factory=dict)
    cut_off: list[str] = dataclasses.field(default_factory=list)
    reply: Reply | None = None
    words: list[Word] | None = None
    evidence: list[Evidence | None] = dataclasses.field(default_factory=list)
    word_seconds: float = 0.0
    told: Sequence[str] = ()
    leak: Leak | None = None
    corrections: list[Correction] = dataclasses.field(default_factory=list)
    uncorrected: str | None = None

    @property
    def written(self) -> str:
        """The text as the model wrote it."""
        return self.text if self.uncorrected is None else self.uncorrected

    def note(self, stage: str, reply: Reply) -> None:
        """Keep what the model said."""
        self.replies[stage], self.reply = reply.text, reply
        if not reply.complete:
            self.cut_off.append(stage)

    def take_pruning(self, found: Pruning) -> None:
        """Go on with what stage one picked."""
        self.keywords, self.unlisted = found.picked, found.unlisted
        self.probabilities = {pick.keyword: round(pick.probability, 4) for pick in found.ranked}
        self.text = found.reply.text if found.reply else prune_reply(found.picked)
        self.replies.setdefault(PRUNE, self.text)

    def take_reading(self, reading: Reading) -> None:
        """Go on with what a reply of another stage says."""
        self.told = self.keywords
        self.text, self.keywords = reading.text, reading.picked
        self.unlisted = [*self.unlisted, *reading.unlisted]

    def take_corrections(self, corrections: list[Correction]) -> None:
        """Put keywords in the place of what the model wrote; in the place of earlier corrections."""
        text = self.uncorrected = self.written
        for one in reversed(corrections):
            text = f"{text[: one.start]}{one.keyword}{text[one.end :]}"
        self.text, self.corrections = text, corrections

    def outcome(self, seconds: dict[str, float], tower_runs: int) -> Outcome:
        """What came out, with the computing time by stage and how often the audio tower heard the utterance."""
        return Outcome(
            replies=self.replies,
            reading=Reading(self.text, self.keywords, self.unlisted),
            probabilities=self.probabilities,
            content=self.content,
            seconds=seconds if self.words is None else {**seconds, "words": round(self.word_seconds, 4)},
            audio_tower_runs=tower_runs,
            cut_off=self.cut_off,
            audio_seconds=self.heard.seconds,
            words=self.words,
            leak=self.leak,
            evidence=self.evidence,
            corrections=self.corrections,
        )


class Outcome(NamedTuple):
    """What came out for one job.

    Attributes:
        replies: what the model said, by stage.
        reading: the last stage's reply, understood; picked and unlisted keywords are of the stage that picks.
        probabilities: of the keywords that stage one ranked, the likeliest first.
        content: the user's turn of the last stage.
        seconds: computing time by stage (``audio``, ``prune``, …), the batch's divided by its size.
        audio_tower_runs: how often the audio tower heard the utterance.
        cut_off: stages whose reply reached the limit of tokens.
        audio_seconds: length of the audio.
        words: with their times in the audio, where the job asked for them.
        leak: the reply that was decoded again without the list, and whether it was replaced.
        evidence: what speaks for each of these; None: that is not known.
        corrections: keywords that were put in the place of what the model wrote.
    """

    replies: dict[str, str]
    reading: Reading
    probabilities: dict[str, float]
    content: str
    seconds: dict[str, float]
    audio_tower_runs: int
    cut_off: list[str]
    audio_seconds: float
    words: list[Word] | None = None
    leak: Leak | None = None
    evidence: Sequence[Evidence | None] = ()
    corrections: Sequence[Correction] = ()
