"""Where to cut a long recording: at pauses, into pieces that the model can hear.

Speech is what is louder than a threshold between the recording's own quiet and loud levels, so that background noise
or a low volume move it along. A piece grows until the next pause would take it past the limit, and is then cut at the
longest pause of its second half; only where that half has no pause at all, at its quietest place.
"""

from __future__ import annotations

import dataclasses

import numpy as np

HOP_SECONDS = 0.010
"""Step of the levels; each is taken over three steps."""
_QUIET, _LOUD = 10, 95
"""Percentiles of the frames' levels that stand for background and speech."""
_THRESHOLD = 0.35
"""How far the threshold is from the quiet to the loud level."""
_MAX_RANGE_DB = 60.0
"""Digital silence is infinitely quiet; no further below speech than this counts."""
_MIN_RANGE_DB = 9.0
"""With less between its quiet and its loud level, a recording has no pauses that can be told from speech."""
_FLOOR_DB = -70.0
"""Below this (full scale is 0) there is no speech at all."""


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
            raise ValueError(
                f"max_seconds is {self.max_seconds:g}; allowed: above {2 * self.margin + self.min_pause:g}, so that a "
                f"piece holds more than its margins"
            )


def cut_at_pauses(samples: np.ndarray, sampling_rate: int, cutting: Cutting) -> list[tuple[int, int]]:
    """Pieces of speech of a recording (samples,), as (first sample, sample after the last), in order, not overlapping.

    Silence between pieces is left out. No piece is longer than ``cutting.max_seconds``.
    """
    hop = round(HOP_SECONDS * sampling_rate)
    levels = _levels(samples, hop)
    runs = _speech_runs(levels, round(cutting.min_pause / HOP_SECONDS))
    limit = int((cutting.max_seconds - 2 * cutting.margin) / HOP_SECONDS)
    pieces = [
        piece
        for group in _groups(runs, round(cutting.long_pause / HOP_SECONDS))
        for piece in _pieces(group, levels, limit)
    ]
    return _with_margins(pieces, hop, round(cutting.margin * sampling_rate), len(samples))


def _levels(samples: np.ndarray, hop: int) -> np.ndarray:
    """Level of each step and its two neighbours, dB of full scale."""
    padded = np.pad(samples, (0, -len(samples) % hop))
    power = np.mean(np.square(padded).reshape(-1, hop), axis=1, dtype=np.float64)
    power = np.convolve(power, np.ones(3) / 3, mode="same") if len(power) >= 3 else power
    return 10 * np.log10(np.maximum(power, 1e-20))


def _speech_runs(levels: np.ndarray, min_pause: int) -> list[tuple[int, int]]:
    """Runs of frames with speech; runs that are less than a pause apart are one."""
    if not len(levels):
        return []
    loud = float(np.percentile(levels, _LOUD))
    # a recording of nothing but noise or silence
    if loud < _FLOOR_DB:
        return []
    quiet = max(float(np.percentile(levels, _QUIET)), loud - _MAX_RANGE_DB)
    if loud - quiet < _MIN_RANGE_DB:
        return [(0, len(levels))]
    speech = levels > max(quiet + _THRESHOLD * (loud - quiet), _FLOOR_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if runs and start - runs[-1][1] < min_pause:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


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
