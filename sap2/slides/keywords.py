"""Keywords from slide text: the words that a recogniser would get wrong without the slide.

The rule, in this order (``docs/data.md`` tells it with an example):

1. Clean the text and cut it into words: runs of letters and digits, with ``' - . & / +`` inside and ``+ #`` at the end,
   so that "C++", "GPT-4", "3.5" and "O'Reilly" stay whole.
2. Drop function words, single letters and one-digit numbers (bullets, page numbers).
3. Keep a word if it has a digit; or is not among the common words; or is written as a name: capitals inside
   ("iPhone", "GPU"), or a capital at its beginning, unless all words of the line have one (a headline), or it begins
   the line and the next word has none.
4. Drop repeats, whatever their case; the first spelling stays.
5. Over the cap, keep the rarest: words outside the common ones first, then those on the fewest slides, then the
   earliest.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sap2.tables import read_lines
from sap2.text import clean_keyword, clean_text

DEFAULT_CAP = 100
"""Keywords of one list. The released SlideSpeech lists hold 50 of a slide."""

_WORD = re.compile(r"[^\W_]+(?:(?:['’\-.&/+]|(?<=\d),(?=\d))[^\W_]+)*[+#]*")
_FUNCTION_WORDS = frozenset(Path(__file__).with_name("function_words.txt").read_text(encoding="utf-8").split())


def read_words(path: str | os.PathLike[str]) -> list[str]:
    """The words of a list, one a line, in its order; a count after a tab is passed over.

    Raises:
        InputError: a line is not UTF-8.
    """
    return [line.split("\t")[0].strip().lower() for _, line in read_lines(path)]


def split_text(text: str) -> list[str]:
    """The words of clean text, as :data:`the rule <sap2.slides.keywords>` cuts them."""
    # a comma within a number would divide keywords
    return [match.replace("’", "'").replace(",", "") for match in _WORD.findall(text)]


def extract_keywords(
    slides: Sequence[str], common_words: Collection[str] = frozenset(), cap: int = DEFAULT_CAP
) -> list[str]:
    """The keywords of a list of slides together, in order of appearance.

    Args:
        slides: the text of each slide, with its line ends.
        common_words: lower case; a set for long lists.
        cap: keywords at most; 0 keeps all.
    """
    return choose_rarest(slide_keywords(slides, common_words), common_words, cap)


def slide_keywords(slides: Sequence[str], common_words: Collection[str] = frozenset()) -> list[list[str]]:
    """The keywords of each slide, not capped: words in order, each once a slide."""
    return [
        _unique(word for line in text.splitlines() for word in _line_keywords(line, common_words)) for text in slides
    ]


def choose_rarest(
    slides: Iterable[Sequence[str]], common_words: Collection[str] = frozenset(), cap: int = DEFAULT_CAP
) -> list[str]:
    """The keywords of several slides as one list of at most ``cap``, the rarest (rule 5)."""
    slides = list(slides)
    counts = Counter(word.lower() for slide in slides for word in {word.lower(): word for word in slide})
    words = _unique(word for slide in slides for word in slide)
    if not cap or len(words) <= cap:
        return words
    places = {word: place for place, word in enumerate(words)}

    def rarity(word: str) -> tuple[bool, int, int]:
        return word.lower() in common_words, counts[word.lower()], places[word]

    return sorted(sorted(words, key=rarity)[:cap], key=places.__getitem__)


def _line_keywords(line: str, common_words: Collection[str]) -> Iterable[str]:
    words = split_text(clean_text(line))
    headline = _is_headline(words)
    for place, word in enumerate(words):
        lower = word.lower()
        if lower in _FUNCTION_WORDS or len(word) < 2:
            continue
        if lower not in common_words or any(c.isdigit() for c in word) or _is_name(words, place, headline):
            yield clean_keyword(word)


def _is_name(words: list[str], place: int, headline: bool) -> bool:
    word, following = words[place], words[place + 1 : place + 2]
    if headline:
        return not word.isupper() and any(c.isupper() for c in word[1:])
    first = word[0].isupper() and (place > 0 or any(c[0].isupper() for c in following))
    return first or any(c.isupper() for c in word[1:])


def _is_headline(words: list[str]) -> bool:
    """Whether a capital says nothing in this line: all words that could go without have one."""
    content = [word for word in words if word.lower() not in _FUNCTION_WORDS and word[0].isalpha()]
    return all(word[0].isupper() for word in content)


def _unique(words: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for word in words:
        seen.setdefault(word.lower(), word)
    return list(seen.values())
