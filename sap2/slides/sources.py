"""Keywords for a recording: from a list, a deck of slides, or a manifest that says when which slide was shown."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sap2.errors import InputError
from sap2.prompts import parse_keywords
from sap2.slides.decks import read_deck
from sap2.slides.keywords import DEFAULT_CAP, choose_rarest, read_words, slide_keywords
from sap2.slides.manifest import Entry, read_manifest
from sap2.tables import read_lines
from sap2.text import clean_keywords


@dataclasses.dataclass(frozen=True)
class TimedKeywords:
    """Keywords of what was on screen from ``start`` to ``end`` (seconds; None: to the end of the recording)."""

    start: float
    end: float | None
    keywords: Sequence[str]


@dataclasses.dataclass(frozen=True)
class KeywordOptions:
    """How keywords are taken from slides; see :mod:`sap2.slides.keywords`.

    Attributes:
        max_keywords: cap for a whole deck, or for the slides of one manifest row; the rarest stay; 0 keeps all.
        common_words: a file of words that are no keywords, one a line.
        ocr: of PDF pages without text: auto, never, always.
    """

    max_keywords: int = DEFAULT_CAP
    common_words: str | None = None
    ocr: str = "auto"


def read_keywords(source: str, options: KeywordOptions | None = None) -> list[str]:
    """The keywords of one ``--keywords`` value.

    Args:
        source: a .txt file with a keyword a line, which are taken as they stand; a deck (.pdf, .pptx, .md, pictures or
            a folder of them), of which the keywords are chosen; or the keywords themselves with commas between.

    Raises:
        InputError: no such file, or it cannot be read; names it.
    """
    options = options or KeywordOptions()
    path = Path(source)
    if not path.exists():
        if "," in source:
            return clean_keywords(parse_keywords(source))
        raise InputError(
            f"--keywords {source}: no such file; allowed: .txt with a keyword a line, slides (.pdf, .pptx, pictures), "
            f"or keywords with commas between"
        )
    if path.suffix.lower() == ".txt" and path.is_file():
        return clean_keywords(line for _, line in read_lines(path))
    common = _common_words(options)
    return choose_rarest(slide_keywords(read_deck(path, options.ocr), common), common, options.max_keywords)


def read_slide_times(
    manifest: str, audio: str | os.PathLike[str], deck: str | None, options: KeywordOptions | None = None
) -> list[TimedKeywords]:
    """What was on screen when, from the rows of a manifest (:mod:`sap2.slides.manifest`) that name this recording.

    Args:
        deck: slides of the rows that name none.

    Raises:
        InputError: no row is of this recording, or a row has no slides, or a slide that its deck does not have.
    """
    options = options or KeywordOptions()
    entries = [entry for entry in read_manifest(manifest) if _same_file(entry.audio, audio)]
    if not entries:
        raise InputError(f"{manifest}: no row names the audio {audio}")
    common = _common_words(options)
    decks: dict[str, list[list[str]]] = {}

    def slides_of(path: str) -> list[list[str]]:
        if path not in decks:
            decks[path] = slide_keywords(read_deck(path, options.ocr), common)
        return decks[path]

    return [
        TimedKeywords(
            entry.start or 0.0,
            entry.end,
            choose_rarest(_entry_slides(entry, deck, slides_of), common, options.max_keywords),
        )
        for entry in entries
    ]


def _entry_slides(entry: Entry, deck: str | None, slides_of: Callable[[str], list[list[str]]]) -> list[list[str]]:
    path = str(entry.slides) if entry.slides is not None else deck
    if path is None:
        raise InputError(f"{entry.where}: no slides; name them in the row, or for all rows with --keywords")
    slides = slides_of(path)
    if entry.slide is None:
        return slides
    if entry.slide > len(slides):
        raise InputError(f"{entry.where}: slide {entry.slide} of a deck that has {len(slides)}")
    return [slides[entry.slide - 1]]


def _same_file(first: Path, second: str | os.PathLike[str]) -> bool:
    return first.resolve() == Path(second).resolve()


def _common_words(options: KeywordOptions) -> frozenset[str]:
    return frozenset(read_words(options.common_words)) if options.common_words else frozenset()
