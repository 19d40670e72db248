"""The page of an explanation: the words on the spectrogram, and for each of them what it rests on."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np

from sap2 import __version__
from sap2.explain.types import ExplainedKeyword, ExplainedSegment, ExplainedWord, Explanation
from sap2.lengths import FRAMES_PER_TOKEN, HOP_LENGTH, SAMPLING_RATE
from sap2.pages import write_page

PAGE = Path(__file__).with_name("explain.html")
"""Its style and script are in the files of the same name, and go into the page."""
TOKEN_SECONDS = FRAMES_PER_TOKEN * HOP_LENGTH / SAMPLING_RATE
ROWS, COLUMN_FRAMES = 64, 2
"""Of the picture of a spectrogram: its rows, and mel frames that become a column."""
LETTER_SECONDS = 0.06
"""How wide a word stands on the page where it has no times."""


def write_html(path: str | os.PathLike[str], explanation: Explanation) -> None:
    """Write the page, whole or not at all. It asks no address for anything."""
    data = page_data(explanation)
    write_page(path, PAGE, data["title"], data)


def page_data(explanation: Explanation) -> dict[str, Any]:
    """What the page's script reads."""
    words = f"{len(explanation.words)} words in {explanation.cost.segments} segments"
    passes = f"{explanation.cost.forward} forward passes, {explanation.cost.backward} with gradients"
    return {
        "title": f"Why these words: {Path(explanation.id).name}",
        "about": f"{words} · {passes}, {explanation.seconds:.0f} s · sap2 {__version__}",
        "token_seconds": TOKEN_SECONDS,
        "segments": [_segment(segment) for segment in explanation.segments],
    }


def _segment(segment: ExplainedSegment) -> dict[str, Any]:
    words = segment.words
    data = {"start": segment.start, "end": segment.end, "text": segment.text, "words": []}
    if not words:
        return data
    picture = spectrogram(segment.features)
    return data | {
        "rows": picture.shape[0],
        "columns": picture.shape[1],
        "column_tokens": COLUMN_FRAMES / FRAMES_PER_TOKEN,
        "spectrogram": base64.b64encode(picture.tobytes()).decode(),
        "tokens": len(words[0].attention),
        "timed": all(word.start is not None for word in words),
        "keywords": [_keyword(keyword) for keyword in segment.keywords],
        "words": [_word(word, segment.start) for word in words],
    }


def _keyword(keyword: ExplainedKeyword) -> list[Any]:
    """``[text, told, written, rank, probability, salience, share of the pooling's attention]``."""
    numbers = (keyword.probability, keyword.salience, keyword.pooled)
    return [keyword.text, keyword.told, keyword.written, keyword.rank, *map(_short, numbers)]


def _word(word: ExplainedWord, start: float) -> list[Any]:
    """``[number, text, start, end, log probability, keyword, parts of the attention, that on each told keyword, log
    probability without each, maps]``."""
    begin, end = (word.start, word.end) if word.start is not None else _place(word, start)
    maps = {"attention": pack(word.attention), "silenced": pack(word.silenced)}
    maps["gradients"] = None if word.gradients is None else pack(word.gradients)
    return [
        word.number,
        word.text,
        _short(begin),
        _short(end),
        _short(word.log_prob),
        word.keyword,
        [_short(share) for share in word.looked.values()],
        [_short(share) for share in word.looked_at.values()],
        [_short(value) for value in word.without.values()],
        maps,
    ]


def _place(word: ExplainedWord, start: float) -> tuple[float, float]:
    """Where a word without times is put: around the place that the language model looks at most."""
    width = LETTER_SECONDS * max(2, len(word.text))
    middle = start + (int(word.attention.argmax()) + 0.5) * TOKEN_SECONDS
    first = max(start, middle - width / 2)
    return first, first + width


def spectrogram(features: np.ndarray) -> np.ndarray:
    """Log-mel features (mel bins, F) → (ROWS, columns) uint8, the lowest bin first: what the page draws."""
    bins, frames = features.shape
    columns = np.add.reduceat(features, np.arange(0, frames, COLUMN_FRAMES), axis=1)
    columns /= np.bincount(np.arange(frames) // COLUMN_FRAMES)
    rows = np.stack([part.mean(0) for part in np.array_split(columns, min(ROWS, bins))])
    low, high = rows.min(), rows.max()
    return np.round(255 * (rows - low) / max(high - low, 1e-9)).astype(np.uint8)


def pack(values: np.ndarray) -> list[Any]:
    """Numbers as their largest size and bytes of it, in base64: hundreds of words have maps."""
    most = float(np.abs(values).max()) or 1.0
    return [float(f"{most:.4g}"), base64.b64encode(np.round(127 * values / most).astype(np.int8).tobytes()).decode()]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
