"""Text rules shared by data preparation, the model's input and the evaluation: cleaning, normalising, matching.

Standard library only; the Whisper normalisers are imported when they are asked for.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

NORMALIZERS = ("none", "basic", "whisper-en")

# Every special token of Qwen2-Audio ("<|im_end|>", "<|AUDIO|>") and every tag of ms-swift ("<audio>", "<image>")
# is made with these characters, and no word is spoken with them: without them, no text can be read as a token.
_MARKUP = re.compile(r"[<>|]")
_SPECIAL = re.compile(r"<\|[^\s<>|]+\|>|</?(?:audio|image|video|img|bbox|ref-object|cot-process|start-image)>", re.I)
_SPACES = re.compile(r"\s+")
_CJK = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, unified ideographs, compatibility ideographs
    "\U00020000-\U0003134f"  # ideographs outside the basic plane
)
_CHAR_OR_WORD = re.compile(f"[{_CJK}]|[^\\s{_CJK}]+")


def find_special(text: str) -> str | None:
    """The first part of ``text`` that a tokenizer or ms-swift would read as a special token, or None."""
    match = _SPECIAL.search(text)
    return match.group() if match else None


def clean_text(text: str) -> str:
    """Untrusted text as plain words: no markup that forms a special token, no control or invisible format
    characters (right-to-left marks, zero-width spaces), single spaces."""
    text = unicodedata.normalize("NFKC", text)
    text = _MARKUP.sub(" ", text)
    # Cc control, Cf format, Cs surrogate, Co private use, Cn unassigned: nothing that is spoken
    text = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return _SPACES.sub(" ", text).strip()


def clean_keyword(text: str) -> str:
    """One keyword that is safe between the context delimiters; empty where nothing is left.

    Commas separate keywords in a row (:data:`sap2.prompts.KEYWORD_SEPARATOR`), so that one inside becomes a space.
    """
    return _SPACES.sub(" ", clean_text(text).replace(",", " ")).strip()


def clean_keywords(keywords: Iterable[str]) -> list[str]:
    """Clean keywords, in order, each once (case is ignored when looking for repeats)."""
    seen: dict[str, str] = {}
    for keyword in map(clean_keyword, keywords):
        if keyword:
            seen.setdefault(keyword.casefold(), keyword)
    return list(seen.values())


@functools.cache
def get_normalizer(name: str) -> Callable[[str], str]:
    """The normaliser of that name.

    ``none`` leaves the text as it is; ``basic`` and ``whisper-en`` are Whisper's two (Radford et al. 2022,
    appendix C), from the whisper-normalizer package; the published SlideSpeech numbers use ``whisper-en``.

    Raises:
        ValueError: the name is not one of :data:`NORMALIZERS`.
    """
    if name == "none":
        return str
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        return BasicTextNormalizer()
    if name == "whisper-en":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    raise ValueError(f"normalizer {name!r} is unknown; allowed: {', '.join(NORMALIZERS)}")


def split_words(text: str, char: bool = False) -> list[str]:
    """The words of a text. With ``char``, Chinese and Japanese characters one by one and the rest by word."""
    return _CHAR_OR_WORD.findall(text) if char else text.split()


def contains_words(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether ``phrase`` occurs in ``words`` as a run of whole words."""
    n = len(phrase)
    return n > 0 and any(list(words[i : i + n]) == list(phrase) for i in range(len(words) - n + 1))


def spoken_keywords(
    keywords: Iterable[str], transcript: str, normalizer: str = "none", char: bool = False
) -> list[str]:
    """The keywords that occur in the transcript as word sequences, in the order of the list.

    Case is ignored. Both sides go through the same normaliser as in the evaluation.
    """
    normalize = get_normalizer(normalizer)

    def words_of(text: str) -> list[str]:
        return split_words(normalize(text).casefold(), char)

    words = words_of(transcript)
    vocabulary = set(words)
    found = []
    for keyword in keywords:
        phrase = words_of(keyword)
        if phrase and vocabulary.issuperset(phrase) and contains_words(words, phrase):
            found.append(keyword)
    return found
