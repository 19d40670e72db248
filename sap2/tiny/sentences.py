"""Plain sentences of common words, with places for the names of a slide."""

from __future__ import annotations

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words("""
    model result paper table figure question answer method system problem point example number group theory
    story market product report study test value picture word sentence letter level line list machine map
    memory message minute moment morning office order page part party people place plan power price process
    project reason record river road room rule school science season service side sound source space speaker
    state step street student summer teacher team term town tree truth user version view voice wall water week
    window winter worker
""")
ADJECTIVES = _words("""
    new old big small first last good better simple strong open early late common clear full empty fast
    slow deep high low long short great little main major minor modern normal perfect private public quick
    quiet rich right wrong safe single special strange sudden sweet tall total useful warm whole wide young
""")
VERBS = _words("""
    shows finds gives takes makes needs uses builds changes follows keeps leaves meets moves opens plays reads
    runs sees sends starts stops tells tests tries turns wants watches works wins holds helps brings covers
    draws explains
""")
PAST = _words("""
    found made used built changed followed kept left met moved opened read sent started told tested wanted
""")
TIMES = _words("today now later again soon tomorrow yesterday often always never here there")

WITHOUT_NAME = (
    "the {adj} {noun} {verb} the {noun}",
    "this {noun} is {adj} and {adj}",
    "we {past} the {adj} {noun} {time}",
    "now we look at the {adj} {noun}",
    "there is a {noun} in the {adj} {noun}",
    "i think the {noun} is {adj} {time}",
    "they {past} every {noun} of the {noun}",
    "you can see the {noun} on this {noun}",
)
WITH_NAME = (
    "the {noun} of {name} is {adj}",
    "{name} {verb} the {adj} {noun}",
    "we {past} {name} in the {noun}",
    "this {noun} comes from {name}",
    "the {adj} {name} {verb} a {noun}",
    "now {name} {verb} the {noun} {time}",
    "please look at {name} {time}",
    "they call this {noun} {name}",
)
WITH_TWO_NAMES = (
    "{name} and {name} {past} the {noun}",
    "{name} {verb} the {noun} of {name}",
    "we {past} {name} before {name}",
    "the {noun} of {name} is near {name}",
    "from {name} to {name} in a {noun}",
)
_TEMPLATES = (WITHOUT_NAME, WITH_NAME, WITH_TWO_NAMES)
_SLOTS = {"{noun}": NOUNS, "{adj}": ADJECTIVES, "{verb}": VERBS, "{past}": PAST, "{time}": TIMES}


def common_words() -> list[str]:
    """Every word that a sentence can hold besides names, sorted."""
    fixed = (word for templates in _TEMPLATES for template in templates for word in template.split() if "{" not in word)
    return sorted({*fixed, *(word for words in _SLOTS.values() for word in words)})


def make_sentence(rng: random.Random, names: list[str]) -> str:
    """A sentence of four to eight words that holds the given names (at most two) in their order."""
    remaining = iter(names)
    template = rng.choice(_TEMPLATES[len(names)])
    return " ".join(_fill(word, rng, remaining) for word in template.split())


def _fill(word: str, rng: random.Random, names) -> str:
    if word == "{name}":
        return next(names)
    return rng.choice(_SLOTS[word]) if word in _SLOTS else word
