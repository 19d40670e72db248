"""Captions of a recording (.srt, .vtt): what is said when, as reference or to cut a recording by."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from sap2.errors import InputError
from sap2.tables import read_text

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_TAGS = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_SOUNDS = re.compile(r"^\s*(?:\[[^\]]*\]|\([^)]*\)|♪.*♪?|[-–]\s*)\s*")
_SPEAKER = re.compile(r"^(?:[A-Z][A-Z .'-]{1,30}:|>>\s*)\s*")


class Cue(NamedTuple):
    """``text`` that is said from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str


def read_captions(path: str | os.PathLike[str]) -> list[Cue]:
    """The cues of a SubRip or WebVTT file in the order of time; what is no speech ("[music]") and repeats are left out.

    Formatting, names of speakers ("EMILY:") and entities are resolved.

    Raises:
        InputError: it has no cue, or a cue ends before it begins.
    """
    cues: list[Cue] = []
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        match = _TIMES.match(line)
        if match is None:
            continue
        start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        if end < start:
            raise InputError(f"{path}:{number}: this cue ends at {end:g} s, before it begins at {start:g} s")
        if (text := _spoken(_block(lines, number))) and end > start:
            cues.append(Cue(start, end, text))
    if not cues:
        raise InputError(f"{path}: no captions in this file; allowed: .srt or .vtt with at least one cue")
    return _without_repeats(sorted(cues))


def merge_cues(cues: Iterable[Cue], max_seconds: float, pause: float = 1.0) -> list[Cue]:
    """Cues that follow one another, joined into pieces of at most ``max_seconds``.

    A piece ends at a pause of ``pause`` seconds; the rest goes by length, after a sentence where one ends in the second
    half. A cue that is longer than ``max_seconds`` itself stays as it is.
    """
    pieces: list[list[Cue]] = []
    for cue in cues:
        piece = pieces[-1] if pieces else None
        near = piece is not None and cue.start - piece[-1].end < pause and cue.end - piece[0].start <= max_seconds
        if piece is not None and near and not _is_full(piece, max_seconds):
            piece.append(cue)
        else:
            pieces.append([cue])
    return [Cue(p[0].start, max(cue.end for cue in p), " ".join(cue.text for cue in p)) for p in pieces]


def _is_full(piece: list[Cue], max_seconds: float) -> bool:
    """Whether a sentence ends here, in the second half of what a piece may hold."""
    ended = piece[-1].text.endswith((".", "?", "!", "。"))
    return ended and piece[-1].end - piece[0].start > max_seconds / 2


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction}")


def _block(lines: list[str], first: int) -> list[str]:
    """The lines of a cue: up to a blank one, or to the number and the times of the next."""
    block = []
    for line in lines[first:]:
        if not line.strip() or _TIMES.match(line):
            break
        block.append(line)
    if (
        len(block) < len(lines[first:])
        and _TIMES.match(lines[first + len(block)])
        and block
        and block[-1].strip().isdigit()
    ):
        block.pop()
    return block


def _spoken(block: list[str]) -> str:
    lines = []
    for line in block:
        line = html.unescape(_TAGS.sub("", line)).strip()
        line = _SPEAKER.sub("", _SOUNDS.sub("", line))
        if line:
            lines.append(line)
    return " ".join(" ".join(lines).split())


def _without_repeats(cues: list[Cue]) -> list[Cue]:
    """Cues without what rolls up: YouTube shows each line twice, first below and then above the next."""
    kept: list[Cue] = []
    for cue in cues:
        last = kept[-1] if kept else None
        if last is not None and cue.start - last.end < 0.5:
            if cue.text == last.text:
                kept[-1] = Cue(last.start, max(last.end, cue.end), last.text)
                continue
            if cue.text.startswith(last.text + " "):
                cue = cue._replace(text=cue.text[len(last.text) + 1 :])
        kept.append(cue)
    return kept
