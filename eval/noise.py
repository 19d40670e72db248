"""What noise does to a model: error rates and the spotter's picks over kinds of noise and distances in dB.

    python eval/noise.py UTTERANCES OUTPUT --adapter shipped=sap2-tiny-asr --adapter noisy=runs/noisy/checkpoint-150

Each condition is the same utterances with one kind of noise: a sound at each distance, or an effect. The babble is made
of the other utterances. With each adapter the utterances are transcribed with their own lists as they are (``whole``),
with the spotter's picks of it (``spot``), and with its picks of long lists, which add keywords of the other talks; the
spotter's text is compared with the transcript letter by letter. Rates have 95 % intervals over talks. Adapters named
``noisy.1``, ``noisy.2`` … are seeds of one arm: the table has their mean too, and the differences between arms that are
asked for. A run goes on where it was stopped. Writes OUTPUT/figures.json, table.md and plot.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from noise_arms import parse_differences
from noise_report import CLEAN, Cell, Condition, spelled_errors, write_report

from sap2.audio import load_samples
from sap2.augment.noisy import Disturber
from sap2.augment.options import EFFECTS, SOUNDS, Distance, NoiseOptions, parse_kinds
from sap2.augment.sources import Utterances
from sap2.commands.shared import Parser, positive, run_parser
from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.lengths import SAMPLING_RATE
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import Row

DISTANCES = (20, 10, 5, 0)
KINDS = (*SOUNDS, "room", "telephone", "codec")
LONG = 500
"""Terms of a long list."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared; see the options of the command."""

    utterances: Path
    output: Path
    model: str
    adapters: dict[str, str]
    kinds: tuple[str, ...]
    distances: tuple[int, ...]
    ways: tuple[str, ...]
    per_talk: int
    noise_dir: str | None
    batch_size: int
    differences: tuple[tuple[str, str], ...] = ()
    seed: int = NoiseOptions.seed


def conditions(settings: Settings) -> list[Condition]:
    """Clean first, then each sound at each distance, then the effects."""
    sounds = [kind for kind in settings.kinds if kind in SOUNDS]
    noisy = [Condition(kind, distance) for kind in sounds for distance in settings.distances]
    return [CLEAN, *noisy, *(Condition(kind, None) for kind in settings.kinds if kind in EFFECTS)]


def cells(settings: Settings) -> Iterator[Cell]:
    """All that is decoded, condition by condition."""
    for condition in conditions(settings):
        for way in settings.ways:
            # long lists only without noise and with sounds as loud as people put up with
            if way != "long" or condition == CLEAN or (condition.distance or 0) >= 5:
                for adapter in settings.adapters:
                    yield Cell(condition, adapter, way)


def choose(settings: Settings) -> list[Row]:
    """The utterances, evenly over each talk.

    Raises:
        InputError: they are of one talk.
    """
    talks: dict[str, list[Row]] = {}
    for _, row in read_rows(settings.utterances):
        talks.setdefault(row["session"], []).append(row)
    if len(talks) < 2:
        raise InputError(f"{settings.utterances} holds {len(talks)} talks; allowed: 2 or more")
    count = settings.per_talk
    return [rows[index * len(rows) // count] for rows in talks.values() for index in range(min(count, len(rows)))]


def prepare(settings: Settings) -> list[Row]:
    """Write the audio of every condition that is not there yet, and the rows of own and long lists."""
    rows = choose(settings)
    voices = Utterances(lambda path: load_samples(path, SAMPLING_RATE), [row["audio"] for row in rows])
    pool = sorted({keyword for row in rows for keyword in row["keywords"]})
    for condition in conditions(settings):
        disturb = _disturber(settings, condition, voices)
        folder = settings.output / f"audio.{settings.seed}" / condition.name
        made = [{**row, "audio": str(_noisy_file(folder, row, disturb))} for row in rows]
        write_rows(settings.output / f"{condition.name}.own.jsonl", made)
        write_rows(settings.output / f"{condition.name}.long.jsonl", [_longer(row, pool) for row in made])
    return rows


def _disturber(settings: Settings, condition: Condition, voices: Utterances) -> Disturber | None:
    if condition == CLEAN:
        return None
    distance = Distance(*[float(condition.distance or 0)] * 2)
    options = NoiseOptions(distance, (condition.kind,), 1.0, settings.noise_dir, seed=settings.seed)
    return Disturber(options, SAMPLING_RATE, voices)


def _noisy_file(folder: Path, row: Row, disturb: Disturber | None) -> Path:
    if disturb is None:
        return Path(row["audio"]).absolute()
    import soundfile

    path = (folder / f"{row['id']}.flac").absolute()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as stream:
            soundfile.write(
                stream, disturb(load_samples(row["audio"], SAMPLING_RATE), row["id"]), SAMPLING_RATE, format="FLAC"
            )
    return path


def _longer(row: Row, pool: Sequence[str]) -> Row:
    """The row with keywords of other talks, up to :data:`LONG`, in an order of chance."""
    own = set(row["keywords"])
    others = [keyword for keyword in pool if keyword not in own]
    draw = random.Random(row["id"])
    keywords = [*row["keywords"], *draw.sample(others, min(len(others), max(0, LONG - len(own))))]
    draw.shuffle(keywords)
    return {**row, "keywords": keywords}


def decode(settings: Settings, cell: Cell) -> None:
    """Run one cell through the pipeline, which goes on where it was.

    Raises:
        InputError: a row failed.
    """
    lists = "long" if cell.way == "long" else "own"
    report = run_pipeline(
        PipelineOptions(
            val_dataset=str(settings.output / f"{cell.condition.name}.{lists}.jsonl"),
            result_path=str(settings.output / f"result.{cell.name}.jsonl"),
            model=settings.model,
            asr_adapter=settings.adapters[cell.adapter],
            pruner=None if cell.way == "whole" else "spot",
            batch_size=settings.batch_size,
            max_new_tokens=64,  # the longest sentence has 47 letters
        )
    )
    if report.failed:
        raise InputError(f"{cell.name}: {report.failed} rows failed, see {report.errors}")


def spell(settings: Settings, rows: Sequence[Row]) -> None:
    """Compare what the spotter reads, letter by letter, in the conditions and with the adapters that lack it."""
    for adapter, folder in settings.adapters.items():
        path = settings.output / f"spelled.{adapter}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        names = [condition.name for condition in conditions(settings)]
        missing = [
            name for name in names if not isinstance(known.get(name), dict)
        ]  # once it was a number for all talks
        heard = [(name, [row for _, row in read_rows(settings.output / f"{name}.own.jsonl")]) for name in missing]
        for name, letters in spelled_errors(settings.model, folder, heard, settings.batch_size) if missing else ():
            known[name] = letters
            with atomic_write(path) as stream:
                json.dump(known, stream, indent=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("utterances", type=Path, metavar="UTTERANCES", help="of several talks, with their lists")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for audio, rows, results, table and plot")
    parser.add_argument("--model", default="sap2-tiny", help="default: %(default)s")
    parser.add_argument(
        "--adapter", action="append", metavar="NAME=DIR", help="may be repeated (default: shipped=sap2-tiny-asr)"
    )
    parser.add_argument(
        "--differences",
        nargs="+",
        default=[],
        metavar="A:B",
        help="of arms, as noisy:clean: A less B on the same talks",
    )
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="A,B", help="default: %(default)s")
    parser.add_argument(
        "--distances", type=int, nargs="+", default=list(DISTANCES), metavar="DB", help="default: %(default)s"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--per-talk", type=positive, default=10, metavar="N", help="utterances (default: %(default)s)")
    parser.add_argument("--noise-dir", metavar="DIR", help="recordings of noise, in MUSAN's layout or any other")
    parser.add_argument(
        "--seed", type=int, default=NoiseOptions.seed, metavar="N", help="of the noise (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: %(default)s")


WAYS = ("spot", "whole", "long")


def _adapters(given: Sequence[str] | None) -> dict[str, str]:
    given = given or ["shipped=sap2-tiny-asr"]
    pairs = [text.partition("=") for text in given]
    for text, (name, _, folder) in zip(given, pairs, strict=True):
        if not (name and folder):
            raise InputError(f"--adapter {text!r}; allowed: NAME=DIR")
    return {name: folder for name, _, folder in pairs}


def run(args: argparse.Namespace) -> None:
    """Prepare, decode what is not decoded yet, and report."""
    adapters = _adapters(args.adapter)
    settings = Settings(
        args.utterances,
        args.output,
        args.model,
        adapters,
        parse_kinds(args.kinds, "--kinds"),
        tuple(args.distances),
        tuple(args.ways),
        args.per_talk,
        args.noise_dir,
        args.batch_size,
        parse_differences(args.differences, adapters),
        args.seed,
    )
    settings.output.mkdir(parents=True, exist_ok=True)
    rows = prepare(settings)
    planned = list(cells(settings))
    for cell in planned:
        decode(settings, cell)
    spell(settings, rows)
    write_report(settings.output, planned, rows, settings.differences)
    print((settings.output / "table.md").read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="noise.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
