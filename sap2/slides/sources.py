"""Keywords for a recording: from a list, a deck of slides, or a manifest that says when which slide was shown."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from sap2.errors import InputError, print_note
from sap2.prompts import OTHER_SEPARATORS
from sap2.slides.common import ENGLISH, common_words
from sap2.slides.decks import DECK_SUFFIXES, read_deck
from sap2.slides.keywords import DEFAULT_CAP, choose_rarest, extract_keywords, slide_keywords
from sap2.slides.manifest import Entry, read_manifest
from sap2.tables import read_keyword_list, read_text
from sap2.text import clean_keywords

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
"""Files that are lists of keywords."""


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
        language: whose common words are no keywords: ``en``, another one (with wordfreq), or ``none``.
        common_words: a file of such words, one a line, instead.
        ocr: see :func:`sap2.slides.decks.read_deck`.
        notes: take the speaker's notes of PPTX slides too.
    """

    max_keywords: int = DEFAULT_CAP
    language: str = ENGLISH
    common_words: str | None = None
    ocr: str = "auto"
    notes: bool = False


def read_keywords(source: str, options: KeywordOptions | None = None) -> list[str]:
    """The keywords of one ``--keywords`` value.

    Args:
        source: a list (.txt, .csv, .tsv; :func:`read_list`); a deck (.pdf, .pptx, .md, pictures or a folder of them),
            of which the keywords are chosen; or the keywords themselves with commas between.

    Raises:
        InputError: no such file, or it cannot be read; names it.
    """
    options = options or KeywordOptions()
    path = Path(source)
    if not source.strip() or not _exists(path):
        if not source.strip() or _means_a_path(source):
            raise InputError(
                f"--keywords {source}: no such file; allowed: .txt with a keyword a line, slides (.pdf, .pptx, "
                f"pictures), or keywords with commas between"
            )
        return clean_keywords(re.split(f"[{OTHER_SEPARATORS}]", source))
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return read_list(path, options)
    common = _common_words(options)
    return choose_rarest(
        slide_keywords(read_deck(path, options.ocr, options.notes), common), common, options.max_keywords
    )


def read_list(path: str | os.PathLike[str], options: KeywordOptions | None = None) -> list[str]:
    """The keywords of a list, as they stand (:func:`sap2.tables.read_keyword_list`).

    A file with form feeds is the text of slides, and so is an entry that is a sentence: of those, keywords are chosen.

    Raises:
        InputError: the file is empty, or it cannot be told where a keyword ends.
    """
    options = options or KeywordOptions()
    if "\f" in read_text(path):
        return extract_keywords(read_text(path).split("\f"), _common_words(options), options.max_keywords)
    entries, divider = read_keyword_list(path)
    if divider is not None:
        print_note(f"{path}: keywords are divided at {divider!r}")
    sentences = [entry for entry in entries if is_sentence(entry)]
    if not sentences:
        return clean_keywords(entries)
    print_note(f"{path}: {len(sentences)} of {len(entries)} entries are sentences, of which the keywords are taken")
    common = _common_words(options)
    found = (extract_keywords([entry], common) if is_sentence(entry) else [entry] for entry in entries)
    return clean_keywords(keyword for keywords in found for keyword in keywords)


def is_sentence(text: str) -> bool:
    """Whether an entry of a list is a sentence and no keyword: many words, or some with a full stop."""
    words = text.split()
    return len(words) > 6 or (len(words) > 3 and text.rstrip().endswith((".", "?", "!", "。")))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False


def _means_a_path(text: str) -> bool:
    """Whether what names no file was meant to: it ends as one does, begins as one does, or its folder is there."""
    path = Path(text)
    known = path.suffix.lower() in (*LIST_SUFFIXES, *DECK_SUFFIXES, ".json", ".jsonl", ".doc", ".docx", ".ppt", ".key")
    begins = text.startswith(("/", "./", "../", "~/", ".\\"))
    return known or begins or ("/" in text and _exists(path.parent))


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
            decks[path] = slide_keywords(read_deck(path, options.ocr, options.notes), common)
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


def _same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    return first == second or Path(first).resolve() == Path(second).resolve()


def _common_words(options: KeywordOptions) -> frozenset[str]:
    return common_words(options.language, options.common_words)
