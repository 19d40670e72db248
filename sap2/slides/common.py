"""Words that are no keywords of slides, since every recogniser knows them.

English comes along: the 5,000 most frequent words of LibriSpeech's transcripts (``common_words_en.txt``, and its
licence beside it). Other languages come from the package wordfreq (https://github.com/rspeer/wordfreq), an extra.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from sap2.errors import InputError, MissingExtraError
from sap2.tables import read_lines

ENGLISH, NONE = "en", "none"
COUNT = 5000
"""Words of a language that are common."""


def read_words(path: str | os.PathLike[str]) -> list[str]:
    """The words of a list, one a line, in its order; a count after a tab is passed over.

    Raises:
        InputError: a line is not UTF-8.
    """
    return [line.split("\t")[0].strip().lower() for _, line in read_lines(path)]


def common_words(language: str = ENGLISH, path: str | os.PathLike[str] | None = None) -> frozenset[str]:
    """The common words of a language, lower case; those of the file instead where there is one.

    Args:
        language: ``en``, ``none`` for no words at all, or a language that wordfreq knows (``de``, ``zh``, …).

    Raises:
        InputError: nobody knows words of this language.
        ImportError: wordfreq is not installed; the message says how to install it.
    """
    return frozenset(read_words(path)) if path else _of_language(language.lower())


@functools.cache
def _of_language(language: str) -> frozenset[str]:
    if language == NONE:
        return frozenset()
    if language == ENGLISH:
        return frozenset(read_words(Path(__file__).with_name("common_words_en.txt")))
    try:
        import wordfreq
    except ModuleNotFoundError:
        raise MissingExtraError(f"language {language}", "wordfreq", "languages") from None
    known = wordfreq.available_languages()
    if language not in known:
        raise InputError(f"language {language!r} is unknown; allowed: {NONE}, {', '.join(sorted(known))}")
    return frozenset(wordfreq.top_n_list(language, COUNT))
