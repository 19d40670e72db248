"""Noisy copies of recordings, with the rows or utterances that name them: a test set at a fixed distance, or data to
train on where noise in the data loader (swift sft --sap_noise) is not wanted.

Each row keeps its id and everything else; its audio is a new 16 kHz flac file. What a recording gets depends on the
seed and the id of its row alone. Where there is no noise folder, babble is made of the other recordings of the file.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from sap2.audio import load_samples
from sap2.augment.noisy import Disturber
from sap2.augment.options import DEFAULT_KINDS, KINDS, NoiseOptions, parse_distance, parse_kinds
from sap2.augment.sources import Utterances
from sap2.commands.shared import add_output, check_output, positive, print_report, share
from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.lengths import SAMPLING_RATE
from sap2.progress import progress
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import UTTERANCE_AUDIO, Row, lift_inline_audio, row_audios

_VOICES = 2000
"""Recordings of the file that babble is made of, at most."""
_BLOCK = 256
"""Rows that are held for the workers at a time."""


@dataclasses.dataclass(frozen=True)
class Copier:
    """Makes the noisy copies of a row's audios; goes to the workers.

    Attributes:
        options: what is done.
        folder: where the copies go.
        voices: recordings that babble is made of.
    """

    options: NoiseOptions
    folder: str
    voices: tuple[str, ...]

    def __call__(self, place_and_row: tuple[str, Row]) -> Row:
        """The row with its new audios.

        Raises:
            InputError: it names no audio file, has no id that can be a file's name, or its audio cannot be read.
        """
        where, row = place_and_row
        audios, disturb = row_audios(row), _disturber(self)
        name = str(row.get("id") or "")
        if not audios or not name or not name.isprintable() or "/" in name or name.startswith("."):
            raise InputError(f"{where}: a noisy copy needs an audio file, and an id to be named after; id is {name!r}")
        targets = []
        for number, audio in enumerate(audios):
            target = Path(self.folder).absolute() / (f"{name}.flac" if number == 0 else f"{name}.{number}.flac")
            if target == Path(audio).absolute():
                raise InputError(f"{where}: the copy would replace the recording {audio}; allowed: another --audio-dir")
            with _naming(where):
                samples = load_samples(audio, SAMPLING_RATE)
            _write_flac(target, disturb(samples, name if number == 0 else f"{name}.{number}"))
            targets.append(str(target))
        return _with_audios(row, targets)


@functools.lru_cache(maxsize=1)
def _disturber(copier: Copier) -> Disturber:
    """One in each process."""
    load = functools.partial(load_samples, sampling_rate=SAMPLING_RATE)
    return Disturber(copier.options, SAMPLING_RATE, Utterances(load, copier.voices) if copier.voices else None)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _write_flac(path: Path, samples: object) -> None:
    import soundfile

    content = io.BytesIO()  # where libsndfile writes itself, a full disk shows as a wrong count only
    soundfile.write(content, samples, SAMPLING_RATE, subtype="PCM_16", format="FLAC")
    with atomic_write(path, "wb") as stream:
        stream.write(content.getbuffer())


def _with_audios(row: Row, audios: Sequence[str]) -> Row:
    """The row with other audios, in the same form: an utterance has one ``audio``, a row to train on ``audios``."""
    if not any(name in row for name in ("messages", "conversations", "query", "audios")):
        return {**{name: value for name, value in row.items() if name not in UTTERANCE_AUDIO}, "audio": audios[0]}
    changed = {**row, "audios": list(audios)}
    if isinstance(row.get("messages"), list):
        changed["messages"] = [
            {**turn, "content": lift_inline_audio(turn["content"])[0]} if isinstance(turn.get("content"), str) else turn
            for turn in row["messages"]
        ]
    return changed


def augment(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    audio_dir: str | os.PathLike[str],
    options: NoiseOptions,
    format: str | None = None,
    workers: int = 1,
) -> int:
    """Write a noisy copy of each audio of rows or utterances, and the rows that name the copies; returns their number.

    A copy that is there is made again: it may have had other noise.

    Args:
        source: rows or utterances.
        output: the same with other audio.
        audio_dir: where the copies go.
        workers: processes.

    Raises:
        InputError: a row names no audio file, has no id or one that occurred before, or its audio cannot be read.
    """
    voices = tuple(dict.fromkeys(path for _, row in islice(read_rows(source), _VOICES) for path in row_audios(row)))
    copier = Copier(options, os.fspath(audio_dir), voices)
    _disturber(copier)  # a wrong noise folder is refused before any work
    with _mapper(workers) as mapped:
        return write_rows(output, progress(mapped(copier, _numbered(source)), "adding noise"), format)


def _numbered(source: str | os.PathLike[str]) -> Iterator[tuple[str, Row]]:
    seen: set[str] = set()
    for number, row in read_rows(source):
        name = str(row.get("id"))
        if name in seen:
            raise InputError(f"{source}:{number}: id {name!r} occurs a second time; ids are unique")
        seen.add(name)
        yield f"{source}:{number}", row


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Copier, Iterable[tuple[str, Row]]], Iterator[Row]]]:
    """A function that copies row after row, in their order, in that many processes."""
    if workers == 1:
        yield map
        return
    # spawn: the same on every platform, and no locks of threads inherited
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def mapped(copier: Copier, rows: Iterable[tuple[str, Row]]) -> Iterator[Row]:
            rows = iter(rows)
            while block := list(islice(rows, _BLOCK)):
                yield from pool.map(copier, block, chunksize=max(1, len(block) // (4 * workers)))

        yield mapped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("source", metavar="ROWS", help="rows to train on or to decode, or utterances")
    add_output(parser, "the same rows with noisy audio")
    parser.add_argument("--audio-dir", required=True, metavar="DIR", help="where the noisy audio goes")
    parser.add_argument(
        "--snr", required=True, metavar="LOW:HIGH", help="distance of speech and added sounds in dB; or one number"
    )
    parser.add_argument("--kinds", metavar="A,B", help=f"of {', '.join(KINDS)} (default: all but speed)")
    parser.add_argument("--noise-dir", metavar="DIR", help="recordings of noise, in the layout of MUSAN or any other")
    parser.add_argument(
        "--share", type=share, default=1.0, metavar="P", help="part of the rows that get noise (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    kinds = DEFAULT_KINDS if args.kinds is None else parse_kinds(args.kinds, "--kinds")
    options = NoiseOptions(parse_distance(args.snr, "--snr"), kinds, args.share, args.noise_dir, args.seed)
    count = augment(args.source, args.output, args.audio_dir, options, args.format, args.workers)
    print_report(f"{args.output}: {count} rows with audio in {args.audio_dir}", args.output)
