"""Keywords from slide text: the words that a recogniser would get wrong without the slide.

The rule, in this order (``docs/data.md`` tells it with an example):

1. Drop lines that repeat on most slides but for their numbers: headers, footers, dates, page numbers.
2. Clean the text and cut it into words: runs of letters and digits, with ``' - . & / +`` inside and ``+ #`` at the end,
   so that "C++", "GPT-4", "3.5" and "O'Reilly" stay whole.
3. Drop single letters, one-digit numbers (bullets, page numbers) and function words, unless they are written as a
   name: US, WHO, NeXT, or Go in the middle of a line.
4. Keep a word if it has a digit; or is not among the common words; or is written as a name: capitals inside
   ("iPhone", "GPU"), or a capital at its beginning, unless it begins a sentence or all words of the line have one (a
   headline), or it begins the line and the next word has none.
5. Drop repeats, whatever their case; the first spelling stays.
6. Over the cap, keep the rarest: words outside the common ones first, then those on the fewest slides, then the
   earliest.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sap2.text import clean_keyword, clean_text

DEFAULT_CAP = 100
"""Keywords of one list. The released SlideSpeech lists hold 50 of a slide."""
_FEWEST_SLIDES = 4  # on which "most" means something
_FUNCTION_WORDS = frozenset(Path(__file__).with_name("function_words.txt").read_text(encoding="utf-8").split())


class _Word(NamedTuple):
    """A word, and whether it begins its line or a sentence."""

    text: str
    first: bool


def split_text(text: str) -> list[str]:
    """The words of clean text, as :data:`the rule <sap2.slides.keywords>` cuts them."""
    return [word.text for word in _split(text)]


def _split(text: str) -> list[_Word]:
    words: list[_Word] = []
    position = 0
    for match in _word_pattern(text.isascii()).finditer(text):
        before = text[position : match.start()].strip()
        first = not words or before.endswith((".", "?", "!", ":", "。"))
        # a comma within a number would divide keywords
        words.append(_Word(match.group().replace("’", "'").replace(",", ""), first))
        position = match.end()
    return words


@functools.cache
def _word_pattern(ascii_only: bool) -> re.Pattern[str]:
    """What a word is; of other scripts, a letter takes the marks after it along (the vowels of Hindi)."""
    marks = "" if ascii_only else _marks()
    letter = rf"(?:[^\W_][{marks}]*)" if marks else r"[^\W_]"
    return re.compile(rf"{letter}+(?:(?:['’\-.&/+]|(?<=\d),(?=\d)){letter}+)*[+#]*")


def _marks() -> str:
    """Every mark that belongs to the letter before it, up to the end of the scripts that people write."""
    return "".join(re.escape(chr(c)) for c in range(0x300, 0x11FFF) if unicodedata.category(chr(c))[0] == "M")


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
    repeated = _repeated_lines(slides)
    return [
        _unique(
            word
            for line in text.splitlines()
            if _line_form(line) not in repeated
            for word in _line_keywords(line, common_words)
        )
        for text in slides
    ]


def _repeated_lines(slides: Sequence[str]) -> set[str]:
    """Lines that are on more than half of the slides, but for their numbers; none of a few slides."""
    texts = [text for text in slides if text.strip()]
    if len(texts) < _FEWEST_SLIDES:
        return set()
    counts = Counter(form for text in texts for form in {_line_form(line) for line in text.splitlines()} if form)
    return {form for form, count in counts.items() if 2 * count > len(texts)}


def _line_form(line: str) -> str:
    return re.sub(r"\d+", "#", " ".join(line.split()).casefold())


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
    words = _split(clean_text(line))
    headline, shouted = _is_headline(words), _is_shouted(words)
    for place, word in enumerate(words):
        text, lower = word.text, word.text.lower()
        if len(text) < 2:
            continue
        name = not shouted and _is_name(words, place, headline)
        if lower in _FUNCTION_WORDS:
            keep = name and (not word.first or any(c.isupper() for c in text[1:]))
        else:
            keep = name or lower not in common_words or any(c.isdigit() for c in text)
        if keep:
            yield clean_keyword(text)


def _is_name(words: list[_Word], place: int, headline: bool) -> bool:
    text, following = words[place].text, [word.text for word in words[place + 1 : place + 2]]
    if any(c.isupper() for c in text[1:]):
        return True
    if headline or not text[0].isupper():
        return False
    return not words[place].first or any(c[0].isupper() for c in following)


def _is_headline(words: list[_Word]) -> bool:
    """Whether a capital at the beginning says nothing in this line: all words that could go without have one."""
    content = [w.text for w in words if w.text.lower() not in _FUNCTION_WORDS and w.text[0].isalpha()]
    return all(text[0].isupper() for text in content)


def _is_shouted(words: list[_Word]) -> bool:
    """Whether capitals say nothing at all in this line: every letter is one."""
    letters = [text for text in (w.text for w in words) if text[0].isalpha()]
    return all(text.isupper() for text in letters)


def _unique(words: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for word in words:
        seen.setdefault(word.lower(), word)
    return list(seen.values())
