"""Terms that are said otherwise than they are written, and terms of all scripts: found by the spotter's search."""

from __future__ import annotations

import pytest
import torch

from sap2.model.spotter import SYMBOLS, keyword_symbols, spelled_frames, spelling
from sap2.pruning.bank import Term, TermBank
from sap2.pruning.calibration import Calibration
from sap2.pruning.spoken import MOST, as_heard, spoken_forms
from sap2.pruning.spotting import rank_spotted


@pytest.mark.parametrize(
    ("term", "forms"),
    [
        ("GPT-4", ["g p t four", "gpt four"]),
        ("gpt 4", ["g p t four", "gpt four"]),  # a lower-case list: no vowel, no word
        ("U.S.", ["u s"]),
        ("e.g.", ["e g"]),
        ("GPUs", ["g p u s"]),
        ("NASA", ["n a s a"]),
        ("AT&T", ["a t and t", "at and t"]),
        ("2024", ["twenty twenty four", "two thousand and twenty four", "two zero two four"]),
        ("1,000", ["one thousand"]),
        ("3.5", ["three point five"]),
        ("v1.2.3", ["v one two three"]),
        ("007", ["zero zero seven"]),
        ("21st century", ["twenty first century"]),
        ("COVID-19", ["c o v i d nineteen", "covid nineteen"]),
        ("C++", ["c plus plus"]),
        ("H2O", ["h two o"]),
        ("5G".translate({0x35: 0xFF15}), ["five g"]),  # full-width
        ("9" * 20, [" ".join(["nine"] * 20)]),
        ("Kubernetes", []),
        ("emily", []),
        ("NEWSLETTER", []),
        ("语音识别", []),
        ("", []),
    ],
)
def test_how_a_term_is_said(term, forms):
    assert spoken_forms(term) == forms


@pytest.mark.parametrize(
    ("form", "once"),
    [
        ("Matisse", "Matise"),
        ("otto weelloon", "oto weeloon"),
        ("McDonnell", "McDonel"),
        ("CNN", "CNN"),
        ("BBC", "BBC"),
        ("Lloyd", "Lloyd"),
        ("zzz", "zzz"),
        ("aaa", "aaa"),
        ("Böll", "Böl"),
        ("groove", "groove"),
        ("语音识别", "语音识别"),
    ],
)
def test_doubled_consonants_are_heard_once(form, once):
    assert as_heard(form) == once


@pytest.mark.parametrize(
    ("form", "heard"),
    [
        ("Knight", "night"),
        ("wrivorell", "rivorel"),
        ("the Wright brothers", "the right brothers"),
        ("gnome", "nome"),
        ("Psyche", "syche"),
        ("Ptolemy", "tolemy"),
        ("pneumatic", "neumatic"),
        ("Knossos", "nosos"),
        ("McKnight", "McKnight"),  # not a first letter
        ("GNU", "GNU"),
        ("PSA", "PSA"),
        ("gnu", "gnu"),  # "nu" is in too many words
        ("plan", "plan"),
        ("wave", "wave"),
        ("Гном", "Гном"),
    ],
)
def test_silent_first_letters_are_not_heard(form, heard):
    assert as_heard(form) == heard


def test_a_term_of_many_parts_has_few_forms():
    assert len(spoken_forms(" ".join(["2024"] * 20))) == MOST


def heard(text):
    """The spotter, sure of each letter: two frames of it, one of nothing."""
    frames = [symbol for letter in spelling(text) for symbol in (letter, letter, 0)]
    log_probs = torch.full((1, len(frames), SYMBOLS), -9.0)
    log_probs[0, torch.arange(len(frames)), frames] = 0.0
    return spelled_frames(log_probs.log_softmax(-1), torch.ones(1, len(frames), dtype=torch.bool))


OTHERS = ["gptq", "u k", "語音合成", "语音合成", "cafes", "nighthawk", "twenty", "emily", "GPT-3", "2023"]
OTHERS += ["beeloon", "grielo"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("GPT-4", "we ask g p t four now"),
        ("GPT-4", "we ask gpt 4 now"),
        ("GPT-4", "we ask gpt four now"),
        ("U.S.", "in the u s they say"),
        ("2024", "since twenty twenty four it is"),
        ("语音识别", "我们做语音识别的研究"),
        ("語音識別", "我們做語音識別的研究"),
        ("caf\u00e9", "in the cafe\u0301 there"),
        ("cafe\u0301", "in the caf\u00e9 there"),
        ("Ｗｏｚｎｉａｋ", "steve wozniak met"),
        ("हिन्दी", "वह हिन्दी बोलता"),
        ("Đặng", "ông đặng nói"),
        ("Beelloony", "please look at beeloony soon"),
        ("gribbello", "now gribelo shows it"),
        ("Wrivorell", "here is rivorell again"),
    ],
)
def test_it_is_found_and_written_as_in_the_bank(written, said):
    bank = TermBank([Term(term) for term in (*OTHERS, written)])
    first, second = rank_spotted(heard(said), [bank], Calibration())[:2]
    assert keyword_symbols(first.keyword) == keyword_symbols(written)
    assert first.probability > second.probability


def test_forms_of_a_bank_are_those_given_and_those_said():
    bank = TermBank([Term("GPT-4", ("gee pee tee four",)), Term("U.S."), Term("gpt four")])
    assert bank.terms == ["GPT-4", "U.S.", "gpt four"]
    # "u s" is how U.S. is spelled anyway; the third term stays a term of its own
    assert bank.forms == ["GPT-4", "gee pee tee four", "g p t four", "gpt four", "U.S.", "gpt four", "g p t four"]
    assert bank.owners.tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_of_two_terms_the_one_is_likelier_that_is_written_as_it_is_heard():
    bank = TermBank([Term("matisse"), Term("matise"), Term("latise")])
    for said in ("matise", "matisse"):
        ranked = rank_spotted(heard(f"we met {said}"), [bank], Calibration())
        assert ranked[0].keyword == said and ranked[0].probability > 2 * ranked[1].probability


def test_forms_with_letters_that_are_not_heard_have_one_without():
    bank = TermBank([Term("Matisse"), Term("Matise"), Term("Otto", ("Hobbes", "Knott"))])
    assert bank.forms == ["Matisse", "Matise", "Matise", "Otto", "Hobbes", "Knott", "Oto", "Hobes", "not"]
    assert bank.owners.tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert bank.by_ear.tolist() == [False, True, False, False, False, False, True, True, True]
