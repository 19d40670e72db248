"""How the detectors of speech cut recordings: speech kept and silence dropped, by share of speech and noise.

    python eval/bench_vad.py
    python eval/bench_vad.py --minutes 10 --volume 0.1

Synthetic talks: sentences in several voices of espeak-ng, spread over the recording, in white or in pink noise or in
digital silence. What is speech is known from the clean voices. ``kept`` is the share of the speech that lies in the
pieces, ``lost`` counts sentences of which less than half does, ``dropped`` is the share of the silence outside of
them; a margin of 0.1 s around each piece is kept on purpose.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from sap2.pipeline.segmentation import Cutting, cut_at_pauses
from sap2.pipeline.voice_activity import DETECTORS, Detector, frame_levels
from sap2.tiny.speech import speak

RATE = 16_000
VOICES = ("en-us", "en-gb-x-rp+f2", "en-us+m3", "en-us+f1")
SENTENCES = (
    "we opened the tattered book and found ten petals on a plate",
    "steve wozniak built it",
    "yes",
    "the machine hears two words and writes them down before you can say a third",
    "that is all for today thank you very much",
    "so what does the second column show",
)
SPEECH_DB = -25.0
"""Level of the loudest tenth of a voice, full scale is 0."""
NOISES = ("none", "white -80", "white -60", "white -45", "white -35", "pink -45", "pink -35")
SHARES = (0.05, 0.2, 0.8)


class Talk(NamedTuple):
    """(samples,), which of them are speech, and where each sentence is."""

    samples: np.ndarray
    speech: np.ndarray
    sentences: list[tuple[int, int]]


class Result(NamedTuple):
    """What a detector made of a talk."""

    kept: float
    lost: int
    dropped: float
    seconds: float


def make_talk(minutes: float, share: float, noise: str, volume: float = 1.0, seed: int = 0) -> Talk:
    """A talk with that share of speech; ``noise`` is one of :data:`NOISES`."""
    rng = np.random.default_rng(seed)
    length = round(minutes * 60 * RATE)
    voices = list(itertools.islice(_spoken(rng), max(1, round(length * share / RATE / 2.2))))
    while sum(map(len, voices)) > 0.95 * length:
        voices.pop()
    gaps = rng.dirichlet(np.full(len(voices) + 1, 2.0)) * (length - sum(map(len, voices)))
    samples, speech, sentences, position = np.zeros(length), np.zeros(length, bool), [], 0
    for voice, gap in zip(voices, gaps, strict=False):
        position += int(gap)
        end = position + len(voice)
        samples[position:end] = voice
        speech[position:end] = _voiced(voice)
        sentences.append((position, end))
        position = end
    samples = (samples + _noise(noise, length, rng)) * volume
    return Talk(samples.clip(-1, 1).astype(np.float32), speech, sentences)


def _spoken(rng: np.random.Generator) -> Iterator[np.ndarray]:
    for number in itertools.count():
        voice = speak(SENTENCES[rng.integers(len(SENTENCES))], VOICES[number % len(VOICES)])
        level = np.percentile(frame_levels(voice, RATE // 100), 90)
        yield voice * 10 ** ((SPEECH_DB - level) / 20)


def _voiced(voice: np.ndarray) -> np.ndarray:
    """Where a clean voice is within 35 dB of its loudest; pauses of up to 0.2 s within are speech too."""
    levels = frame_levels(voice, RATE // 100)
    frames = np.flatnonzero(levels > levels.max() - 35)
    speech = np.zeros(len(voice), bool)
    for first, after in itertools.pairwise([*frames, frames[-1] + 1]):
        if after - first <= 20:
            speech[first * RATE // 100 : after * RATE // 100] = True
    return speech


def _noise(name: str, length: int, rng: np.random.Generator) -> np.ndarray:
    if name == "none":
        return np.zeros(length)
    colour, level = name.split()
    noise = rng.normal(size=length)
    if colour == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), length)
    return noise / noise.std() * 10 ** (float(level) / 20)


def measure(talk: Talk, detect: Detector) -> Result:
    """Cut a talk and compare with what is known."""
    start = time.perf_counter()
    pieces = cut_at_pauses(talk.samples, RATE, Cutting(30), detect)
    seconds = time.perf_counter() - start
    inside = np.zeros(len(talk.samples), bool)
    for first, last in pieces:
        inside[first:last] = True
    halves = [inside[first:last][talk.speech[first:last]].mean() < 0.5 for first, last in talk.sentences]
    return Result(inside[talk.speech].mean(), sum(halves), 1 - inside[~talk.speech].mean(), seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of a talk (default: %(default)s)")
    parser.add_argument("--volume", type=float, default=1.0, help="factor for all samples (default: %(default)s)")
    args = parser.parse_args(argv)
    heads = "".join(f" | {name:>7} kept   lost  dropped" for name in DETECTORS)
    print(f"{'speech':>6}  {'noise dB':<10}{heads}")
    seconds = dict.fromkeys(DETECTORS, 0.0)
    for share, noise in itertools.product(SHARES, NOISES):
        talk = make_talk(args.minutes, share, noise, args.volume)
        cells = []
        for name, detect in DETECTORS.items():
            result = measure(talk, detect)
            seconds[name] += result.seconds
            lost = f"{result.lost}/{len(talk.sentences)}"
            cells.append(f" | {result.kept:12.1%} {lost:>6} {result.dropped:8.1%}")
        print(f"{share:6.0%}  {noise:<10}{''.join(cells)}", flush=True)
    hours = args.minutes / 60 * len(SHARES) * len(NOISES)
    print("seconds for an hour: " + ", ".join(f"{name} {value / hours:.1f}" for name, value in seconds.items()))


if __name__ == "__main__":
    main()
