"""Where to cut a long recording: at pauses, into pieces that the model can hear.

A piece grows until the next pause would take it past the limit, and is then cut at the longest pause of its second
half; only where that half has no pause at all, at its quietest place.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sap2.audio_samples import Samples
from sap2.errors import InputError
from sap2.pipeline.voice_activity import HOP_SECONDS, Detector, Run, frame_levels


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How to cut. All in seconds.

    Attributes:
        max_seconds: the longest piece.
        min_pause: a shorter one may be within a word (the closure of a "t" takes up to 0.1 s).
        long_pause: always ends a piece.
        margin: kept before and after the speech of a piece.
    """

    max_seconds: float
    min_pause: float = 0.2
    long_pause: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if not 2 * self.margin + self.min_pause < self.max_seconds:
            raise InputError(
                f"max_seconds is {self.max_seconds:g}; allowed: above {2 * self.margin + self.min_pause:g}, so that a "
                f"piece holds more than its margins"
            )


def cut_at_pauses(samples: Samples, sampling_rate: int, cutting: Cutting, detect: Detector) -> list[Run]:
    """Pieces of speech of a recording (samples,), as (first sample, sample after the last), in order, not overlapping.

    Silence between pieces is left out. No piece is longer than ``cutting.max_seconds``.

    Args:
        detect: finds the speech (:mod:`sap2.pipeline.voice_activity`).
    """
    hop = round(HOP_SECONDS * sampling_rate)
    frames = [(first // hop, -(-last // hop)) for first, last in detect(samples, sampling_rate)]
    runs = _joined(frames, round(cutting.min_pause / HOP_SECONDS))
    levels = frame_levels(samples, hop)
    limit = int((cutting.max_seconds - 2 * cutting.margin) / HOP_SECONDS)
    pieces = [
        piece
        for group in _groups(runs, round(cutting.long_pause / HOP_SECONDS))
        for piece in _pieces(group, levels, limit)
    ]
    return _with_margins(pieces, hop, round(cutting.margin * sampling_rate), len(samples))


def _joined(runs: list[tuple[int, int]], min_pause: int) -> list[tuple[int, int]]:
    """Runs of frames; those that are less than a pause apart are one."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] < min_pause:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _groups(runs: list[tuple[int, int]], long_pause: int) -> list[list[tuple[int, int]]]:
    """Runs with no long pause between them."""
    groups: list[list[tuple[int, int]]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < long_pause:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _pieces(runs: list[tuple[int, int]], levels: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Cut a group of runs (frames) into pieces of at most ``limit`` frames."""
    pieces = []
    runs = list(runs)
    while runs[-1][1] - runs[0][0] > limit:
        start = runs[0][0]
        # pauses that end a piece within the limit
        ends = [i for i in range(len(runs) - 1) if runs[i][1] - start <= limit]
        late = [i for i in ends if runs[i][1] - start > limit // 2]
        if late or ends:
            cut = max(late, key=lambda i: runs[i + 1][0] - runs[i][1]) if late else ends[-1]
            pieces.append((start, runs[cut][1]))
            runs = runs[cut + 1 :]
        else:
            place = _quietest(levels, start + limit // 2, start + limit)
            pieces.append((start, place))
            runs[0] = (place, runs[0][1])
    return [*pieces, (runs[0][0], runs[-1][1])]


def _quietest(levels: np.ndarray, first: int, last: int) -> int:
    """The frame in [first, last) with the quietest surroundings (70 ms)."""
    width = 7
    smooth = np.convolve(levels[first:last], np.ones(width) / width, mode="same")
    # at the edges the sum has fewer terms
    edge = width // 2
    return first + edge + int(np.argmin(smooth[edge : len(smooth) - edge]))


def _with_margins(pieces: list[tuple[int, int]], hop: int, margin: int, length: int) -> list[tuple[int, int]]:
    """Frames to samples, with a margin that reaches at most to the middle of the pause."""
    spans = [(start * hop, min(end * hop, length)) for start, end in pieces]
    widened = []
    for i, (start, end) in enumerate(spans):
        before = spans[i - 1][1] if i else 0
        after = spans[i + 1][0] if i + 1 < len(spans) else length
        left = start - margin if i == 0 else max(start - margin, (before + start) // 2)
        right = end + margin if i + 1 == len(spans) else min(end + margin, (end + after) // 2)
        widened.append((max(left, 0), min(right, length)))
    return [(start, end) for start, end in widened if end > start]
