"""What an explanation says. Standard library and numpy only.

Notation: T tokens of a segment's audio (40 ms each), G bands of mel bins, F mel frames (10 ms each).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class ExplainOptions:
    """How closely a word is looked at.

    Attributes:
        masks: in how many ways parts of the sound are silenced.
        steps: of the integrated gradients, from silence to the sound; 0: no gradients.
        seed: of the masks.
    """

    masks: int = 512
    steps: int = 32
    seed: int = 0


class Cost(NamedTuple):
    """What is to be computed.

    Attributes:
        segments, words: that are explained.
        forward: how often a segment goes through the model.
        backward: how often a gradient comes back as well.
        seconds: about how long that takes, from a first measurement.
    """

    segments: int
    words: int
    forward: int
    backward: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class ExplainedWord:
    """Why a word was written.

    Attributes:
        number: in the transcript, from 1.
        text: as it stands in the transcript.
        start, end: seconds in the recording, where the words have times; else None.
        log_prob: of its tokens, given all before them.
        keyword: of the list, that the word belongs to; None for any other word.
        attention: (T,) share of the language model's attention on each token of the audio, mean over layers, heads and
            the word's tokens.
        looked: share of that attention on the ``speech``, the ``keywords``, the rest of the ``prompt`` and the
            ``reply`` before the word; they sum to 1.
        looked_at: share of it on each keyword that the model was told.
        silenced: (G, T) how much the word's log probability loses where a region of the sound is silenced, in nats.
        gradients: (T,) what each token of the audio adds to the log probability, by integrated gradients, in nats;
            None where they were not asked for.
        without: the word's log probability without each keyword of the list that the model was told.
    """

    number: int
    text: str
    start: float | None
    end: float | None
    log_prob: float
    keyword: str | None
    attention: np.ndarray
    looked: dict[str, float]
    looked_at: dict[str, float]
    silenced: np.ndarray
    gradients: np.ndarray | None
    without: dict[str, float]

    def effect(self, keyword: str) -> float:
        """How much a keyword of the list adds to the word's log probability, in nats."""
        return self.log_prob - self.without[keyword]


@dataclasses.dataclass(frozen=True)
class ExplainedKeyword:
    """What became of a keyword of the list in one segment.

    Attributes:
        text: as the list writes it.
        told: whether stage two was told it.
        written: whether it is in the segment's transcript.
        rank: among what stage one ranked, from 1; None where it was not ranked.
        probability: that it is spoken, by stage one.
        salience: of the spotter, in nats; None where the model has none, or the keyword does not fit into the audio.
        pooled: its share of the attention of the pooling ``attention``; None with another pooling.
    """

    text: str
    told: bool
    written: bool
    rank: int | None
    probability: float | None
    salience: float | None
    pooled: float | None


@dataclasses.dataclass(frozen=True)
class ExplainedSegment:
    """One piece of a recording.

    Attributes:
        start, end: seconds in the recording.
        text: the transcript.
        first_word: number of its first word in the transcript.
        words: those that were asked for.
        keywords: of the list: those that were told, then those that were ranked or written, then the others.
        features: (mel bins, F) log-mel spectrogram that the model heard.
    """

    start: float
    end: float
    text: str
    first_word: int
    words: list[ExplainedWord]
    keywords: list[ExplainedKeyword]
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why the words of a recording were written.

    Attributes:
        id: of the recording.
        text: the transcript.
        segments: in the order of time; those with no word that was asked for have neither words nor keywords.
        cost: that was foreseen.
        seconds: that it took.
    """

    id: str
    text: str
    segments: list[ExplainedSegment]
    cost: Cost
    seconds: float

    @property
    def words(self) -> list[ExplainedWord]:
        """Of all segments."""
        return [word for segment in self.segments for word in segment.words]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; the spectrograms are left out."""
        fields = dataclasses.asdict(self) | {"cost": self.cost._asdict(), "seconds": round(self.seconds, 1)}
        for segment in fields["segments"]:
            del segment["features"]
        return _plain(fields)


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers with five digits."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return float(f"{value:.5g}") if isinstance(value, float) else value
