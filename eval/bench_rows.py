"""Push many rows through every builder; print the time and the peak memory of each.

Writes its utterances and rows to a temporary folder (about 1 GB for a million rows) and removes it.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from children import run_apart

from sap2.commands.shared import Parser, add_normalizer, positive, run_parser
from sap2.data.build_asr import build_asr
from sap2.data.build_joint import build_joint
from sap2.data.build_prune import build_prune
from sap2.data.building import row_random
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.prompts import prune_reply
from sap2.rowfiles import FORMATS, read_rows, write_rows
from sap2.rows import Row
from sap2.text import get_normalizer

VOCABULARY = [
    f"{start}{middle}{end}" for start in "bdfgklmnprst" for middle in ("a", "ei", "or") for end in ("na", "tis", "ven")
]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Seconds and peak memory (bytes) of one step over ``rows`` rows."""

    name: str
    rows: int
    seconds: float
    peak: int


def synthetic_utterances(rows: int, keywords: int) -> Iterator[Row]:
    """Utterances of twelve made-up words with a list of keywords of which some are spoken."""
    for number in range(rows):
        rng = row_random(0, str(number))
        yield {
            "id": f"talk{number // 500:05d}_{number:08d}",
            "audio": f"/corpus/audio/talk{number // 500:05d}/talk{number // 500:05d}_{number:08d}.flac",
            "text": " ".join(rng.choices(VOCABULARY, k=12)),
            "keywords": rng.sample(VOCABULARY, k=min(keywords, len(VOCABULARY))),
        }


def synthetic_results(rows: str | os.PathLike[str]) -> Iterator[Row]:
    """Stage-one results, without ids, that pick the first two keywords of the list."""
    for row in synthetic_source(rows):
        yield {"response": prune_reply(row["keywords"][:2]), "audios": [row["audio"]]}


def synthetic_source(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The utterances of a file, again."""
    return (row for _, row in read_rows(path))


def measure(name: str, rows: int, step: Callable[..., Any], *args: Any) -> Measure:
    """Run a step in a process of its own."""
    seconds, peak = run_apart(_run, step, args)
    return Measure(name, rows, seconds, peak)


def _run(step: Callable[..., Any], args: tuple) -> tuple[float, int]:
    start = time.perf_counter()
    step(*args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return time.perf_counter() - start, peak if sys.platform == "darwin" else peak * 1024


def _read(path: Path) -> None:
    for _ in read_rows(path):
        pass


def bench(rows: int, keywords: int, normalizer: str, format: str) -> list[Measure]:
    """Measure every builder, and reading its output."""
    get_normalizer(normalizer)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        source, predictions = Path(folder, "utterances.jsonl"), Path(folder, "result.jsonl")
        output, stage_two = Path(folder, f"rows.{format}"), Path(folder, f"stage_two.{format}")
        write_rows(source, synthetic_utterances(rows, keywords))
        write_rows(predictions, synthetic_results(source))
        steps = (
            ("build_prune", build_prune, source, output, normalizer),
            ("build_joint", build_joint, source, output, normalizer),
            ("build_asr --keywords all", build_asr, source, stage_two),
            ("build_asr --keywords oracle", _oracle, source, output, normalizer),
            ("build_asr --keywords predicted", _predicted, source, output, predictions),
            ("extract_predicted_keywords", extract_predicted_keywords, predictions, stage_two, output),
            (f"read_rows of .{format}", _read, output),
        )
        for name, step, *args in steps:
            results.append(measure(name, rows, step, *args))
            print(format_line(results[-1]), flush=True)
    return results


def _oracle(source: Path, output: Path, normalizer: str) -> None:
    build_asr(source, output, "oracle", drop=0.1, distractors=3, normalizer=normalizer)


def _predicted(source: Path, output: Path, predictions: Path) -> None:
    build_asr(source, output, "predicted", predictions=predictions)


def format_line(result: Measure) -> str:
    """One line of the table."""
    return (
        f"{result.name:32} {result.rows:>9} rows {result.seconds:8.1f} s {result.rows / result.seconds:>9.0f} rows/s "
        f"{result.peak / 1e6:7.0f} MB peak"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_rows.py", description=__doc__)
    parser.add_argument("--rows", type=positive, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--keywords", type=positive, default=20, help="keywords of each row (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="of the rows (default: %(default)s)")
    add_normalizer(parser)
    parser.set_defaults(run=lambda args: bench(args.rows, args.keywords, args.normalizer, args.format))
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
