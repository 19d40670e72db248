"""The keywords of a request's slides: of all of them, or of what a manifest says was shown when."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from sap2.errors import InputError
from sap2.serve.decoding import Slide, Upload
from sap2.serve.errors import BAD_REQUEST, ApiError
from sap2.slides.common import common_words
from sap2.slides.keywords import DEFAULT_CAP, choose_rarest
from sap2.slides.manifest import Entry, read_manifest
from sap2.slides.sources import TimedKeywords
from sap2.tables import read_text


@dataclasses.dataclass(frozen=True)
class Deck:
    """The slides of one upload."""

    name: str
    slides: Sequence[Slide]

    def choose(self, language: str, number: int | None = None) -> list[str]:
        """The keywords of the deck, or of one slide, as many as a list may have."""
        slides = self.slides if number is None else [self.slides[number - 1]]
        return choose_rarest([slide.keywords for slide in slides], common_words(language), DEFAULT_CAP)


def times_of(manifest: Upload, audio: str, decks: Sequence[Deck], language: str) -> list[TimedKeywords]:
    """What was on screen when. Names in a manifest name uploads; nothing is opened by them.

    Args:
        audio: name of the recording. Where rows name several recordings, those of this name count.

    Raises:
        ApiError: it cannot be read, or names what was not sent.
    """
    entries = _read(manifest)
    named = {PurePath(entry.audio).name for entry in entries}
    if len(named) > 1:
        entries = [entry for entry in entries if PurePath(entry.audio).name == audio]
    if not entries:
        raise ApiError(BAD_REQUEST, f"{manifest.name}: no row names the audio {audio}", "manifest")
    if not decks:
        raise ApiError(BAD_REQUEST, "a manifest needs slides: send them in the field slides", "slides")
    by_name = {deck.name: deck for deck in decks}
    return [
        TimedKeywords(entry.start or 0.0, entry.end, _deck(entry, by_name, decks).choose(language, entry.slide))
        for entry in entries
    ]


def _read(manifest: Upload) -> list[Entry]:
    try:
        text = read_text(manifest.path)
        first = text.lstrip()[:1]
        head = text.lstrip().partition("\n")[0]
        suffix = ".jsonl" if first == "{" else ".json" if first == "[" else ".tsv" if "\t" in head else ".csv"
        path = Path(manifest.path).with_suffix(suffix)
        path.write_text(text, encoding="utf-8")
        return read_manifest(path)
    except InputError as error:
        shown = str(error).replace(str(Path(manifest.path).with_suffix("")), manifest.name)
        raise ApiError(BAD_REQUEST, shown, "manifest") from None


def _deck(entry: Entry, by_name: Mapping[str, Deck], decks: Sequence[Deck]) -> Deck:
    row = entry.where.rpartition(":")[2]
    name = None if entry.slides is None else PurePath(entry.slides).name
    if name is not None and name not in by_name:
        raise ApiError(BAD_REQUEST, f"manifest:{row}: the slides {name} were not sent", "manifest")
    if name is None and len(decks) > 1:
        raise ApiError(BAD_REQUEST, f"manifest:{row}: which of the {len(decks)} decks of slides? name it", "manifest")
    deck = decks[0] if name is None else by_name[name]
    if entry.slide is not None and entry.slide > len(deck.slides):
        raise ApiError(
            BAD_REQUEST, f"manifest:{row}: slide {entry.slide} of a deck that has {len(deck.slides)}", "manifest"
        )
    return deck
