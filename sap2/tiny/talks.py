"""A corpus of synthetic talks in SlideSpeech's own layout, spoken by espeak-ng.

``wav/TALK.wav`` holds the recordings (16 kHz, mono, 16 bit), ``talks.json`` everything known about them, and each of
``train/``, ``dev/``, ``test/`` six files, sorted by their first column, five of them as Kaldi has them:

=============  =====================================================================================
``segments``   utterance, recording, start and end in seconds
``text``       utterance, words in lower case without punctuation
``keywords``   utterance, keywords of the slide shown meanwhile, joined by ``$`` (most are not spoken)
``wav.scp``    recording, path of its file relative to the folder of this list
``utt2spk``    utterance, talk
``words.ctm``  recording, channel (1), start and length in seconds, word: when each word is said
=============  =====================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from sap2.augment.sounds import BLOCK, pink_noise
from sap2.augment.sources import clips, make_sound
from sap2.errors import InputError
from sap2.files import atomic_folder, atomic_write
from sap2.progress import Progress
from sap2.tables import TimedWord
from sap2.tiny.plan import DEFAULT_VOICES, SPLITS, Talk, TalksOptions, plan_talks
from sap2.tiny.sentences import make_sentence
from sap2.tiny.speech import MAX_RATE, SAMPLE_RATE, Speech, speak, speak_words

FORMAT_VERSION = 1
MARKER = "talks.json"
KEYWORD_SEPARATOR = "$"
"""Between the keywords of an utterance, as in SlideSpeech's own files."""
GRID = SAMPLE_RATE // 100
"""Utterances begin and end on multiples of 10 ms, which is what the two decimals in ``segments`` can say."""
MARGIN_SECONDS = 0.1
"""Silence that a segment keeps before and after the words."""
SPEECH_LEVEL = 0.06
"""Root mean square of the speech of a talk; full scale is 1."""
_VOICES = 48
"""Sentences that the babble of a talk is made of."""


@dataclass
class Segment:
    """One utterance in its recording. Times in seconds; ``slide`` is the 0-based slide shown meanwhile."""

    id: str
    start: float
    end: float
    text: str
    slide: int
    words: list[TimedWord] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """All but the words, which have a file of their own."""
        return {name: value for name, value in vars(self).items() if name != "words"}


def make_talks(folder: str | os.PathLike[str], options: TalksOptions | None = None, overwrite: bool = False) -> Path:
    """Write a corpus of talks to ``folder``; the same options give the same bytes.

    Raises:
        InputError: an option is out of range, a voice is unknown, or the folder holds something.
    """
    options = options or TalksOptions()
    with atomic_folder(folder, MARKER, overwrite) as new:
        for voice in options.voices:
            speak("test", voice)  # an unknown voice is refused before the work, not in the middle of it
        talks = plan_talks(options)
        total = sum(len(slide.sentences) for talk in talks for slide in talk.slides)
        facts = []
        with Progress("speaking", total, "utterance") as bar:
            for talk in talks:
                facts.append(_write_recording(new, talk, options, bar))
        for split in SPLITS:
            _write_split(new / split, [fact for fact in facts if fact["split"] == split])
        _write_facts(new / MARKER, options, facts)
    return Path(folder)


def _write_recording(folder: Path, talk: Talk, options: TalksOptions, bar: Progress) -> dict[str, Any]:
    """Speak a talk, write its recording, and return what is known about it."""
    import soundfile

    rng = np.random.default_rng([options.seed, *talk.id.encode()])
    samples, segments = render_talk(talk, options, rng, bar)
    samples *= SPEECH_LEVEL / max(_speech_rms(samples, segments), 1e-6)
    snr = _add_noise(samples, rng) if rng.random() < options.noise else None
    if options.snr is not None:
        snr = _add_sound(samples, options, rng)
    samples *= min(1.0, 0.99 / np.abs(samples).max())
    path = folder / "wav" / f"{talk.id}.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return {
        "id": talk.id,
        "split": talk.split,
        "voice": talk.voice,
        "rate": talk.rate,
        "pitch": talk.pitch,
        "snr_db": snr,
        "seconds": len(samples) / SAMPLE_RATE,
        "homophones": talk.homophones,
        "slides": _slide_facts(talk, segments, len(samples) / SAMPLE_RATE),
        "segments": [segment.facts() for segment in segments],
        "words": [word for segment in segments for word in segment.words],
    }


def render_talk(
    talk: Talk, options: TalksOptions, rng: np.random.Generator, bar: Progress
) -> tuple[np.ndarray, list[Segment]]:
    """The recording of a talk, (N,) float32 at 16 kHz, and where each utterance lies in it."""
    pieces = [_silence(rng)]
    position = len(pieces[0])
    margin = round(MARGIN_SECONDS * SAMPLE_RATE)
    segments = []
    for index, (slide, sentence) in enumerate(_sentences(talk)):
        samples, words = _speak_within(sentence, talk, options.max_seconds, rng)
        start, end = position - margin, position + len(samples) + margin
        times = (start / SAMPLE_RATE, end / SAMPLE_RATE)
        said = [word.later(position / SAMPLE_RATE) for word in words]
        segments.append(Segment(f"{talk.id}_{index + 1:05d}", *times, sentence, slide, said))
        pieces += [samples, _silence(rng)]
        position += len(pieces[-2]) + len(pieces[-1])
        bar.update()
    return np.concatenate(pieces), segments


def _sentences(talk: Talk) -> Iterator[tuple[int, str]]:
    for number, slide in enumerate(talk.slides):
        for sentence in slide.sentences:
            yield number, sentence


def _speak_within(text: str, talk: Talk, max_seconds: float, rng: np.random.Generator) -> Speech:
    """Speak at the talk's speed, or faster where it would be too long. The length is a multiple of the grid."""
    rate = talk.rate + int(rng.integers(-8, 9))
    limit = (max_seconds - 2 * MARGIN_SECONDS) * SAMPLE_RATE
    while True:
        samples, words = speak_words(text, talk.voice, rate, talk.pitch)
        padding = -len(samples) % GRID
        if len(samples) + padding <= limit:
            return Speech(np.pad(samples, (0, padding)), words)
        if rate == MAX_RATE:
            raise InputError(f"{text!r} is longer than {max_seconds} s even at {rate} words per minute")
        rate = min(MAX_RATE, rate + 25)


def _silence(rng: np.random.Generator) -> np.ndarray:
    """A pause of 0.4 to 0.9 s, on the grid."""
    return np.zeros(int(rng.integers(40, 91)) * GRID, np.float32)


def _speech_rms(samples: np.ndarray, segments: list[Segment]) -> float:
    parts = [samples[round(s.start * SAMPLE_RATE) : round(s.end * SAMPLE_RATE)] for s in segments]
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def _add_noise(samples: np.ndarray, rng: np.random.Generator) -> float:
    """Add pink noise in place; returns its distance from the speech in dB."""
    snr = float(rng.integers(15, 31))
    noise = np.concatenate([pink_noise(rng) for _ in range(0, len(samples), BLOCK)])[: len(samples)]
    samples += noise * (SPEECH_LEVEL * 10 ** (-snr / 20))
    return snr


def _add_sound(samples: np.ndarray, options: TalksOptions, rng: np.random.Generator) -> float:
    """Add a sound in place, at the ratio that is asked for; returns the ratio."""
    assert options.snr is not None

    def voice(draw: np.random.Generator) -> np.ndarray:
        sentence = make_sentence(random.Random(int(draw.integers(1 << 32))), [])
        return speak(sentence, options.voices[draw.integers(len(options.voices))])

    voices = clips(voice, _VOICES, rng) if options.noise_kind == "babble" else None
    sound = make_sound(options.noise_kind, len(samples), SAMPLE_RATE, rng, None, voices)
    samples += sound * np.float32(SPEECH_LEVEL * 10 ** (-options.snr / 20))
    return options.snr


def _slide_facts(talk: Talk, segments: list[Segment], seconds: float) -> list[dict[str, Any]]:
    """Each slide is shown from just before its first utterance until the next one is shown."""
    starts = [next(s.start for s in segments if s.slide == number) for number in range(len(talk.slides))]
    starts[0] = 0.0
    ends = [*starts[1:], seconds]
    return [
        {"start": start, "end": end, "keywords": slide.keywords}
        for start, end, slide in zip(starts, ends, talk.slides, strict=True)
    ]


def _write_split(folder: Path, facts: list[dict[str, Any]]) -> None:
    lines: dict[str, list[str]] = {name: [] for name in ("segments", "text", "keywords", "wav.scp", "utt2spk")}
    for talk in facts:
        lines["wav.scp"].append(f"{talk['id']} ../wav/{talk['id']}.wav")
        for segment in talk["segments"]:
            utterance = segment["id"]
            keywords = KEYWORD_SEPARATOR.join(talk["slides"][segment["slide"]]["keywords"])
            lines["segments"].append(f"{utterance} {talk['id']} {segment['start']:.2f} {segment['end']:.2f}")
            lines["text"].append(f"{utterance} {segment['text']}")
            lines["keywords"].append(f"{utterance} {keywords}")
            lines["utt2spk"].append(f"{utterance} {talk['id']}")
    for name, content in lines.items():
        with atomic_write(folder / name) as stream:
            stream.writelines(f"{line}\n" for line in sorted(content))
    with atomic_write(folder / "words.ctm") as stream:
        for talk in facts:
            for word in talk["words"]:
                stream.write(f"{talk['id']} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text}\n")


def _write_facts(path: Path, options: TalksOptions, facts: list[dict[str, Any]]) -> None:
    with atomic_write(path) as stream:
        document = {
            "version": FORMAT_VERSION,
            "options": options.as_dict(),
            "talks": [{name: fact[name] for name in fact if name != "words"} for fact in facts],
        }
        json.dump(document, stream, ensure_ascii=False, indent=1)
        stream.write("\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sap2 make-talks``: one for each field of :class:`TalksOptions`."""
    parser.add_argument("folder", metavar="DIR", help="the folder to make")
    kinds = get_type_hints(TalksOptions)
    for option in fields(TalksOptions):
        flag, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if option.name == "voices":
            default = f"{DEFAULT_VOICES[0]} to {DEFAULT_VOICES[-1]}"
            parser.add_argument(flag, metavar="A,B", help=f"{text}, commas between (default: {default})")
        elif "choices" in option.metadata:
            parser.add_argument(
                flag, choices=option.metadata["choices"], default=option.default, help=text + " (default: %(default)s)"
            )
        elif kinds[option.name] is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            kind = float if kinds[option.name] in (float, float | None) else int
            shown = "" if option.default is None else " (default: %(default)s)"
            parser.add_argument(
                flag, type=kind, default=option.default, metavar="N" if kind is int else "X", help=text + shown
            )
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it holds talks")


def run(args: argparse.Namespace) -> None:
    """``sap2 make-talks``."""
    values = {option.name: getattr(args, option.name) for option in fields(TalksOptions)}
    values["voices"] = DEFAULT_VOICES if args.voices is None else tuple(args.voices.split(","))
    folder = make_talks(args.folder, TalksOptions(**values), args.overwrite)
    with (folder / MARKER).open(encoding="utf-8") as stream:
        talks = json.load(stream)["talks"]
    for split in SPLITS:
        part = [talk for talk in talks if talk["split"] == split]
        utterances = sum(len(talk["segments"]) for talk in part)
        minutes = sum(talk["seconds"] for talk in part) / 60
        print(f"{folder / split}: {len(part)} talks, {utterances} utterances, {minutes:.1f} min")
