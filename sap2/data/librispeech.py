"""LibriSpeech (openslr 12) to utterances with biasing lists as Le et al. 2021 make them.

SOURCE is the extracted corpus (--split train-clean-100), or with --datasets CONFIG a name or a local copy for
`datasets` (openslr/librispeech_asr, --split train.100). Test lists are read from the published files (--biasing-list);
lists for training and dev are drawn: the rare words of the row and --distractors others.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sap2.commands.shared import check_output, print_report, share
from sap2.data.biasing import (
    COMMON_COUNT,
    derive_common_words,
    draw_biasing_list,
    rare_words,
    read_biasing,
)
from sap2.data.transcoded import transcoded
from sap2.data.utterances import Utterance
from sap2.errors import InputError, list_some
from sap2.files import atomic_write
from sap2.progress import progress
from sap2.rowfiles import write_rows
from sap2.rows import Row
from sap2.slides.common import read_words
from sap2.tables import BiasingEntry, check_id, read_table
from sap2.text import clean_keywords, clean_text

if TYPE_CHECKING:
    import datasets


@dataclasses.dataclass(frozen=True)
class LibriSpeechOptions:
    """Options of :func:`convert_librispeech`.

    Attributes:
        biasing_list: a published test list; without it, lists are drawn with what follows.
        common_words: a file of common words; without it, the most frequent of ``common_from``.
        common_from: splits whose transcripts the common words are counted on; empty takes the split itself.
        common_count: how many of them are common.
        rare_words: a file of words to draw distractors from; without it, the rare words of the same splits.
        distractors: the least and the greatest number of distractors in a list.
        no_true_share: share of lists without any word of the transcript.
        seed: of the draws.
        datasets_config: configuration of ``datasets``; None reads the extracted corpus.
        audio_dir: where audio out of ``datasets`` is written.
    """

    biasing_list: str | None = None
    common_words: str | None = None
    common_from: tuple[str, ...] = ()
    common_count: int = COMMON_COUNT
    rare_words: str | None = None
    distractors: tuple[int, int] = (100, 100)
    no_true_share: float = 0.1
    seed: int = 0
    datasets_config: str | None = None
    audio_dir: str | None = None


@dataclasses.dataclass
class LibriSpeechReport:
    """What a conversion did."""

    utterances: int = 0
    keywords: int = 0
    without_true: int = 0

    def __str__(self) -> str:
        mean = self.keywords / self.utterances if self.utterances else 0.0
        return (
            f"{self.utterances} utterances, {mean:.1f} words a list, lists without a spoken word: {self.without_true}"
        )


class Recording(NamedTuple):
    """One utterance of the corpus; ``audio`` is a path."""

    where: str
    id: str
    text: str
    audio: str


def read_corpus(root: str | os.PathLike[str], split: str) -> Iterator[Recording]:
    """The utterances of an extracted split, in the order of their ids.

    Raises:
        InputError: there is no such split, a line has no transcript, or an audio file is missing.
    """
    for folder in (Path(root) / split, Path(root) / "LibriSpeech" / split):
        if folder.is_dir():
            break
    else:
        raise InputError(f"{root}: no split {split!r}, neither here nor in LibriSpeech/")
    files = sorted(folder.glob("*/*/*.trans.txt"))
    if not files:
        raise InputError(f"{folder}: no SPEAKER/CHAPTER/*.trans.txt below it")
    for path in files:
        for name, entry in read_table(path, required=True).items():
            published = path.parent / f"{name}.flac"
            audio = published if published.is_file() else transcoded(published)
            if audio is None:
                raise InputError(f"{entry.where}: no audio at {published}, nor in another format beside it")
            yield Recording(entry.where, name, entry.value.lower(), str(audio))


def read_datasets(source: str, config: str, split: str, audio_dir: str | os.PathLike[str]) -> Iterator[Recording]:
    """The utterances of a split of ``openslr/librispeech_asr``, by name or from a local copy; audio goes to
    ``audio_dir`` as it is (flac), where it is not there yet.

    Raises:
        InputError: the data set has other columns than LibriSpeech's.
    """
    import datasets

    # undecoded: the bytes are flac already, and decoding would import torch
    rows = _load(source, config, split).cast_column("audio", datasets.Audio(decode=False))
    for number, row in enumerate(rows, 1):
        where = f"{source}:{number}"
        name, text, audio = row.get("id"), row.get("text"), row.get("audio")
        if not isinstance(name, str) or not isinstance(text, str) or not isinstance(audio, dict):
            raise InputError(f"{where}: a LibriSpeech row has id, text and audio, not {', '.join(sorted(row))}")
        check_id(name, where)
        yield Recording(where, name, text.lower(), _keep_audio(audio, name, where, Path(audio_dir)))


def _load(source: str, config: str, split: str) -> datasets.Dataset:
    """A split by name from the hub, from its copy (CONFIG/SPLIT/*.parquet), or from what ``save_to_disk`` wrote."""
    import datasets

    root = Path(source)
    files = sorted(
        str(path) for path in [*root.glob(f"{config}/{split}/*.parquet"), *root.glob(f"{config}/{split}-*.parquet")]
    )
    if (root / "dataset_dict.json").is_file():
        return datasets.load_from_disk(source)[split]
    if (root / "state.json").is_file():
        return datasets.load_from_disk(source)
    if files:
        return datasets.load_dataset("parquet", data_files=files, split="train")
    return datasets.load_dataset(source, config, split=split)


def _keep_audio(audio: Row, name: str, where: str, folder: Path) -> str:
    if not audio.get("bytes"):
        path = audio.get("path")
        if not path or not Path(path).is_file():
            raise InputError(f"{where}: neither the bytes of its audio nor a file at {path!r}")
        return str(path)
    target = folder / f"{name}{Path(audio.get('path') or '.flac').suffix or '.flac'}"
    if not target.is_file() or target.stat().st_size != len(audio["bytes"]):
        with atomic_write(target, "wb") as stream:
            stream.write(audio["bytes"])
    return str(target)


def convert_librispeech(
    source: str, split: str, output: str | os.PathLike[str], options: LibriSpeechOptions | None = None
) -> LibriSpeechReport:
    """Write the utterances of a split, each with its biasing list, to ``output``.

    Raises:
        InputError: the corpus or a list is not what it should be; the message names file and line, or the ids.
    """
    options = options or LibriSpeechOptions()
    report = LibriSpeechReport()
    write_rows(output, _utterances(source, split, options, report))
    return report


def _recordings(source: str, split: str, options: LibriSpeechOptions) -> Iterator[Recording]:
    if options.datasets_config is None:
        return read_corpus(source, split)
    if options.audio_dir is None:
        raise InputError("audio out of datasets needs a folder (--audio-dir)")
    return read_datasets(source, options.datasets_config, split, options.audio_dir)


def _utterances(source: str, split: str, options: LibriSpeechOptions, report: LibriSpeechReport) -> Iterator[Row]:
    published = read_biasing(options.biasing_list) if options.biasing_list else None
    list_of = _published_lists(published, options) if published is not None else _drawn_lists(source, split, options)
    seen: set[str] = set()
    for recording in progress(_recordings(source, split, options), "converting", unit="utterance"):
        if recording.id in seen:
            raise InputError(f"{recording.where}: {recording.id!r} occurs a second time")
        seen.add(recording.id)
        words = list_of(recording)
        report.utterances += 1
        report.keywords += len(words)
        report.without_true += set(words).isdisjoint(recording.text.split())
        yield Utterance(
            id=recording.id,
            audio=recording.audio,
            text=clean_text(recording.text),
            keywords=tuple(clean_keywords(words)),
            session=recording.id.split("-")[0],
        ).to_record()
    absent = sorted(set(published or ()) - seen)
    if absent:
        raise InputError(f"{options.biasing_list}: ids that the corpus lacks: {list_some(absent)}")


ListOf = Callable[[Recording], list[str]]


def _published_lists(published: dict[str, BiasingEntry], options: LibriSpeechOptions) -> ListOf:
    def list_of(recording: Recording) -> list[str]:
        entry = published.get(recording.id)
        if entry is None:
            raise InputError(f"{recording.where}: {recording.id!r} has no line in {options.biasing_list}")
        if entry.text.lower().split() != recording.text.split():
            raise InputError(f"{entry.where}: the text of {recording.id!r} is not that of {recording.where}")
        return entry.words or []

    return list_of


def _drawn_lists(source: str, split: str, options: LibriSpeechOptions) -> ListOf:
    common, pool = _word_lists(source, split, options)

    def list_of(recording: Recording) -> list[str]:
        rare = rare_words(recording.text, common)
        sizes, share = options.distractors, options.no_true_share
        return draw_biasing_list(recording.id, recording.text, rare, pool, sizes, share, options.seed)

    return list_of


def _transcripts(source: str, split: str, options: LibriSpeechOptions) -> Iterator[str]:
    if options.datasets_config is None:
        return (recording.text for recording in read_corpus(source, split))
    return (row["text"].lower() for row in _load(source, options.datasets_config, split).select_columns(["text"]))


def _word_lists(source: str, split: str, options: LibriSpeechOptions) -> tuple[frozenset[str], list[str]]:
    """The common words, and the pool of rare words."""

    def transcripts() -> Iterator[str]:
        for name in options.common_from or (split,):
            yield from progress(_transcripts(source, name, options), f"counting words of {name}", unit="utterance")

    if options.common_words:
        common = frozenset(read_words(options.common_words))
    else:
        common = frozenset(derive_common_words(transcripts(), options.common_count))
    words = (
        read_words(options.rare_words) if options.rare_words else (w for text in transcripts() for w in text.split())
    )
    return common, sorted(set(words) - common)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("source", help="folder of the extracted corpus; with --datasets a name or a local copy")
    parser.add_argument("--split", required=True, help="train-clean-100, dev-other, …; with --datasets train.100, …")
    parser.add_argument("--output", required=True, metavar="FILE", help="utterances, .jsonl or .json")
    parser.add_argument("--datasets", metavar="CONFIG", help="read with `datasets`: clean, other or all")
    parser.add_argument("--audio-dir", metavar="DIR", help="where audio out of `datasets` goes")
    parser.add_argument("--biasing-list", metavar="TSV", help="published test-{clean,other}.biasing_{100,…}.tsv")
    parser.add_argument("--common-words", metavar="FILE", help="common words, one a line (common_words_5k.txt)")
    parser.add_argument(
        "--common-from", nargs="+", default=[], metavar="SPLIT", help="count common words on these splits"
    )
    parser.add_argument("--common-count", type=int, default=COMMON_COUNT, metavar="N", help="default: %(default)s")
    parser.add_argument("--rare-words", metavar="FILE", help="words to draw distractors from (all_rare_words.txt)")
    parser.add_argument(
        "--distractors", type=_range, default=(100, 100), metavar="N|N-M", help="in each list (default: 100)"
    )
    parser.add_argument(
        "--no-true-share",
        type=share,
        default=0.1,
        metavar="P",
        help="share of lists of distractors only (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    if args.common_words and args.common_from:
        raise InputError("--common-words and --common-from are two ways to the same list")
    if args.datasets and not args.audio_dir:
        raise InputError("--datasets needs --audio-dir")
    options = LibriSpeechOptions(
        biasing_list=args.biasing_list,
        common_words=args.common_words,
        common_from=tuple(args.common_from),
        common_count=args.common_count,
        rare_words=args.rare_words,
        distractors=args.distractors,
        no_true_share=args.no_true_share,
        seed=args.seed,
        datasets_config=args.datasets,
        audio_dir=args.audio_dir,
    )
    report = convert_librispeech(args.source, args.split, args.output, options)
    print_report(f"{args.output}: {report}", args.output)


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 50-200")
    return int(low), int(high) if dash else int(low)
