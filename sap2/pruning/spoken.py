"""How a term is said that is written with digits, capitals or signs: other forms, beside the one that is written.

"GPT-4" is said "g p t four", and the spotter hears letters. Numbers are put into English words by num2words; acronyms
are spelled by their letters; a few signs have names. What a corpus writes is known only to those who trained on it, so
that the written form is always looked for as well.
"""

from __future__ import annotations

import functools
import itertools
import re

MOST = 6
"""Forms of one term at most."""
_SIGNS = {"&": "and", "+": "plus", "%": "percent", "@": "at", "#": "sharp"}
_PARTS = re.compile(
    r"(?P<number>\d+(?:,\d{3})+|(?<![\d.])\d+\.\d+(?![\d.])|\d+)(?P<ordinal>(?:st|nd|rd|th)\b)?"
    r"|(?P<dotted>(?:[^\W\d_]\.){2,})"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)"
    rf"|(?P<sign>[{re.escape(''.join(_SIGNS))}])",
    re.IGNORECASE,
)
_QUICK = re.compile(rf"[\d{re.escape(''.join(_SIGNS))}]|[A-Z]{{2}}|\w\.\w|\b[b-df-hj-np-tv-xz]{{2}}")
"""What every term that has other forms has."""
_LONGEST_ACRONYM = 5
_DOUBLED = re.compile(r"(?<=[^\W\d_b-df-hj-np-tv-xz])([b-df-hj-np-tv-xz])\1(?!\1)", re.IGNORECASE)
"""A doubled consonant after a vowel, and no acronym such as CNN."""
_SILENT = re.compile(r"\b(?:[Kk](?=n)|[Gg](?=n)|[Pp](?=[nst])|[Ww](?=r))(?=[nrst][aeiouy][^\W\d_])")
"""A first letter that English does not say (Knight, gnome, psalm, Wright); in no acronym, and in no word of three
letters."""
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]+")
_YEARS = range(1100, 2100)
_LONGEST_NUMBER = 15
"""Digits of a number that is said as one."""


def spoken_forms(term: str) -> list[str]:
    """Other ways to say a term, lower case; none where it is said as it is written.

    >>> spoken_forms("GPT-4")
    ['g p t four', 'gpt four']
    >>> spoken_forms("Kubernetes")
    []
    """
    if not _QUICK.search(term):
        return []
    ways = [_ways(match) for match in _PARTS.finditer(term)]
    forms = (" ".join(form) for form in itertools.product(*ways))
    found = dict.fromkeys(itertools.islice(forms, MOST))
    found.pop(" ".join(match[0].lower() for match in _PARTS.finditer(term)), None)
    return list(found)


def as_heard(form: str) -> str:
    """The form without letters that are not heard: doubled consonants are written once, and silent first letters of
    English are left out.

    A spotter hears letters, and of "Matisse" and "Matise", of "Wright" and "right" it hears the same. What it was
    taught to write for such a sound depends on the words of its training.

    >>> as_heard("Otto Weelloon")
    'Oto Weeloon'
    >>> as_heard("Knight")
    'night'
    """
    return _DOUBLED.sub(r"\1", _SILENT.sub("", form))


def _ways(match: re.Match[str]) -> list[str]:
    """How one part of a term may be said, the likeliest first."""
    if match["number"]:
        return _number(match["number"], bool(match["ordinal"]))
    if match["dotted"]:
        return [" ".join(match["dotted"].lower().replace(".", ""))]
    if match["sign"]:
        return [_SIGNS[match["sign"]]]
    return _word(match["word"])


def _word(word: str) -> list[str]:
    """An acronym by its letters, and as a word; a plural keeps its s."""
    stem, plural = (word[:-1], " s") if word[:-1].isupper() and word[-1] == "s" else (word, "")
    lower = stem.lower()
    if not 2 <= len(stem) <= _LONGEST_ACRONYM or not stem.isascii():
        return [word.lower()]
    if not (stem.isupper() or _CONSONANTS.fullmatch(lower)):
        return [word.lower()]
    return [" ".join(lower) + plural, word.lower()]


def _number(written: str, ordinal: bool) -> list[str]:
    """A number as one, as a year, and digit by digit."""
    digits = written.replace(",", "")
    if ordinal and len(digits) <= _LONGEST_NUMBER:
        return [_words(digits, "ordinal")]
    apart = " ".join(_words(digit, "cardinal") if digit.isdecimal() else "point" for digit in digits)
    ways = []
    if "." in digits or (len(digits) <= _LONGEST_NUMBER and not (digits.startswith("0") and len(digits) > 1)):
        ways.append(_words(digits, "cardinal"))
    if digits.isdecimal() and len(digits) == 4 and int(digits) in _YEARS:
        ways.insert(0, _words(digits, "year"))
    if len(digits) > 2 and digits == written and "." not in digits:
        ways.append(apart)
    return list(dict.fromkeys(ways or [apart]))


@functools.lru_cache(maxsize=1 << 14)
def _words(digits: str, kind: str) -> str:
    from num2words import num2words  # a tenth of a second, and most lists have no digits

    said = num2words(digits if "." in digits else int(digits), to=kind, lang="en")
    return " ".join(re.sub(r"[-,]", " ", said).split())
