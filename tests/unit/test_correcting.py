"""Keywords that stage two wrote wrongly, and that the spotter puts right."""

from __future__ import annotations

import pytest
import torch

from sap2.model.spotter import SYMBOLS, spelling
from sap2.pipeline.confidence import corrected_words, token_log_probs
from sap2.pipeline.correcting import (
    LIKELIER,
    Corrector,
    Lists,
    find_misspellings,
    likelier_keywords,
    missing_keywords,
    transcript_log_probs,
)
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.leaks import Leak
from sap2.pipeline.types import Correction
from sap2.pipeline.utterances import Job, Utterance
from sap2.pipeline.words import find_words
from sap2.pruning import POSSIBLE, SURE
from sap2.pruning.spotting import RankedKeyword
from sap2.slides.common import common_words
from sap2.spelling import Writing


def heard(text, doubt=4.0):
    """What a spotter hears that spells a text: each symbol in two frames, a blank after it. ``doubt``: nats that any
    other symbol is below."""
    frames = torch.full((3 * len(spelling(text)), SYMBOLS), -doubt)
    for place, symbol in enumerate(spelling(text)):
        frames[3 * place : 3 * place + 2, symbol] = 0.0
        frames[3 * place + 2, 0] = 0.0
    return frames.log_softmax(-1)


def corrected(text, *keywords, said=None, probability=0.99, doubt=1.0, told=None, own=()):
    """The text with its corrections."""
    ranked = [RankedKeyword(keyword, probability) for keyword in keywords]
    log_probs = heard(said or text, doubt)
    lists = Lists(told or keywords, own, common_words())
    for one in reversed(find_misspellings(log_probs, text, missing_keywords(text, ranked, lists), lists)):
        assert text[one.start : one.end] == one.written and one.probability == probability
        text = f"{text[: one.start]}{one.keyword}{text[one.end :]}"
    return text


@pytest.mark.parametrize(
    ("written", "keywords", "right"),
    [
        ("please look at bailvan here", ["gailvan"], "please look at gailvan here"),
        ("please look at bailvan, here.", ["gailvan"], "please look at gailvan, here."),
        ("(bailvan's) page", ["gailvan"], "(gailvan's) page"),
        ("bailvan’s page", ["Gailvan’s"], "Gailvan’s page"),
        ("bailvan and fitus met", ["pitus", "gailvan"], "gailvan and pitus met"),
        ("we met sagrada famila there", ["Sagrada Familia"], "we met Sagrada Familia there"),
        ("we met sagradafamila there", ["Sagrada Familia"], "we met Sagrada Familia there"),
        ("我们见王晓明了", ["王小明"], "我们见王小明了"),
        ("au café\u0301s bar", ["cafés"], "au cafés bar"),  # a mark beyond a letter goes with it
    ],
)
def test_what_is_spelled_like_a_sure_keyword_becomes_it(written, keywords, right):
    assert corrected(written, *keywords, doubt=0.5) == right


@pytest.mark.parametrize(
    ("written", "keywords"),
    [
        ("this water comes from there", ["wader"]),  # a common word
        ("the main, machine", ["manin"]),
        ("gailvan met bailvan", ["gailvan"]),  # it was written
        ("GPT 4 met gpt5", ["gpt-4"]),  # and so, with other marks between its letters
        ("please look at bailvan here", ["mortadel"]),  # nothing like it
        ("now bx", ["by"]),  # too short to be told from other words
        ("", ["gailvan"]),
        ("… —", ["gailvan"]),
        ("in a wall here", ["inawall"]),  # common words
    ],
)
def test_anything_else_stays(written, keywords):
    assert corrected(written, *keywords, said=written or "silence", doubt=0.5) == written


def test_another_keyword_of_the_list_stays():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", told=["gailvan", "bailvan"]) == written
    # and what was not told to stage two was not meant by it
    assert corrected(written, "gailvan", told=["fitus"]) == written


def test_only_a_sure_keyword_of_a_bank_corrects():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", probability=SURE) == "please look at gailvan here"
    assert corrected(written, "gailvan", probability=SURE - 0.01) == written


def test_a_keyword_of_the_own_list_that_is_nearly_what_is_written_corrects():
    written, right = "please look at bailvan here", "please look at gailvan here"
    unsure = {"probability": SURE - 0.01, "own": ["gailvan", "fitus"]}
    assert corrected(written, "gailvan", **unsure) == right
    assert corrected(written, "gailvan", told=["fitus"], **unsure) == right  # it need not have been told
    assert corrected(written, "gailvan", **{**unsure, "probability": POSSIBLE}) == right
    assert corrected(written, "gailvan", **{**unsure, "probability": POSSIBLE - 0.001}) == written
    # the speech speaks against it, though less than a sure keyword has to have
    assert corrected(written, "gailvan", doubt=3.0, **unsure) == written
    assert corrected(written, "gailvan", doubt=3.0) == right
    # not nearly the same: two fifths of the letters, and the speech speaks for the keyword
    far = "please look at bekman here"
    assert corrected(far, "gailvan", said=right) == right
    assert corrected(far, "gailvan", said=right, **unsure) == far
    # "bailvan" is a keyword itself, told or not
    assert corrected(written, "gailvan", probability=0.5, told=["gailvan"], own=["gailvan", "bailvan"]) == written
    assert corrected(written, "gailvan", "bailvan", probability=0.5, own=["gailvan"]) == written
    # a common word, an ending, one that is written twice: as with a sure one
    assert corrected("this water comes", "wader", probability=0.5, own=["wader"]) == "this water comes"
    ending = "the transformers are here"
    assert corrected(ending, "transformer", probability=0.5, own=["transformer"]) == ending
    twice = "gailvan met gailvan"
    assert corrected(twice, "fitus", said="gailvan met fitus", probability=0.5, own=["gailvan", "fitus"]) == twice


def test_the_surer_of_two_keywords_takes_the_place():
    text = "please look at bailvan here"
    ranked = [RankedKeyword("gailvan", 0.9), RankedKeyword("hailvan", 0.5)]
    lists = Lists(["gailvan", "hailvan"], ["gailvan", "hailvan"], common_words())
    missing = missing_keywords(text, ranked, lists)
    found = find_misspellings(heard(text, 1.0), text, missing, lists)
    assert missing == ranked and [one.keyword for one in found] == ["gailvan"]


def test_the_speech_may_speak_against_it():
    written = "please look at bailvan here"
    assert corrected(written, "gailvan", doubt=2.0) == "please look at gailvan here"
    assert corrected(written, "gailvan", doubt=9.0) == written
    # the spotter heard the keyword, and nothing of what was written
    assert corrected(written, "gailvan", said="please look at gailvan here", doubt=9.0) == "please look at gailvan here"


def test_a_keyword_with_an_ending_that_is_heard_stays():
    for written in ("the transformers are here", "the transformer's are here", "der transformerblock ist da"):
        assert corrected(written, "transformer", doubt=1.0) == written
    # but not an ending that nobody said
    said = "the transformer is here"
    assert corrected("the transformers is here", "transformer", said=said, doubt=1.0) == said


def test_of_several_places_it_is_the_one_where_the_keyword_is_heard():
    assert corrected("bailvan met dailvan", "gailvan", said="bailvan met gailvan", doubt=9.0) == "bailvan met gailvan"
    assert corrected("bailvan met dailvan", "gailvan", said="gailvan met dailvan", doubt=9.0) == "gailvan met dailvan"


@pytest.mark.parametrize(
    ("written", "keyword", "right"),
    [
        ("kuber netis and more", "kubernetes", "kubernetes and more"),  # one word written as two
        ("buy an aple watch today", "Apple Watch", "buy an Apple Watch today"),  # a common word is a part of it
        ("watch the apel today", "Apple Watch", "watch the apel today"),
    ],
)
def test_keywords_and_words_need_not_be_as_many(written, keyword, right):
    assert corrected(written, keyword, said=right) == right


def test_a_doubled_consonant_that_nobody_hears_is_written():
    assert corrected("beeloony works", "Beelloony", said="beeloony works", doubt=20.0) == "Beelloony works"


def test_a_silent_letter_that_nobody_hears_is_written():
    assert corrected("from nebin to here", "knebin", doubt=20.0) == "from knebin to here"


def test_nothing_like_it_gives_way_where_the_keyword_is_heard_better():
    written, said = "from fitus to kleermett today", "from fitus to mortadel today"
    assert corrected(written, "mortadel", said=said) == said
    assert corrected(written, "mortadel", said=written) == written
    # not a common word, even so
    assert corrected("from fitus to water today", "mortadel", said=said) == "from fitus to water today"


def test_of_a_keyword_that_is_written_twice_one_gives_way_to_what_is_heard():
    written, right = "the method of gailvan is near gailvan", "the method of gailvan is near fitus"
    assert corrected(written, "fitus", said=right, told=["gailvan", "fitus"]) == right
    assert corrected(written, "fitus", said=written, told=["gailvan", "fitus"]) == written
    # the other one stays, whatever else is missing
    told = ["gailvan", "fitus", "mortadel"]
    assert corrected(written, "fitus", "mortadel", said="the method of mortadel is near fitus", told=told) in (
        "the method of gailvan is near fitus",
        "the method of mortadel is near gailvan",
    )


def test_a_transcript_that_does_not_fit_into_the_speech_stays():
    missing = [RankedKeyword("gailvan", 0.99)]
    text = "please look at bailvan here"
    lists = Lists(["gailvan"], (), ())
    assert find_misspellings(heard(text, 2.0), text, missing, lists)
    assert not find_misspellings(heard(text, 2.0)[:10], text, missing, lists)


def test_a_likelier_keyword_of_the_slides_stands_for_a_term_of_the_bank():
    def written(text, own, **probabilities):
        ranked = [RankedKeyword(*one) for one in probabilities.items()]
        lists = Lists([one.keyword for one in ranked], own, common_words())
        found = likelier_keywords(text, ranked, lists)
        for one in reversed(found):
            text = f"{text[: one.start]}{one.keyword}{text[one.end :]}"
        return text

    assert written("we met meller, there", ["Meler"], meler=0.78, meller=0.35) == "we met meler, there"
    assert written("we met meler, there", ["meler"], meler=0.78, meller=0.35) == "we met meler, there"
    assert written("we met meller", ["meler"], meler=0.6, meller=0.5) == "we met meller"  # no more than a guess
    assert LIKELIER == 1.0 and written("we met meller", ["meler"], meler=0.75, meller=0.5) == "we met meler"  # 1.1
    assert written("we met meller", ["fitus"], fitus=0.99, meller=0.1) == "we met meller"  # not alike
    assert written("meller met meler", ["meler"], meler=0.78, meller=0.35) == "meller met meler"  # both were said
    assert written("meller met meller", ["meler"], meler=0.78, meller=0.35) == "meller met meller"  # which of them?
    assert written("mellar met meller", ["meler"], meler=0.78, meller=0.35, mellar=0.2) == "meler met meller"
    assert written("the water here", ["wader"], wader=0.7, water=0.2) == "the water here"
    assert written("we met meller", ["meler"], meller=1.0, meler=0.2) == "we met meller"
    # of one list, or of the bank, both: the model has chosen
    assert written("we met meller", ["meler", "meller"], meler=0.78, meller=0.35) == "we met meller"
    assert written("we met meller", [], meler=0.78, meller=0.35) == "we met meller"
    assert written("we met meler", ["meller"], meler=0.35, meller=0.1) == "we met meler"


def test_texts_are_heard_alike_alone_and_together():
    texts = ["a" * number + " bailvan" for number in range(1, 40)]
    log_probs = heard("aaaaaaaa gailvan")
    together = transcript_log_probs(log_probs, texts)
    alone = torch.cat([transcript_log_probs(log_probs, [text]) for text in texts])
    assert torch.equal(torch.isinf(together), torch.isinf(alone)) and torch.isinf(alone).any()
    finite = ~torch.isinf(alone)
    assert torch.allclose(together[finite], alone[finite], atol=1e-4)


def test_words_know_where_their_tokens_are_before_a_correction():
    pieces = ["we", " met", " bail", "van", " to", "day"]
    reply = Reply("".join(pieces), True, pieces, [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
    corrections = [Correction(7, 14, "bailvan", "sagrada familia", 0.9)]
    assert reply.text[7:14] == "bailvan"
    text = "We met Sagrada Familia today"
    places = find_words(text)
    found = token_log_probs(reply, reply.text, text, places, corrections)
    assert [found[0], found[1], found[4]] == [[-1.0], [-2.0], [-5.0, -6.0]]
    assert set(found[2]) | set(found[3]) == {-3.0, -4.0}  # those of what was replaced
    assert corrected_words(text, places, reply.text, corrections) == [None, None, *corrections, *corrections, None]
    assert corrected_words(reply.text, find_words(reply.text), reply.text, []) == [None] * 4


class Spelled:
    """A hearing in which everything is spelled as it is said."""

    def __init__(self, said):
        self.said, self.asked = said, []

    def take(self, rows):
        self.asked.append(list(rows))
        return self

    def letters(self, stage):
        log_probs = heard(self.said)[None]
        return log_probs, torch.ones(log_probs.shape[:2], dtype=torch.bool)


def utterance(text, probabilities, told=None, **job):
    own = [keyword for keyword in probabilities if keyword != "meller"]  # which is in the bank
    made = Utterance(Job("x", None, own, **job), None, None, list(told or probabilities), text=text)
    made.probabilities = probabilities
    return made


def test_both_kinds_of_corrections_meet_in_one_transcript():
    made = utterance("meller met bailvan, and fitus", {"gailvan": 0.95, "meler": 0.8, "fitus": 0.7, "meller": 0.3})
    quiet = utterance("meler met fitus", {"meler": 0.9, "fitus": 0.9})
    hearing = Spelled("meler met gailvan and fitus")
    Corrector("asr", Writing("upper"), common_words()).correct(hearing, [(0, quiet), (3, made)])
    assert hearing.asked == [[3]]  # what is right is not heard again
    assert made.text == "MELER met GAILVAN, and fitus" and made.written == "meller met bailvan, and fitus"
    assert [one.to_dict() for one in made.corrections] == [
        {"written": "meller", "keyword": "MELER"},
        {"written": "bailvan", "keyword": "GAILVAN"},
    ]
    assert quiet.text == quiet.written and not quiet.corrections


def test_a_reply_without_the_list_is_not_corrected():
    for more in ({"correct": False}, {}):
        made = utterance("we met bailvan", {"gailvan": 0.95}, **more)
        made.leak = None if more else Leak("list", "gailvan", True)
        Corrector("asr", Writing(), common_words()).correct(Spelled("we met gailvan"), [(0, made)])
        assert made.text == "we met bailvan" and not made.corrections
    made = utterance("we met bailvan", {"gailvan": 0.95})
    made.leak = Leak("list", "gailvan", False)
    Corrector("asr", Writing(), common_words()).correct(Spelled("we met gailvan"), [(0, made)])
    assert made.text == "we met gailvan"
