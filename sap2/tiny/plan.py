"""What is said in the synthetic talks: slides, their keywords and the sentences, before any sound is made."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, fields
from typing import Any

from sap2.augment.options import LEAST_SNR, MOST_SNR, SOUNDS
from sap2.errors import InputError
from sap2.tiny.names import NameMaker
from sap2.tiny.sentences import common_words, make_sentence

SPLITS = ("train", "dev", "test")
ACCENTS = ("en-us", "en-gb-x-rp")
VARIANTS = tuple(f"f{i}" for i in range(1, 5)) + tuple(f"m{i}" for i in range(1, 9))
DEFAULT_VOICES = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in VARIANTS)
REPEATED = 0.2
"""Share of a slide's names that an earlier slide of the talk has shown already."""
MAX_SECONDS = 30
"""What Qwen2-Audio hears; the tiny model hears 8 s."""


@dataclass(frozen=True)
class TalksOptions:
    """Size and difficulty of a corpus. Shares are in [0, 1].

    Raises:
        InputError: a number is out of range; the message names it.
    """

    talks: int = field(default=12, metadata={"help": "talks in all splits together"})
    dev_talks: int | None = field(
        default=None, metadata={"help": "talks of the dev split; default: a tenth, at least 1"}
    )
    test_talks: int | None = field(
        default=None, metadata={"help": "talks of the test split; default: a sixth, at least 1"}
    )
    slides: int = field(default=6, metadata={"help": "slides per talk"})
    utterances: int = field(default=5, metadata={"help": "utterances per slide"})
    keywords: int = field(default=8, metadata={"help": "keywords per slide"})
    homophones: float = field(
        default=0.3, metadata={"help": "share of the names that have a twin of the same sound in another talk"}
    )
    near: float = field(
        default=0.25, metadata={"help": "share of a slide's keywords that nearly sound like a spoken one"}
    )
    plain: float = field(default=0.25, metadata={"help": "share of the utterances that hold no keyword"})
    noise: float = field(default=0.0, metadata={"help": "share of the talks with background noise, 15 to 30 dB below"})
    snr: float | None = field(
        default=None, metadata={"help": "speech-to-noise ratio in dB of all talks, for test sets; instead of --noise"}
    )
    noise_kind: str = field(default="noise", metadata={"help": "what is heard at that ratio", "choices": SOUNDS})
    shared_names: bool = field(
        default=False, metadata={"help": "dev and test talks use names of the training talks instead of unheard ones"}
    )
    max_seconds: float = field(default=4.0, metadata={"help": "longest utterance; a longer one is spoken faster"})
    voices: tuple[str, ...] = field(default=DEFAULT_VOICES, metadata={"help": "voices of espeak-ng, one per talk"})
    seed: int = field(default=0, metadata={"help": "seed of everything else"})
    vocabulary_seed: int | None = field(default=None, metadata={"help": "seed of the names; default: the seed"})

    def __post_init__(self) -> None:
        for name, share in (("dev_talks", 1 / 10), ("test_talks", 1 / 6)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, max(1, round(self.talks * share)))
        self._at_least(1, "slides", "utterances", "keywords", "talks")
        self._at_least(0, "dev_talks", "test_talks", "seed")
        if self.vocabulary_seed is not None:
            self._at_least(0, "vocabulary_seed")
        for name in ("homophones", "near", "plain", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")
        if self.noise_kind not in SOUNDS:
            raise InputError(f"noise_kind is {self.noise_kind!r}; allowed: {', '.join(SOUNDS)}")
        if self.snr is not None and self.noise:
            raise InputError(
                f"snr {self.snr:g} is for all talks, and noise {self.noise:g} for some; allowed: one of them"
            )
        if self.snr is not None and not LEAST_SNR <= self.snr <= MOST_SNR:
            raise InputError(f"snr is {self.snr:g}; allowed: {LEAST_SNR:g} to {MOST_SNR:g} dB")
        if self.dev_talks + self.test_talks >= self.talks:
            raise InputError(
                f"talks is {self.talks}, with {self.dev_talks} for dev and {self.test_talks} for test none is left "
                f"for training; allowed: more than {self.dev_talks + self.test_talks}"
            )
        if not self.voices:
            raise InputError("voices is empty; give at least one, such as en-us")
        if not 2 <= self.max_seconds <= MAX_SECONDS:
            raise InputError(f"max_seconds is {self.max_seconds}; allowed: 2 to {MAX_SECONDS}")

    def _at_least(self, minimum: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < minimum:
                raise InputError(f"{name} is {getattr(self, name)}; allowed: {minimum} or more")

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file; without what only noisy talks have."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        if self.snr is None:
            del values["snr"], values["noise_kind"]
        return values


@dataclass
class Slide:
    """Keywords as the slide lists them, and what is said while it is shown."""

    keywords: list[str]
    sentences: list[str]


@dataclass
class Talk:
    """One recording: its slides and how it is spoken."""

    id: str
    split: str
    voice: str
    rate: int
    pitch: int
    slides: list[Slide]
    homophones: dict[str, str]
    """Names of this talk → their other spelling, which another talk uses."""


def plan_talks(options: TalksOptions) -> list[Talk]:
    """All talks of a corpus, the training talks first."""
    seed = options.seed if options.vocabulary_seed is None else options.vocabulary_seed
    accents = sorted({voice.partition("+")[0] for voice in options.voices})
    maker = NameMaker(random.Random(f"names {seed}"), accents, common_words())
    # all names first: they depend on their own seed alone, and not on what is said with them
    vocabularies = _deal_names(options, maker)
    numbers = range(1, options.talks + 1)
    return [
        _plan_talk(f"talk{number:04d}", split, vocabulary, options, maker)
        for number, (split, vocabulary) in zip(numbers, vocabularies, strict=True)
    ]


Vocabulary = dict[str, str | None]
"""Names of a talk → the other spelling of a homophone, None of any other name."""


def _names_per_slide(options: TalksOptions) -> int:
    """Keywords that may be spoken; the others only sound like one of them."""
    return max(1, options.keywords - round(options.keywords * options.near))


def _deal_names(options: TalksOptions, maker: NameMaker) -> list[tuple[str, Vocabulary]]:
    """Split and vocabulary of each talk."""
    counts = (options.talks - options.dev_talks - options.test_talks, options.dev_talks, options.test_talks)
    train = _deal_split(counts[0], options, maker)
    dealt = [("train", vocabulary) for vocabulary in train]
    for split, count in zip(SPLITS[1:], counts[1:], strict=True):
        own = [] if options.shared_names else _deal_split(count, options, maker)
        dealt += [(split, own[index] if own else train[index % len(train)]) for index in range(count)]
    return dealt


def _deal_split(count: int, options: TalksOptions, maker: NameMaker) -> list[Vocabulary]:
    """New names for ``count`` talks.

    A pair of homophones goes to two of the talks, in one spelling each, so that a spelling cannot be learned by heart.
    """
    total = math.ceil(_names_per_slide(options) * (1 + (options.slides - 1) * (1 - REPEATED)))
    paired = round(total * options.homophones)
    pairs = [maker.homophones() for _ in range(max(paired, math.ceil(paired * count / 2)))] if count else []
    dealt: list[Vocabulary] = []
    for talk in range(count):
        vocabulary: Vocabulary = {maker.name(): None for _ in range(total - paired)}
        for use in range(talk * paired, (talk + 1) * paired):
            first, second = pairs[use % len(pairs)]
            name, twin = (first, second) if use // len(pairs) % 2 == 0 else (second, first)
            vocabulary[name] = twin
        dealt.append(vocabulary)
    return dealt


def _plan_talk(id: str, split: str, vocabulary: Vocabulary, options: TalksOptions, maker: NameMaker) -> Talk:
    rng = random.Random(f"{id} {options.seed}")
    fresh = rng.sample(list(vocabulary), len(vocabulary))
    shown: list[str] = []
    slides = []
    for _ in range(options.slides):
        names = _pick_names(_names_per_slide(options), fresh, shown, rng)
        shown += [name for name in names if name not in shown]
        slides.append(_plan_slide(names, rng, options, maker))
    voice, rate, pitch = rng.choice(options.voices), rng.randint(150, 200), rng.randint(35, 65)
    homophones = {name: twin for name in shown if (twin := vocabulary[name])}
    return Talk(id, split, voice, rate, pitch, slides, homophones)


def _pick_names(count: int, fresh: list[str], shown: list[str], rng: random.Random) -> list[str]:
    """Names of one slide: mostly fresh ones, which are used up, and some that were shown before."""
    names: list[str] = []
    for _ in range(count):
        again = [name for name in shown if name not in names]
        repeat = again and (not fresh or rng.random() < REPEATED)
        names.append(rng.choice(again) if repeat else fresh.pop())
    return names


def _plan_slide(names: list[str], rng: random.Random, options: TalksOptions, maker: NameMaker) -> Slide:
    sentences = []
    for _ in range(options.utterances):
        count = 0 if rng.random() < options.plain else min(rng.choice((1, 1, 2)), len(names))
        sentences.append(make_sentence(rng, rng.sample(names, count)))
    near = [maker.near(rng.choice(names)) for _ in range(options.keywords - len(names))]
    keywords = names + [name for name in near if name]
    rng.shuffle(keywords)
    return Slide(keywords, sentences)
