"""Names that nobody has heard, and homophones: the same sound spelled two ways.

A name is put together from syllables, spelled plainly. Its homophone changes one spelling (``f`` to ``ph``, ``ee`` to
``ea``, ``y`` to ``ey``…) and counts only if espeak-ng reads both alike in every accent that the corpus speaks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from sap2.tiny.speech import phonemes


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONSETS = _words("b d f g h j k l m n p r s t v w z br dr tr kr fl kl gr pr st sl sh sp bl")
VOWELS = _words("a e i o u a e i o ee oo ai")
MIDDLES = _words("l r n m t d v b k p s nd nt lt rk rn ld lv rm st")
ENDINGS = _words("y a in on er en is ick ell ett an ard o eel eek ix ol us im")

BATCH = 100
"""Names invented at once."""

_VOWEL_LETTERS, _CONSONANT_LETTERS = "aeiou", "bdfgklmnprstvz"
# A vowel without a vowel beside it, or a consonant without a consonant: another can stand there and be pronounced
_ISOLATED = re.compile(r"(?<![aeiou])[aeiou](?![aeiou])|(?<![b-df-hj-np-tv-z])[b-df-hj-np-tv-z](?![b-df-hj-np-tv-z])")

# (what to look for, how else it may be spelled); whether the sound stays is asked of espeak-ng, not believed
RESPELLINGS = (
    (r"f(?=[aeiou])", "ph"),
    (r"^k(?=[aoulr])", "c"),
    (r"(?<=[aeiou])k(?=[aou])", "ck"),
    (r"ee", "ea"),
    (r"y$", "ey"),
    (r"y$", "ie"),
    (r"ick$", "ic"),
    (r"ick$", "ik"),
    (r"ell$", "el"),
    (r"ett$", "et"),
    (r"in$", "yn"),
    (r"is$", "iss"),
    (r"ix$", "icks"),
    (r"(?<=[aeiou])l(?=[aeiou])", "ll"),
    (r"(?<=[aeiou])n(?=[aeiou])", "nn"),
    (r"(?<=[aeiou])t(?=[aeiou])", "tt"),
    (r"(?<=[aeiou])m(?=[aeiou])", "mm"),
    (r"(?<=[aeiou])r(?=[aeiou])", "rr"),
    (r"er$", "ur"),
    (r"us$", "uss"),
    (r"ai", "ay"),
    (r"ard$", "erd"),
    (r"an$", "en"),
    (r"^r", "wr"),
    (r"^n", "kn"),
    (r"^j(?=[ei])", "g"),
    (r"ks", "x"),
)


class NameMaker:
    """Deals names that differ in sound from each other and from all common words.

    Args:
        rng: where the names come from.
        accents: voices of espeak-ng in which sounds are compared.
        taken: words whose sound is not to be used.
    """

    def __init__(self, rng: random.Random, accents: Sequence[str], taken: Iterable[str]) -> None:
        self._rng = rng
        self._accents = tuple(accents)
        self._drawn: list[str] = []
        self._heard: dict[str, tuple[str, ...]] = {}
        self._spellings = set(taken)
        self._sounds = {sound for sounds in self._listen(sorted(self._spellings)) for sound in sounds}

    def name(self) -> str:
        """A new name with a sound of its own."""
        while True:
            name = self._draw()
            if self._claim(name):
                return name

    def homophones(self) -> tuple[str, str]:
        """A new name and another spelling of it with the same sound in every accent."""
        while True:
            name = self._draw()
            twin = self._twin(name)
            if twin and self._claim(name):
                self._spellings.add(twin)
                return name, twin

    def near(self, name: str) -> str | None:
        """A name that differs from ``name`` in one letter and in sound; None where none is found.

        It is meant for lists only, as something that could have been heard.
        """
        places = [match.start() for match in _ISOLATED.finditer(name)]
        for _ in range(20 if places else 0):
            index = self._rng.choice(places)
            letters = _VOWEL_LETTERS if name[index] in _VOWEL_LETTERS else _CONSONANT_LETTERS
            other = name[:index] + self._rng.choice(letters) + name[index + 1 :]
            if other != name and self._claim(other):
                return other
        return None

    def _draw(self) -> str:
        if not self._drawn:
            self._drawn = [self._invent() for _ in range(BATCH)]
            self._heard = dict(zip(self._drawn, self._listen(self._drawn), strict=True))
        return self._drawn.pop()

    def _invent(self) -> str:
        rng = self._rng
        name = rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(MIDDLES)
        if rng.random() < 0.3:
            name += rng.choice(VOWELS) + rng.choice(MIDDLES[:11])
        return name + rng.choice(ENDINGS)

    def _twin(self, name: str) -> str | None:
        """Another spelling of the same sound, or None."""
        rules = list(RESPELLINGS)
        self._rng.shuffle(rules)
        twins = [re.sub(pattern, spelling, name, count=1) for pattern, spelling in rules]
        twins = [twin for twin in twins if twin != name and twin not in self._spellings]
        sounds = self._listen(twins)
        return next((twin for twin, sound in zip(twins, sounds, strict=True) if sound == self._heard[name]), None)

    def _claim(self, name: str) -> bool:
        (sounds,) = [self._heard[name]] if name in self._heard else self._listen([name])
        if name in self._spellings or self._sounds.intersection(sounds):
            return False
        self._sounds.update(sounds)
        self._spellings.add(name)
        return True

    def _listen(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """The sounds of each word, one an accent. Many at once: changing the voice is what takes time."""
        heard = [[f"{accent} {phonemes(word, accent)}" for word in words] for accent in self._accents]
        return list(zip(*heard, strict=True))
