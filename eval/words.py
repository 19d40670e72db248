"""How exact the times of words are, on synthetic talks whose words have known times.

    sap2 make-talks talks --talks 13 --dev-talks 4 --test-talks 8 --slides 20 --max-seconds 3 --noise 0.3 --seed 61
    python eval/words.py talks --split test

Words that were transcribed as they were said are compared, and beside them the same words spread over their segments by
their letters. Intervals (95 %) are over talks. ``drift`` is the slope of the errors along each recording.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import numpy as np
from word_truth import Talk, interval, match_words, read_talks, transcribe_talks

from sap2 import Transcript
from sap2.commands.shared import Parser, run_parser
from sap2.pipeline.types import Segment

BAR_SECONDS = 0.12
MEASURES: dict[str, Callable[[np.ndarray], float]] = {
    "mean |error| ms": lambda errors: float(np.abs(errors).mean() * 1000),
    "median ms": lambda errors: float(np.median(errors) * 1000),
    "95 % within ms": lambda errors: float(np.quantile(np.abs(errors), 0.95) * 1000),
    "% within 120 ms": lambda errors: float((np.abs(errors) <= BAR_SECONDS).mean() * 100),
}


def spread(segment: Segment) -> list[tuple[float, float]]:
    """Start and end of each word of a segment as its share of the letters."""
    sums = np.cumsum([0, *(len(word.text) + 1 for word in segment.words or [])])
    times = segment.start + (segment.end - segment.start) * sums / max(1, sums[-1])
    return list(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))


def compare(transcript: Transcript, talk: Talk) -> np.ndarray:
    """For each word that was transcribed as it was said: errors of start and end, the same of the words spread, and
    when it was said, (words, 5) in seconds."""
    evenly = [times for segment in transcript.segments for times in spread(segment)]
    rows = [
        (word.start - said.start, word.end - said.end, start - said.start, end - said.end, said.start)
        for (word, said), (start, end) in zip(match_words(transcript, talk.words), evenly, strict=True)
        if said is not None
    ]
    return np.array(rows).reshape(-1, 5)


def drift(errors: np.ndarray) -> float:
    """Milliseconds that the error of the starts grows in a minute of (words, 5) of one talk."""
    slope = np.polyfit(errors[:, 4] / 60, errors[:, 0] * 1000, 1)[0]
    return float(slope)


def table(talks: Sequence[np.ndarray]) -> Iterator[str]:
    """The lines of the report, of each talk's :func:`compare`."""
    yield f"{'':24}" + "".join(f"{name:>26}" for name in MEASURES)
    for column, name in enumerate(("start", "end", "start, spread evenly", "end, spread evenly")):
        values = [errors[:, column] for errors in talks]
        cells = []
        for measure in MEASURES.values():
            low, high = interval(values, measure)
            cells.append(f"{measure(np.concatenate(values)):8.1f} ({low:.1f} to {high:.1f})")
        yield f"{name:24}" + "".join(f"{cell:>26}" for cell in cells)
    slopes = [np.array([drift(errors)]) for errors in talks]
    low, high = interval(slopes, np.mean)
    yield f"drift: {np.mean(slopes):.2f} ms a minute ({low:.2f} to {high:.2f}), mean of the talks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("talks", type=Path, help="folder of sap2 make-talks")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test", help="(default: %(default)s)")
    parser.add_argument("--model", default="sap2-tiny", help="(default: %(default)s)")
    parser.add_argument("--asr-adapter", default="sap2-tiny-asr", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Transcribe, compare, print."""
    talks = read_talks(args.talks, args.split)
    transcripts = transcribe_talks(talks, args.model, args.asr_adapter)
    found = [compare(transcript, talk) for transcript, talk in zip(transcripts, talks, strict=True)]
    said = sum(len(talk.words) for talk in talks)
    minutes = sum(talk.words[-1].end for talk in talks) / 60
    print(
        f"{len(talks)} talks, {minutes:.0f} min; {said} words, of which {sum(map(len, found))} transcribed as they were"
    )
    print("\n".join(table(found)))


if __name__ == "__main__":
    parser = Parser(prog="eval/words.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    sys.exit(run_parser(parser))
