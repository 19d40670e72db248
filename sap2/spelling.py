"""Case, punctuation and spelling: what a model was trained to read, and what a person wants to read.

Slides write names with capitals; corpora and their lists are often lower case. A list is offered to a model in the
case of its training, and without punctuation where that had none; the transcript is given back in the spelling of the
slides. Standard library only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sap2.prompts import OTHER_SEPARATORS, START_OF_CONTEXT
from sap2.rows import find_contexts
from sap2.text import keep_results

CASES = ("keep", "lower", "upper")
"""What is done to the case of a keyword."""

_PART = re.compile(r"[^\W_]+")
_JOINT = r"[\s'’\-.&/+]*"
_MIN_LETTERS = 2
_BETWEEN = re.compile(f"([,{OTHER_SEPARATORS}])")


def apply_case(text: str, case: str) -> str:
    """The text in that case."""
    return {"keep": text, "lower": text.lower(), "upper": text.upper()}[case]


class Writing(NamedTuple):
    """How a model is told its keywords.

    Attributes:
        case: one of :data:`CASES`.
        words: whether punctuation and symbols become spaces ("GPT-4" is told as "GPT 4"); apostrophes stay.
    """

    case: str = "keep"
    words: bool = False

    def of(self, keyword: str) -> str:
        """The keyword as it is told; with its punctuation where nothing else is in it ("++")."""
        bare = " ".join("".join(" " if is_mark(c) else c for c in keyword).split()) if self.words else ""
        return apply_case(bare or keyword, self.case)


def is_mark(character: str) -> bool:
    """Whether a character is punctuation or a symbol, and no apostrophe within a word."""
    return unicodedata.category(character)[0] in "PS" and character not in "'’"


def rewrite_contexts(content: str, writing: Writing) -> str:
    """A user's turn with the keywords of its contexts written so, and all else as it stands."""
    for context in reversed(find_contexts(content)):
        start = context.start + len(START_OF_CONTEXT)
        end = start + len(context.body)
        told = "".join(_told(part, writing) for part in _BETWEEN.split(context.body))
        content = content[:start] + told + content[end:]
    return content


@keep_results
def _told(part: str, writing: Writing) -> str:
    """A keyword with the spaces around it, or a separator."""
    keyword = part.strip()
    if not keyword or _BETWEEN.fullmatch(part):
        return part
    before, _, after = part.partition(keyword)
    return before + writing.of(keyword) + after


def spell_as_listed(text: str, keywords: Iterable[str]) -> str:
    """A transcript in which the listed keywords are written as in the list.

    A keyword is found whatever its case, and whatever stands between its parts ("gpt 4" for "GPT-4"). A word that
    the model wrote with a capital among small letters is left as it is.

    >>> spell_as_listed("steve wozniak met gpt 4", ["Wozniak", "GPT-4"])
    'steve Wozniak met GPT-4'
    """
    written, position = [], 0
    for start, end, keyword in find_keywords(text, keywords):
        said = text[start:end]
        written += [text[position:start], keyword if said in (said.lower(), said.upper()) else said]
        position = end
    return "".join([*written, text[position:]])


class FoundKeyword(NamedTuple):
    """Where a keyword stands in a text, [start, end), and how the list writes it."""

    start: int
    end: int
    keyword: str


def find_keywords(text: str, keywords: Iterable[str]) -> Iterator[FoundKeyword]:
    """The listed keywords in a text, in order, whatever their case and what stands between their parts.

    Where several could stand in a place it is the longest. Keywords with fewer than two letters and digits ("C++") are
    left out: they would be found in other words' places.
    """
    spellings: dict[str, str] = {}
    letters = letters_of(text)
    for keyword in keywords:  # a pattern of a whole list takes longer to make than a transcript
        if len(key := letters_of(keyword)) >= _MIN_LETTERS and key in letters:
            spellings.setdefault(key, keyword)
    if not spellings:
        return
    forms = sorted(spellings.values(), key=lambda keyword: -len(letters_of(keyword)))
    alternatives = "|".join(_JOINT.join(map(re.escape, _PART.findall(keyword))) for keyword in forms)
    for match in re.finditer(rf"(?<!\w)(?:{alternatives})(?!\w)", text, re.IGNORECASE):
        if (key := letters_of(match.group())) in spellings:  # re takes ı for i, which are two letters
            yield FoundKeyword(match.start(), match.end(), spellings[key])


@keep_results
def letters_of(text: str) -> str:
    """The letters and digits of a text, case folded: what two ways to write a keyword have in common."""
    return "".join(_PART.findall(text)).casefold()
