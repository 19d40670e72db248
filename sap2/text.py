"""Text rules shared by data preparation, the model's input and the evaluation: cleaning, normalising, matching.

Standard library only; the Whisper normalisers are imported when they are asked for.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, ParamSpec, TypeVar, cast

from sap2.errors import InputError
from sap2.prompts import OTHER_SEPARATORS

NORMALIZERS = ("none", "basic", "whisper-en")
_KEPT = 1 << 16
_LONGEST_KEPT = 200
_LISTS = 32
_LONGEST_LIST = 1 << 15

# Every special token of Qwen2-Audio ("<|im_end|>", "<|AUDIO|>") and every tag of ms-swift ("<audio>", "<image>")
# is made with these characters, and no word is spoken with them: without them, no text can be read as a token.
_MARKUP = re.compile(r"[<>|]")
_SPECIAL = re.compile(r"<\|[^\s<>|]+\|>|</?(?:audio|image|video|img|bbox|ref-object|cot-process|start-image)>", re.I)
_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ＇"), "'")
_SPACES = re.compile(r"\s+")
_BETWEEN_KEYWORDS = re.compile(f"[{OTHER_SEPARATORS}]")
_PUNCTUATION = frozenset("!,?、。！，；？：「」︰『』《》")
_WENET_SPACES = " \t\r\n"
_WORD = re.compile(r"[\s\S][^ \t\r\n\u0080-\U0010ffff]*")
_TAG = re.compile(r"<[^ \t\r\n>\u0080-\U0010ffff]*>?")

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_Key = TypeVar("_Key", str, tuple[str, ...])


def keep_results(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Keep what a function makes of keywords (its first argument), since those of a list come back with each utterance.

    The latest results are kept, and none of a long text: what callers of a server send must not fill the memory.
    """
    kept = cast(Callable[_Given, _Result], functools.lru_cache(maxsize=_KEPT)(function))

    @functools.wraps(function)
    def call(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        return (kept if len(cast(str, args[0])) <= _LONGEST_KEPT else function)(*args, **kwargs)

    return call


def keep_list_results(function: Callable[[_Key], _Result]) -> Callable[[_Key], _Result]:
    """Keep what a function makes of a whole list (a text or a tuple of texts), since the same one comes with each
    utterance of a talk, and with each request of a caller.

    The results of the latest lists are kept, and none of a long one, which is worked through each time.
    """
    kept = cast(Callable[[_Key], _Result], functools.lru_cache(maxsize=_LISTS)(function))

    @functools.wraps(function)
    def call(texts: _Key) -> _Result:
        length = len(texts) if isinstance(texts, str) else sum(map(len, texts))
        return (kept if length <= _LONGEST_LIST else function)(texts)

    return call


def find_special(text: str) -> str | None:
    """The first part of ``text`` that a tokenizer or ms-swift would read as a special token, or None."""
    match = _SPECIAL.search(text)
    return match.group() if match else None


def clean_text(text: str) -> str:
    """Untrusted text as plain words: no markup that forms a special token, no control or invisible format
    characters (right-to-left marks, zero-width spaces), composed letters (é is one character), marks
    that belong to letters, ' for ’, single spaces."""
    if not (text.isascii() and text.isprintable()):
        # Cc control, Cf format, Cs surrogate, Co private use, Cn unassigned: nothing that is spoken
        text = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
        # after the removal: what a hidden character held apart may compose now; before the markup: ＜ becomes <
        text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    return _SPACES.sub(" ", _MARKUP.sub(" ", text)).strip()


@keep_results
def clean_keyword(text: str) -> str:
    """One keyword that is safe between the context delimiters; empty where nothing is left.

    Commas and the like separate keywords in a row (:func:`sap2.prompts.divide_list`): one inside becomes a space.
    """
    return _SPACES.sub(" ", _BETWEEN_KEYWORDS.sub(" ", clean_text(text))).strip()


def clean_keywords(keywords: Iterable[str]) -> list[str]:
    """Clean keywords, in order, each once (case is ignored when looking for repeats)."""
    seen: dict[str, str] = {}
    for keyword in map(clean_keyword, keywords):
        if keyword:
            seen.setdefault(keyword.casefold(), keyword)
    return list(seen.values())


class Matches(NamedTuple):
    """Predictions of stage one against its list.

    Attributes:
        chosen: keywords of the list that were predicted, in the list's order.
        unlisted: predictions that are in no way in the list.
        ways: how many predictions were found how: :data:`WAYS`.
    """

    chosen: list[str]
    unlisted: list[str]
    ways: dict[str, int]


WAYS = ("as written", "spelled differently", "by a part", "several without commas")
_SHORTEST_PART = 3
"""Letters of a prediction that may name an entry by a part of it."""


def match_listed(predicted: Iterable[str], keywords: Sequence[str]) -> Matches:
    """Match what stage one replied with the list that it was given.

    In this order: as written, but for case and a final full stop; the same letters and digits ("coop" for "co-op",
    "dont" for "don’t"); a part of one entry and of no other ("wozniak" for "steve wozniak"); several entries in a row.
    """
    forms = [_reply_form(keyword) for keyword in keywords]
    letters = [_letters(keyword) for keyword in keywords]
    words = [[_letters(word) for word in form.split()] for form in forms]
    found: set[int] = set()
    unlisted, ways = [], dict.fromkeys(WAYS, 0)
    for prediction in predicted:
        form, spelled = _reply_form(prediction), _letters(prediction)
        parts = [part for part in map(_letters, form.split()) if part]
        for way, places in (
            ("as written", [i for i, listed in enumerate(forms) if listed == form]),
            ("spelled differently", [i for i, listed in enumerate(letters) if spelled and listed == spelled]),
            ("by a part", _only([i for i, listed in enumerate(words) if contains_words(listed, parts)], spelled)),
            ("several without commas", _in_a_row(parts, words)),
        ):
            if places:
                found.update(places)
                ways[way] += 1
                break
        else:
            unlisted.append(prediction)
    return Matches([keyword for i, keyword in enumerate(keywords) if i in found], unlisted, ways)


def choose_listed(predicted: Iterable[str], keywords: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keywords of the list that were predicted, and the predictions that it lacks (:func:`match_listed`)."""
    matches = match_listed(predicted, keywords)
    return matches.chosen, matches.unlisted


def _only(places: list[int], spelled: str) -> list[int]:
    return places if len(places) == 1 and len(spelled) >= _SHORTEST_PART else []


def _in_a_row(parts: list[str], words: Sequence[Sequence[str]]) -> list[int]:
    """Entries that make up all the parts, one after the other, the longest first where two would do."""
    places: list[int] = []
    while parts:
        fitting = [i for i, listed in enumerate(words) if listed and parts[: len(listed)] == listed]
        if not fitting:
            return []
        places.append(max(fitting, key=lambda i: len(words[i])))
        parts = parts[len(words[places[-1]]) :]
    return places


def _reply_form(keyword: str) -> str:
    return clean_keyword(keyword).casefold().rstrip(".")


@keep_results
def _letters(text: str) -> str:
    """Letters and digits alone, without accents: what two spellings of a name share."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if c.isalnum() or _is_vowel_sign(c))


def _is_vowel_sign(c: str) -> bool:
    """A mark that is a letter of its script (Hindi, Thai, …); an accent has a place above or below its letter."""
    return unicodedata.category(c).startswith("M") and unicodedata.combining(c) == 0


@functools.cache
def get_normalizer(name: str) -> Callable[[str], str]:
    """The normaliser of that name.

    ``none`` leaves the text as it is; ``basic`` and ``whisper-en`` are Whisper's two (Radford et al. 2022,
    appendix C), from the whisper-normalizer package; the published SlideSpeech numbers use ``whisper-en``.

    Raises:
        InputError: the name is not one of :data:`NORMALIZERS`.
    """
    if name == "none":
        return str
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        return BasicTextNormalizer()
    if name == "whisper-en":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    raise InputError(f"normalizer {name!r} is unknown; allowed: {', '.join(NORMALIZERS)}")


def split_words(text: str, char: bool = False) -> list[str]:
    """The words of a text: split at white space, or with ``char`` as wenet's scorer splits mixed text.

    With ``char``, each character of a script without cases (Unicode category Lo: Chinese, Japanese, Korean, Thai, ...)
    is a word, the marks of :data:`_PUNCTUATION` between words are dropped, and the rest goes by word: a word runs up to
    a space or the next character outside ASCII; ``<tag>`` is a word of its own.

    Source: the rules of ``tools/compute-wer.py`` of wenet-e2e/wenet, which the SlideSpeech scorer shares.

    >>> split_words("我们 use GPU训练", char=True)
    ['我', '们', 'use', 'GPU', '训', '练']
    """
    if not char:
        return text.split()
    words: list[str] = []
    position = 0
    while position < len(text):
        first = text[position]
        category = unicodedata.category(first)
        if first in _PUNCTUATION or first in _WENET_SPACES or category in ("Zs", "Cn"):
            position += 1
            continue
        # every pattern matches at least the first character
        end = position + 1 if category == "Lo" else (_TAG if first == "<" else _WORD).match(text, position).end()
        words.append(text[position:end])
        position = end
    return words


def contains_words(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether ``phrase`` occurs in ``words`` as a run of whole words."""
    n = len(phrase)
    return n > 0 and any(list(words[i : i + n]) == list(phrase) for i in range(len(words) - n + 1))


def spoken_keywords(
    keywords: Iterable[str], transcript: str, normalizer: str = "none", char: bool = False
) -> list[str]:
    """The keywords that occur in the transcript as word sequences, in the order of the list.

    Case is ignored, and whether accents are composed. Both sides go through the same normaliser as in the evaluation.
    """
    words = _words_of(transcript, normalizer, char)
    vocabulary = set(words)
    found = []
    for keyword in keywords:
        phrase = _keyword_words(keyword, normalizer, char)
        if phrase and vocabulary.issuperset(phrase) and contains_words(words, phrase):
            found.append(keyword)
    return found


def _words_of(text: str, normalizer: str, char: bool) -> list[str]:
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    return split_words(get_normalizer(normalizer)(text).casefold(), char)


@keep_results
def _keyword_words(keyword: str, normalizer: str, char: bool) -> tuple[str, ...]:
    return tuple(_words_of(keyword, normalizer, char))
