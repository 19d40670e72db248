"""What a request for a transcript holds, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sap2.audio_samples import Recording
from sap2.errors import InputError
from sap2.slides.sources import TimedKeywords


def shown_keywords(slides: Iterable[TimedKeywords], start: float, end: float, id: str) -> Iterator[str]:
    """The keywords of everything on screen between start and end."""
    for slide in slides:
        if slide.start < end and (slide.end is None or slide.end > start):
            yield from checked_keywords(slide.keywords, id)


def checked_keywords(keywords: Sequence[str], id: str) -> Sequence[str]:
    """The keywords as they are.

    Raises:
        InputError: they are not a list of texts; ``id`` names the request.
    """
    if isinstance(keywords, str) or not all(isinstance(keyword, str) for keyword in keywords):
        raise InputError(f"{id}: keywords are {keywords!r:.80}; allowed: a list of texts")
    return keywords


def as_recording(samples: np.ndarray, id: str) -> Recording:
    """Samples that are given in memory.

    Raises:
        InputError: they are not (samples,) finite floating point; ``id`` names the request.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"{id}: audio of shape {samples.shape} and type {samples.dtype}; allowed: (samples,) floating point"
        )
    recording = Recording(samples)
    if not all(np.isfinite(block).all() for block in recording.blocks()):
        raise InputError(f"{id}: the audio holds samples that are not finite numbers")
    return recording
