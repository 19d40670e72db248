"""SlideSpeech (Wang et al. 2024, arXiv 2309.05396) to utterances: cuts its segments to 16 kHz flac and gives each
utterance the keywords of its slide and, with --slides, of the slides around it.

Reads ROOT/SPLIT/segments, text, keywords, wav.scp (or a folder of recordings) and utt2spk; see docs/data.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sap2.audio import AUDIO_SUFFIXES, audio_exists
from sap2.audio_urls import is_there
from sap2.commands.shared import check_output, positive, print_report
from sap2.data.cutting import Cut, cut_all
from sap2.data.transcoded import by_quality, same_recording, transcoded
from sap2.data.utterances import Utterance
from sap2.errors import InputError, list_some
from sap2.rowfiles import write_rows
from sap2.rows import Row, is_url
from sap2.slides.decks import is_junk
from sap2.slides.neighbours import keywords_around, place_slides
from sap2.spelling import CASES, apply_case
from sap2.tables import Entry, Segment, read_keywords, read_segments, read_table
from sap2.text import clean_keywords, clean_text

KEYWORD_FILES = ("keywords", "hot_related/ocr_1gram_top50_mmr070_hotwords_list", "ocr")
"""Names of the keywords file: ours, and those of the published files."""
SESSION_FILES = ("utt2session", "wav2session", "utt2spk")
SPLIT_FOLDERS = {"L95": ("train_L95", "L95", "train_l95"), "S95": ("train_S95", "S95", "train_s95")}


@dataclasses.dataclass(frozen=True)
class SlideSpeechOptions:
    """Options of :func:`convert_slidespeech`.

    Attributes:
        slides: how many slides' keywords an utterance gets: its own, then the nearest in time.
        subset: a file whose lines begin with the ids to keep (such as the ``text`` of S95).
        keywords: the keywords file, where it has another name or place.
        wav_dir: the folder of recordings, where there is no ``wav.scp``.
        case: ``lower`` (as the released SAP² data) or ``keep``, of transcripts and keywords.
        max_seconds: leave out longer utterances, and count them; 0 keeps all.
        lenient: leave out, and count, utterances that lack a transcript or whose audio is missing or unreadable
            (videos vanish), and take a missing line of keywords as none.
        workers: processes that cut audio.
    """

    slides: int = 1
    subset: str | None = None
    keywords: str | None = None
    wav_dir: str | None = None
    case: str = "lower"
    max_seconds: float = 0.0
    lenient: bool = False
    workers: int = 1


@dataclasses.dataclass
class ConvertReport:
    """What a conversion did; ``left_out`` counts utterances by reason."""

    utterances: int = 0
    cut: int = 0
    kept: int = 0
    no_keywords: int = 0
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        reasons = "".join(f"; left out, {reason}: {n}" for reason, n in self.left_out.items() if n)
        return (
            f"{self.utterances} utterances, {self.cut} audio files cut, {self.kept} there already; "
            f"without keywords: {self.no_keywords}{reasons}"
        )


def find_split(root: str | os.PathLike[str], split: str) -> Path:
    """The folder of a split.

    Raises:
        InputError: there is none; the message lists the folders that are there.
    """
    root = Path(root)
    for name in SPLIT_FOLDERS.get(split, (split,)):
        if (root / name).is_dir():
            return root / name
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise InputError(f"{root}: no split {split!r}; folders there: {', '.join(there) or 'none'}")


def _first_file(folder: Path, names: Iterable[str], what: str) -> Path:
    names = list(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: no {what} ({' or '.join(names)})")


def find_recordings(folder: Path, wav_dir: str | None = None) -> dict[str, str]:
    """Paths of the recordings by name, from ``wav.scp`` or from a folder of recordings and its subfolders.

    Paths in ``wav.scp`` are relative to its folder, to the folder above, or to where the command runs. Addresses
    (``s3://…``) stay as they are.

    Raises:
        InputError: an entry is a pipe, a name stands for two files, or there is neither.
    """
    if wav_dir is None and (folder / "wav.scp").is_file():
        return {name: _scp_path(folder, entry) for name, entry in read_table(folder / "wav.scp", required=True).items()}
    audio = Path(wav_dir) if wav_dir is not None else folder / "wav"
    if not audio.is_dir():
        raise InputError(f"{folder}: neither wav.scp nor a folder of recordings ({audio}); --wav-dir names one")
    found: dict[str, Path] = {}
    for path in sorted(
        path for path in audio.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and not is_junk(path)
    ):
        other = found.get(path.stem)
        if other is not None and not same_recording(other, path):
            raise InputError(f"{path}: a second recording named {path.stem!r}, after {other}")
        # of a video and its sound beside it, or a transcoded copy, the one without loss
        found[path.stem] = path if other is None else min(other, path, key=by_quality)
    return {name: str(path) for name, path in found.items()}


def _scp_path(folder: Path, entry: Entry) -> str:
    value = entry.value
    # a pipe would be a command run out of a data file
    if value.endswith("|"):
        raise InputError(f"{entry.where}: {value!r:.80} is a pipe; a path of an audio file or of an archive is needed")
    if is_url(value):
        return value
    places = [Path(value)] if Path(value).is_absolute() else [folder / value, folder.parent / value, Path(value)]
    found = next((place for place in places if audio_exists(place)), None)
    return str(found or next(filter(None, map(transcoded, places)), places[0]))


def convert_slidespeech(
    root: str | os.PathLike[str],
    split: str,
    output: str | os.PathLike[str],
    audio_dir: str | os.PathLike[str],
    options: SlideSpeechOptions | None = None,
) -> ConvertReport:
    """Cut the segments of a split into ``audio_dir`` and write its utterances to ``output``.

    A second run cuts only what is missing.

    Raises:
        InputError: a file cannot be taken apart, or files do not belong together; the message names file and line,
            or the ids.
    """
    options = options or SlideSpeechOptions()
    if options.slides < 1:
        raise InputError(f"slides must be 1 or more, not {options.slides}")
    report = ConvertReport()
    folder = find_split(root, split)
    tables = _read_tables(folder, options)
    recordings = find_recordings(folder, options.wav_dir)
    segments = _usable(tables, recordings, options, report)
    cuts = {s.utterance: _cut_of(s, recordings[s.recording], Path(audio_dir)) for s in segments}
    done = cut_all(cuts.values(), options.workers)
    report.cut, report.kept = done.made, done.kept
    _check_cuts(segments, cuts, done.failures, options, report)
    audios = {name: cut.target for name, cut in cuts.items() if cut.target not in done.failures}
    write_rows(output, _utterances(tables, audios, options, report))
    return report


class Tables(NamedTuple):
    """The files of a split: segments in the file's order, the others by utterance."""

    segments: list[Segment]
    texts: dict[str, Entry]
    keywords: dict[str, list[str]]
    sessions: dict[str, str]


def _read_tables(folder: Path, options: SlideSpeechOptions) -> Tables:
    segments = read_segments(_first_file(folder, ["segments"], "segments file"))
    texts = read_table(_first_file(folder, ["text"], "transcripts"))
    keywords = read_keywords(options.keywords or _first_file(folder, KEYWORD_FILES, "keywords file"))
    names = {segment.utterance for segment in segments}
    if options.subset:
        wanted = set(read_table(options.subset))
        _refuse(sorted(wanted - names), f"{options.subset}: ids that {folder / 'segments'} lacks")
        segments = [segment for segment in segments if segment.utterance in wanted]
    elif not options.lenient:
        _refuse([name for name in texts if name not in names], f"{folder / 'text'}: ids that segments lacks")
        _refuse([name for name in keywords if name not in names], f"{folder}: ids with keywords that segments lacks")
    if not options.lenient:
        _refuse([s.utterance for s in segments if s.utterance not in keywords], f"{folder}: ids without keywords")
    session_file = next((folder / name for name in SESSION_FILES if (folder / name).is_file()), None)
    sessions = read_table(session_file, required=True) if session_file else {}
    return Tables(segments, texts, keywords, {name: entry.value for name, entry in sessions.items()})


def _utterances(
    tables: Tables, audios: dict[str, str], options: SlideSpeechOptions, report: ConvertReport
) -> Iterator[Row]:
    """The utterances that have an audio; the slides around them are those of all segments."""
    slides, numbers = place_slides(tables.segments, {s.utterance: [] for s in tables.segments} | tables.keywords)
    for segment in tables.segments:
        name = segment.utterance
        if name not in audios:
            continue
        context = keywords_around(slides[segment.recording], numbers[name], options.slides)
        report.utterances += 1
        report.no_keywords += not context
        yield Utterance(
            id=name,
            audio=audios[name],
            text=apply_case(clean_text(tables.texts[name].value), options.case),
            keywords=tuple(clean_keywords(apply_case(keyword, options.case) for keyword in context)),
            recording=segment.recording,
            start=segment.start,
            end=segment.end,
            session=tables.sessions.get(name, segment.recording),
            slide=numbers[name],
        ).to_record()


def _refuse(ids: list[str], what: str) -> None:
    if ids:
        raise InputError(f"{what}: {list_some(ids)} (--lenient counts them)")


def _usable(
    tables: Tables, recordings: dict[str, str], options: SlideSpeechOptions, report: ConvertReport
) -> list[Segment]:
    """The segments that can become rows; the others are refused, or counted."""

    def problem(segment: Segment) -> str:
        text = tables.texts.get(segment.utterance)
        if text is None or not clean_text(text.value):
            return "no transcript"
        path = recordings.get(segment.recording)
        if path is None or not is_there(path):
            return "no recording"
        return "too long" if 0 < options.max_seconds < segment.end - segment.start else ""

    problems = {segment.utterance: problem(segment) for segment in tables.segments}
    for reason in ("no transcript", "no recording", "too long"):
        ids = [name for name, found in problems.items() if found == reason]
        report.left_out[reason] = len(ids)
        if reason != "too long" and not options.lenient:
            _refuse(ids, reason)
    return [segment for segment in tables.segments if not problems[segment.utterance]]


def _cut_of(segment: Segment, recording: str, audio_dir: Path) -> Cut:
    target = audio_dir / segment.recording / f"{segment.utterance}.flac"
    return Cut(recording, segment.start, segment.end, str(target))


def _check_cuts(
    segments: list[Segment],
    cuts: dict[str, Cut],
    failures: dict[str, str],
    options: SlideSpeechOptions,
    report: ConvertReport,
) -> None:
    report.left_out["unreadable audio"] = len(failures)
    if not failures or options.lenient:
        return
    first = next(segment for segment in segments if cuts[segment.utterance].target in failures)
    reason = failures[cuts[first.utterance].target]
    raise InputError(f"{first.where}: {reason} ({len(failures)} such segments; --lenient leaves them out)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("root", help="folder with the splits")
    parser.add_argument("--split", required=True, help="L95, S95, dev, test, or the name of a folder")
    parser.add_argument("--output", required=True, metavar="FILE", help="utterances, .jsonl or .json")
    parser.add_argument("--audio-dir", required=True, metavar="DIR", help="where the cut audio goes")
    parser.add_argument("--slides", type=positive, default=1, metavar="N", help="slides per utterance: 1, 5, 15, 25, …")
    parser.add_argument("--subset", metavar="FILE", help="only the ids that begin the lines of this file")
    parser.add_argument(
        "--keywords-file", metavar="FILE", help="default: keywords, or the published names, in the split"
    )
    parser.add_argument("--wav-dir", metavar="DIR", help="folder of recordings, where there is no wav.scp")
    parser.add_argument(
        "--case", choices=CASES, default="lower", help="of transcripts and keywords (default: %(default)s)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=0.0, metavar="S", help="leave out and count longer utterances"
    )
    parser.add_argument("--lenient", action="store_true", help="leave out and count utterances that lack something")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: all cores)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    options = SlideSpeechOptions(
        slides=args.slides,
        subset=args.subset,
        keywords=args.keywords_file,
        wav_dir=args.wav_dir,
        case=args.case,
        max_seconds=args.max_seconds,
        lenient=args.lenient,
        workers=args.workers,
    )
    report = convert_slidespeech(args.root, args.split, args.output, args.audio_dir, options)
    print_report(f"{args.output}: {report}", args.output)
