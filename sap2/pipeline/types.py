"""What goes into the transcriber and what comes out. Standard library and numpy only."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sap2.slides.sources import TimedKeywords

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Request:
    """One recording to transcribe.

    Attributes:
        audio: a path, or (samples,) floating point at the model's sampling rate (16 kHz).
        keywords: the list to pick from, for the whole recording.
        slides: keywords that hold for a part of the recording; a segment gets those of its own time as well.
        id: for results and messages; None: the path.
    """

    audio: str | os.PathLike[str] | np.ndarray
    keywords: Sequence[str] = ()
    slides: Sequence[TimedKeywords] = ()
    id: str | None = None


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of a transcript and when it is said.

    Attributes:
        text: as it stands in the transcript, with the punctuation at it.
        start, end: seconds in the recording.
        probability: that the word is right; None where it is not known.
        keyword: the keyword that the word belongs to, as the list writes it; None for any other word.
        aligned: False where the spotter cannot spell the word (digits that it never learnt, say): its time is then what
            the words around it leave.
    """

    text: str
    start: float
    end: float
    probability: float | None = None
    keyword: str | None = None
    aligned: bool = True

    def later(self, seconds: float) -> Word:
        """The word in a recording in which its audio begins at that time."""
        start, end = round(self.start + seconds, 3), round(self.end + seconds, 3)
        return dataclasses.replace(self, start=start, end=end)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object with the names that Whisper gives them, and ours."""
        return {"word": self.text, **{name: value for name, value in vars(self).items() if name != "text"}}


class Correction(NamedTuple):
    """A keyword that stage two wrote wrongly (:mod:`sap2.pipeline.correcting`).

    Attributes:
        start, end: where it stands in what the model wrote, [start, end).
        written: what stands there.
        keyword: what was put there.
        probability: that it was said.
    """

    start: int
    end: int
    written: str
    keyword: str
    probability: float

    def to_dict(self) -> dict[str, str]:
        """As results have it."""
        return {"written": self.written, "keyword": self.keyword}


@dataclasses.dataclass(frozen=True)
class Segment:
    """One piece of a recording.

    Attributes:
        start, end: seconds in the recording.
        text: the transcript.
        keywords: how many keywords were offered.
        picked_keywords: those of the list that went into the transcription, in the list's order.
        unlisted_keywords: what stage one replied that is not in the list.
        audio_tower_runs: 1 where both stages share the audio tower's output, 2 where an adapter changes the tower.
        seconds: computing time by stage; a batch's time is shared equally among its pieces.
        cut_off: stages whose reply reached ``max_new_tokens``.
        words: of the text, in order; None where they were not asked for.
        leak: of a segment that was decoded again without the list: the ``reason``, the first ``reply``, and whether it
            was ``replaced`` (:mod:`sap2.pipeline.leaks`); None of any other.
        corrections: keywords that the spotter put right, each with what the model had ``written``
            (:mod:`sap2.pipeline.correcting`).
    """

    start: float
    end: float
    text: str
    keywords: int
    picked_keywords: list[str]
    unlisted_keywords: list[str]
    audio_tower_runs: int
    seconds: dict[str, float]
    cut_off: list[str]
    words: list[Word] | None = None
    leak: dict[str, Any] | None = None
    corrections: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; without words where they were not asked for."""
        fields = dataclasses.asdict(self)
        words = fields.pop("words")
        if self.leak is None:
            del fields["leak"]
        if not self.corrections:
            del fields["corrections"]
        return fields if words is None else {**fields, "words": [word.to_dict() for word in self.words or []]}


@dataclasses.dataclass(frozen=True)
class Transcript:
    """The transcript of one recording; see :class:`Segment` for what its segments hold.

    Attributes:
        id: that of the request.
        text: of all segments, joined by spaces.
        segments: in the order of time; empty where no speech was found.
        picked_keywords, unlisted_keywords: of all segments, each once.
        audio_seconds: length of the recording.
        seconds: computing time by stage.
        audio_tower_runs: the largest of the segments'.
    """

    id: str
    text: str
    segments: list[Segment]
    picked_keywords: list[str]
    unlisted_keywords: list[str]
    audio_seconds: float
    seconds: dict[str, float]
    audio_tower_runs: int

    @classmethod
    def from_segments(cls, id: str, segments: Sequence[Segment], audio_seconds: float) -> Transcript:
        """Put the segments of a recording together."""
        stages = dict.fromkeys(stage for segment in segments for stage in segment.seconds)
        return cls(
            id=id,
            text=" ".join(segment.text.strip() for segment in segments if segment.text.strip()),
            segments=list(segments),
            picked_keywords=list(dict.fromkeys(k for segment in segments for k in segment.picked_keywords)),
            unlisted_keywords=list(dict.fromkeys(k for segment in segments for k in segment.unlisted_keywords)),
            audio_seconds=audio_seconds,
            seconds={stage: sum(segment.seconds[stage] for segment in segments) for stage in stages},
            audio_tower_runs=max((segment.audio_tower_runs for segment in segments), default=0),
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**dataclasses.asdict(self), "segments": [segment.to_dict() for segment in self.segments]}
