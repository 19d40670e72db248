"""Your own talks to utterances: a manifest of audio, and keywords from slides or from a list.

The manifest is CSV or JSONL with the columns id, audio and, as far as there are, start, end, text, captions, slides,
slide and session. Recordings with captions (.srt, .vtt) are cut by them, long ones without a text at their pauses.
Slides: .txt, .pdf, .pptx, pictures or a folder of them. See docs/data.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sap2.audio import true_seconds
from sap2.audio_urls import is_there, kept_audio
from sap2.commands.shared import add_slide_options, check_output, count, positive, print_report
from sap2.data.cutting import Cut, cut_all
from sap2.data.recordings import divide_recordings
from sap2.data.utterances import Utterance
from sap2.errors import InputError
from sap2.lengths import MAX_SECONDS
from sap2.progress import progress
from sap2.rowfiles import write_rows
from sap2.rows import Row
from sap2.slides.common import ENGLISH, common_words
from sap2.slides.decks import OCR_MODES, read_deck
from sap2.slides.keywords import DEFAULT_CAP, choose_rarest, slide_keywords
from sap2.slides.manifest import Entry, read_manifest
from sap2.slides.neighbours import nearest_slides
from sap2.slides.sources import read_list
from sap2.spelling import CASES, apply_case
from sap2.text import clean_keywords, clean_text


@dataclasses.dataclass(frozen=True)
class TalkOptions:
    """Options of :func:`convert_talks`.

    Attributes:
        deck: slides of the rows that name none.
        keyword_list: a file of keywords, which are taken as they stand, for all rows, before those of slides.
        slides: with a slide number in a row, take this many slides: its own and the nearest; 0 takes the whole deck.
        language: whose common words are dropped from slides: ``en``, another one (with wordfreq), or ``none``.
        common_words: a file of such words instead.
        max_keywords: cap of the keywords from slides in one row, the rarest stay; 0 keeps all.
        ocr, notes: see :func:`sap2.slides.decks.read_deck`.
        case: ``keep`` or ``lower``, of transcripts and keywords.
        audio_dir: where pieces are cut to; needed when a row has a start or an end.
        max_seconds: longest piece of a recording that is cut by its captions or at its pauses.
        workers: processes that cut audio.
    """

    deck: str | None = None
    keyword_list: str | None = None
    slides: int = 0
    language: str = ENGLISH
    common_words: str | None = None
    max_keywords: int = DEFAULT_CAP
    ocr: str = "auto"
    notes: bool = False
    case: str = "keep"
    audio_dir: str | None = None
    max_seconds: float = MAX_SECONDS
    workers: int = 1


@dataclasses.dataclass
class TalksReport:
    """What a conversion did."""

    utterances: int = 0
    keywords: int = 0
    no_keywords: int = 0
    decks: int = 0
    slides: int = 0
    cut: int = 0
    left_out: int = 0

    def __str__(self) -> str:
        mean = self.keywords / self.utterances if self.utterances else 0.0
        left_out = f" ({self.left_out} pieces too long or too short are left out)" if self.left_out else ""
        return (
            f"{self.utterances} utterances{left_out}, {self.cut} audio files cut; {self.decks} decks, "
            f"{self.slides} slides, {mean:.1f} keywords an utterance, without keywords: {self.no_keywords}"
        )


def convert_talks(
    manifest: str | os.PathLike[str], output: str | os.PathLike[str], options: TalkOptions | None = None
) -> TalksReport:
    """Write the utterances of a manifest to ``output``.

    Raises:
        InputError: the manifest, a deck or an audio file is not what it should be; the message names file and line.
        MissingExtraError: a deck needs a package of the extra ``slides``.
    """
    options = options or TalkOptions()
    division = divide_recordings(read_manifest(manifest), options.max_seconds)
    entries, report = division.entries, TalksReport(left_out=division.left_out)
    common = common_words(options.language, options.common_words)
    listed = read_list(options.keyword_list) if options.keyword_list else []
    decks = _read_decks(entries, options, common, report)
    audios = _audios(entries, options, report)

    def rows() -> Iterator[Row]:
        for entry in entries:
            found = _slide_keywords(entry, decks.get(_deck_of(entry, options)), options, common)
            keywords = clean_keywords(apply_case(keyword, options.case) for keyword in [*listed, *found])
            report.utterances += 1
            report.keywords += len(keywords)
            report.no_keywords += not keywords
            yield Utterance(
                id=entry.id,
                audio=audios[entry.id],
                text=apply_case(clean_text(entry.text), options.case) if entry.text else None,
                keywords=tuple(keywords),
                start=entry.start,
                end=entry.end,
                session=entry.session,
                slide=None if entry.slide is None else entry.slide - 1,
            ).to_record()

    write_rows(output, rows())
    return report


def _deck_of(entry: Entry, options: TalkOptions) -> str | None:
    return str(entry.slides) if entry.slides is not None else options.deck


def _read_decks(
    entries: list[Entry], options: TalkOptions, common: frozenset[str], report: TalksReport
) -> dict[str, list[list[str]]]:
    """The keywords of each slide of each deck that a row names, by the path of the deck."""
    first = {deck: entry.where for entry in reversed(entries) if (deck := _deck_of(entry, options))}
    decks = {}
    for path, where in progress(sorted(first.items()), "reading slides", unit="deck"):
        if not Path(path).exists():
            raise InputError(f"{where}: no slides at {path}")
        decks[path] = slide_keywords(read_deck(path, options.ocr, options.notes), common)
        report.decks += 1
        report.slides += len(decks[path])
    return decks


def _slide_keywords(
    entry: Entry, deck: list[list[str]] | None, options: TalkOptions, common: frozenset[str]
) -> list[str]:
    if deck is None:
        return []
    if entry.slide is not None and entry.slide > len(deck):
        raise InputError(f"{entry.where}: slide {entry.slide} of a deck that has {len(deck)}")
    slides: Sequence[Sequence[str]] = deck
    if options.slides and entry.slide is not None:
        slides = nearest_slides(deck, entry.slide - 1, options.slides)
    return choose_rarest(slides, common, options.max_keywords)


def _audios(entries: list[Entry], options: TalkOptions, report: TalksReport) -> dict[str, str]:
    """The audio of each entry: its own file, or a piece of it that is cut now."""
    missing = [entry for entry in entries if not is_there(entry.audio)]
    if missing:
        raise InputError(f"{missing[0].where}: no audio at {missing[0].audio} ({len(missing)} rows without audio)")
    pieces = [entry for entry in entries if entry.start is not None or entry.end is not None]
    if pieces and options.audio_dir is None:
        raise InputError(f"{pieces[0].where}: a row with start or end is cut, which needs a folder (--audio-dir)")
    cuts = {entry.id: _cut_of(entry, str(options.audio_dir)) for entry in pieces}
    done = cut_all(cuts.values(), options.workers)
    report.cut = done.made
    for entry in pieces:
        if problem := done.failures.get(cuts[entry.id].target):
            raise InputError(f"{entry.where}: {problem} ({len(done.failures)} such rows)")
    return {entry.id: cuts[entry.id].target if entry.id in cuts else str(entry.audio) for entry in entries}


def _cut_of(entry: Entry, audio_dir: str) -> Cut:
    try:
        end = entry.end if entry.end is not None else true_seconds(kept_audio(entry.audio), str(entry.audio))
    except InputError as error:
        raise InputError(f"{entry.where}: {error}") from None
    return Cut(str(entry.audio), entry.start or 0.0, end, str(Path(audio_dir) / f"{entry.id}.flac"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("manifest", help=".csv, .tsv, .jsonl or .json")
    parser.add_argument("--output", required=True, metavar="FILE", help="utterances, .jsonl or .json")
    parser.add_argument("--deck", metavar="PATH", help="slides of the rows that name none")
    parser.add_argument("--keyword-list", metavar="FILE", help="a keyword a line, taken as they stand, for all rows")
    parser.add_argument(
        "--slides", type=count, default=0, metavar="N", help="own slide and nearest, N in all; 0: whole deck"
    )
    add_slide_options(parser)
    parser.add_argument(
        "--max-keywords", type=count, default=DEFAULT_CAP, metavar="N", help="default: %(default)s; 0: all"
    )
    parser.add_argument(
        "--ocr", choices=OCR_MODES, default="auto", help="of PDF pages without text (default: %(default)s)"
    )
    parser.add_argument(
        "--case", choices=CASES, default="keep", help="of transcripts and keywords (default: %(default)s)"
    )
    parser.add_argument("--audio-dir", metavar="DIR", help="where pieces with a start or an end are cut to")
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=MAX_SECONDS,
        metavar="S",
        help="longest piece of a recording that is cut by captions or at pauses (default: %(default)g)",
    )
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: all cores)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    fields = {field.name: getattr(args, field.name) for field in dataclasses.fields(TalkOptions)}
    print_report(f"{args.output}: {convert_talks(args.manifest, args.output, TalkOptions(**fields))}", args.output)
