"""Cleaning, normalising and matching of text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.prompts import AUDIO_TAG, AUDIO_TOKEN, CONTEXT_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT
from sap2.text import (
    choose_listed,
    clean_keyword,
    clean_keywords,
    clean_text,
    contains_words,
    find_special,
    get_normalizer,
    keep_results,
    match_listed,
    split_words,
    spoken_keywords,
)

SPECIALS = [
    START_OF_CONTEXT,
    END_OF_CONTEXT,
    CONTEXT_TOKEN,
    AUDIO_TOKEN,
    AUDIO_TAG,
    "<|im_end|>",
    "</audio>",
    "<image>",
]
HOSTILE = st.lists(
    st.one_of(st.text(), st.sampled_from([*SPECIALS, "＜|im_end|＞", "<\u200b|im_end|>", "\u202e", "\x00"]))
)


@pytest.mark.parametrize("token", SPECIALS)
def test_special_tokens_are_found_and_cleaned_away(token):
    assert find_special(f"a {token} b") == token
    assert find_special(clean_text(f"a {token} b")) is None
    assert not set("<>|") & set(clean_text(token))


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\u202eb", "ab"),  # right-to-left override
        ("zero\u200bwidth", "zerowidth"),
        ("bell\x07 tab\tnew\r\nline", "bell tab new line"),
        ("ＦＵＬＬ　width", "FULL width"),
        ("＜|im_end|＞", "im_end"),
        ("<\u200b|im_end|>", "im_end"),
        ("  a\u00a0 b ", "a b"),
        ("café", "café"),
        ("", ""),
        ("<|>", ""),
    ],
)
def test_clean_text(dirty, clean):
    assert clean_text(dirty) == clean


@given(HOSTILE.map("".join))
def test_clean_text_is_stable_and_free_of_what_is_not_spoken(text):
    clean = clean_text(text)
    assert clean_text(clean) == clean
    assert find_special(clean) is None
    assert not any(unicodedata.category(c)[0] == "C" for c in clean)
    assert clean == " ".join(clean.split())


def test_clean_keyword_holds_no_comma():
    assert clean_keyword("10,000 , x") == "10 000 x"


def test_results_are_kept_but_not_those_of_long_texts():
    """What callers of a server send must not fill the memory."""
    calls = []
    function = keep_results(lambda text, more="": calls.append(text) or text + more)
    long = "x" * 10_000
    assert [function("ab", "c"), function("ab", "c"), function("ab"), function(long), function(long)] == [
        *("abc", "abc", "ab"),
        *(long, long),
    ]
    assert calls == ["ab", "ab", long, long]


def test_clean_keywords_keeps_order_and_the_first_spelling():
    assert clean_keywords(["Emily", "<|>", "wozniak", "EMILY", " wozniak "]) == ["Emily", "wozniak"]


def test_normalizers():
    assert get_normalizer("none")("It's 20%.") == "It's 20%."
    assert get_normalizer("basic")("Hello, World!").strip() == "hello world"
    assert get_normalizer("whisper-en")("colour it's twenty one") == "color it is 21"
    with pytest.raises(ValueError, match="'nfc' is unknown; allowed: none, basic, whisper-en"):
        get_normalizer("nfc")


def test_split_words_by_character():
    assert split_words("use 汉字 now") == ["use", "汉字", "now"]
    assert split_words("use 汉字 now", char=True) == ["use", "汉", "字", "now"]
    assert split_words("かな漢", char=True) == ["か", "な", "漢"]


def test_contains_words_needs_a_run_of_whole_words():
    words = ["the", "new", "york", "times"]
    assert contains_words(words, ["new", "york"])
    assert not contains_words(words, ["new", "times"])
    assert not contains_words(words, ["yor"])
    assert not contains_words(words, [])


def test_spoken_keywords_in_the_order_of_the_list():
    keywords = ["york", "Times", "new york", "boston", "new times", "ork"]
    assert spoken_keywords(keywords, "The New York times") == ["york", "Times", "new york"]


def test_spoken_keywords_go_through_the_normaliser():
    assert spoken_keywords(["colour"], "what color is it", "none") == []
    assert spoken_keywords(["colour"], "what color is it", "whisper-en") == ["colour"]
    assert spoken_keywords(["..."], "what color is it", "whisper-en") == []


def test_spoken_keywords_by_character():
    assert spoken_keywords(["汉字"], "我写汉字吗") == []
    assert spoken_keywords(["汉字", "字汉"], "我写汉字吗", char=True) == ["汉字"]


def test_ten_thousand_keywords():
    keywords = [f"word{i}" for i in range(10_000)]
    assert spoken_keywords(keywords, "say word77 and word9999") == ["word77", "word9999"]


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3))
)
def test_spoken_keywords_equal_a_plain_search(words, phrases):
    transcript, keywords = " ".join(words), [" ".join(phrase) for phrase in phrases]
    expected = [keyword for keyword in keywords if f" {keyword} " in f" {transcript} "]
    assert spoken_keywords(keywords, transcript) == expected


LIST = ["steve wozniak", "co-op", "emily", "don't", "Zürich", "steve jobs", "apple ii", "की", "का"]


@pytest.mark.parametrize(
    ("predicted", "chosen", "way"),
    [
        (["Emily."], ["emily"], "as written"),
        (["coop"], ["co-op"], "spelled differently"),
        (["co op"], ["co-op"], "spelled differently"),
        (["dont"], ["don't"], "spelled differently"),
        (["zurich"], ["Zürich"], "spelled differently"),
        (["Zu\u0308rich"], ["Zürich"], "as written"),
        (["wozniak"], ["steve wozniak"], "by a part"),
        (["की"], ["की"], "as written"),
        (["emily coop apple ii"], ["co-op", "emily", "apple ii"], "several without commas"),
        (["steve wozniak steve jobs"], ["steve wozniak", "steve jobs"], "several without commas"),
    ],
)
def test_a_reply_is_matched_generously(predicted, chosen, way):
    matches = match_listed(predicted, LIST)
    assert (matches.chosen, matches.unlisted) == (chosen, [])
    assert {name: count for name, count in matches.ways.items() if count} == {way: 1}
    assert choose_listed(predicted, LIST) == (chosen, [])


@pytest.mark.parametrize("prediction", ["steve", "ii", "bob", "emily bob", "wozniak steve", "", "..."])
def test_what_no_entry_alone_can_be_is_unlisted(prediction):
    """A part of two entries, two letters, a word too many, another order."""
    matches = match_listed([prediction], LIST)
    assert (matches.chosen, matches.unlisted) == ([], [prediction])
