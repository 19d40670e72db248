"""Which words of slides are keywords: names like function words, what repeats on every slide, common words."""

from __future__ import annotations

import sys

import pytest

from sap2.errors import InputError
from sap2.slides.common import common_words
from sap2.slides.keywords import extract_keywords, slide_keywords, split_text
from sap2.slides.sources import KeywordOptions, read_keywords


def keywords(line, common=()):
    return extract_keywords([line], frozenset(common))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("guidelines of the WHO for US hospitals", ["guidelines", "WHO", "US", "hospitals"]),
        ("Guidelines of the WHO for US Hospitals", ["Guidelines", "WHO", "US", "Hospitals"]),
        ("NeXT and IT departments", ["NeXT", "IT", "departments"]),
        ("services written in Go", ["services", "written", "Go"]),
        ("We like it. It works. So do we", ["works"]),
        ("WHO WE ARE", []),
        ("WHY", []),
        ("It is what it is", []),
        ("talks by Will and guests", ["talks", "Will", "guests"]),
    ],
)
def test_names_that_look_like_function_words(line, expected):
    assert keywords(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("WE USE NEW DATA", []),
        ("New Data for All", []),
        ("our new Data center", ["Data"]),
        ("GPU Data", ["GPU"]),
    ],
)
def test_common_words_are_kept_only_as_names(line, expected):
    assert keywords(line, ["we", "use", "new", "data", "our", "center", "all", "for"]) == expected


def test_what_repeats_on_most_slides_is_no_keyword():
    topics = ["Kubernetes", "Wozniak", "Terraform", "Zookeeper", "Ansible"]
    slides = [
        f"Acme Corp — confidential\n{topic}\nMarch {number}, 2024\nPage {number} of 20\n{number}"
        for number, topic in enumerate(topics, 11)
    ]
    assert slide_keywords(slides) == [[topic] for topic in topics]
    assert "Acme" in slide_keywords(slides[:3])[0], "of three slides nobody knows"


def test_a_footer_that_is_on_fewer_slides_stays():
    slides = ["Wozniak\nfooter"] * 2 + ["one", "two", "three"]
    assert slide_keywords(slides)[0] == ["Wozniak", "footer"]


def test_words_of_other_scripts_keep_their_marks():
    assert split_text("हिन्दी भाषा और Zürich") == ["हिन्दी", "भाषा", "और", "Zürich"]
    assert split_text("GPT-4 costs 1,000 in C++") == ["GPT-4", "costs", "1000", "in", "C++"]


# ---- common words


def test_english_is_there_and_on_by_default(tmp_path):
    words = common_words()
    assert len(words) == 5000 and {"please", "enter", "number"} <= words
    (tmp_path / "deck.md").write_text("please enter the number of your kubernetes cluster")
    assert read_keywords(str(tmp_path / "deck.md")) == ["kubernetes", "cluster"]
    everything = read_keywords(str(tmp_path / "deck.md"), KeywordOptions(language="none"))
    assert everything[:3] == ["please", "enter", "number"]


def test_a_list_of_ones_own_comes_instead(tmp_path):
    (tmp_path / "words").write_text("Kubernetes\t12\n")
    assert common_words(path=tmp_path / "words") == {"kubernetes"}


def test_other_languages_through_wordfreq(monkeypatch, tmp_path):
    pytest.importorskip("wordfreq")
    assert {"der", "nicht", "über"} <= common_words("de") and len(common_words("de")) == 5000
    (tmp_path / "deck.md").write_text("Wir zeigen nicht die Verteilung der Kubernetesgruppen", encoding="utf-8")
    assert read_keywords(str(tmp_path / "deck.md"), KeywordOptions(language="de"))[-1] == "Kubernetesgruppen"
    with pytest.raises(InputError, match=r"language 'xx' is unknown; allowed: none, ar, .*de"):
        common_words("xx")


def test_without_wordfreq_the_message_says_how_to_install_it(monkeypatch):
    from sap2.slides.common import _of_language

    monkeypatch.setitem(sys.modules, "wordfreq", None)
    _of_language.cache_clear()
    with pytest.raises(ImportError, match="language fr needs the package wordfreq"):
        common_words("fr")
