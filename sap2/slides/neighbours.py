"""Slides in the order of time, and the keywords of those around one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sap2.tables import Segment
from sap2.text import clean_keywords


def place_slides(
    segments: Iterable[Segment], keywords: Mapping[str, list[str]]
) -> tuple[dict[str, list[list[str]]], dict[str, int]]:
    """The slides of each recording in the order of time, and the number of each utterance's slide among them.

    The published files do not say where a slide begins: utterances in a row with the same keywords share one.
    """
    slides: dict[str, list[list[str]]] = {}
    numbers: dict[str, int] = {}
    for segment in sorted(segments, key=lambda s: (s.recording, s.start, s.end, s.utterance)):
        of_recording = slides.setdefault(segment.recording, [])
        own = keywords[segment.utterance]
        if not of_recording or of_recording[-1] != own:
            of_recording.append(own)
        numbers[segment.utterance] = len(of_recording) - 1
    return slides, numbers


def nearest_slides(slides: Sequence[Sequence[str]], own: int, count: int) -> list[Sequence[str]]:
    """The keywords of up to ``count`` slides: number ``own``, then the nearest in time, the earlier one first.

    Empty slides, and slides that only repeat one already taken, are passed over. At an end of the recording the other
    side fills up.
    """
    taken = [slides[own]]
    seen = {tuple(slides[own]), ()}
    for other in sorted(range(len(slides)), key=lambda i: (abs(i - own), i)):
        if len(taken) >= count:
            break
        if tuple(slides[other]) not in seen:
            seen.add(tuple(slides[other]))
            taken.append(slides[other])
    return taken


def keywords_around(slides: Sequence[Sequence[str]], own: int, count: int) -> list[str]:
    """The clean keywords of :func:`nearest_slides` in that order, each once."""
    return clean_keywords(keyword for slide in nearest_slides(slides, own, count) for keyword in slide)
