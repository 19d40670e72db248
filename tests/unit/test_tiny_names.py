"""Names sound unlike each other, homophones alike; sentences hold what they are given."""

from __future__ import annotations

import random

import pytest

from sap2.tiny.names import NameMaker
from sap2.tiny.plan import ACCENTS
from sap2.tiny.sentences import common_words, make_sentence
from sap2.tiny.speech import phonemes


def make(seed=0, taken=()):
    return NameMaker(random.Random(seed), ACCENTS, taken)


def sounds(words, accent):
    return [phonemes(word, accent) for word in words]


def test_names_sound_different():
    maker = make(taken=common_words())
    names = [maker.name() for _ in range(150)]
    for accent in ACCENTS:
        heard = sounds([*names, *common_words()], accent)
        assert len(set(heard)) == len(heard)
    assert all(name.isalpha() and name.isascii() and name.islower() for name in names)
    assert 4 < sum(map(len, names)) / len(names) < 9


def test_homophones_sound_alike_in_every_accent():
    maker = make(taken=common_words())
    pairs = [maker.homophones() for _ in range(60)]
    words = [word for pair in pairs for word in pair]
    assert len(set(words)) == len(words)
    for accent in ACCENTS:
        assert sounds([a for a, _ in pairs], accent) == sounds([b for _, b in pairs], accent)
        assert len(set(sounds([a for a, _ in pairs], accent))) == len(pairs), "no two pairs are alike"


def test_respellings_are_varied():
    maker = make()
    pairs = [maker.homophones() for _ in range(150)]
    kinds = {"ph": 0, "ck": 0, "ey": 0, "ea": 0, "c": 0}
    for first, second in pairs:
        for kind in kinds:
            kinds[kind] += kind in second and kind not in first
    assert all(kinds.values()), kinds


def test_near_names_differ_in_one_letter_and_in_sound():
    maker = make()
    names = [maker.name() for _ in range(40)]
    near = [(name, maker.near(name)) for name in names]
    assert sum(other is not None for _, other in near) > 35
    for name, other in near:
        if other:
            assert len(other) == len(name)
            assert sum(a != b for a, b in zip(name, other, strict=True)) == 1
            assert all(phonemes(name, accent) != phonemes(other, accent) for accent in ACCENTS)


def test_names_depend_on_the_seed_alone():
    assert [make(1).name() for _ in range(3)] == [make(1).name() for _ in range(3)]
    assert make(1).name() != make(2).name()


def test_unknown_accent():
    with pytest.raises(ValueError, match="voice 'xx' is unknown"):
        NameMaker(random.Random(0), ["xx"], ["word"])


def test_common_words_are_told_apart_by_ear():
    words = common_words()
    assert 200 <= len(words) <= 400
    for accent in ACCENTS:
        heard = sounds(words, accent)
        assert [w for w, s in zip(words, heard, strict=True) if heard.count(s) > 1] == []


@pytest.mark.parametrize("names", [[], ["velmo"], ["velmo", "kestrin"]])
def test_sentences(names):
    rng = random.Random(0)
    sentences = [make_sentence(rng, names) for _ in range(200)]
    known = {*common_words(), *names}
    for sentence in sentences:
        words = sentence.split()
        assert set(words) <= known
        assert [word for word in words if word in names] == names
        assert 4 <= len(words) <= 9
    assert len(set(sentences)) > 100
