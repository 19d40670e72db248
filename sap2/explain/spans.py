"""The words of a reply, and the tokens that spell them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sap2.pipeline.words import find_words
from sap2.prompts import IM_END
from sap2.spelling import find_keywords


class WordSpan(NamedTuple):
    """A word of a reply, as the model wrote it, and its ``tokens``: numbers in the reply, from 0."""

    text: str
    tokens: list[int]


class SpelledReply(NamedTuple):
    """The R token ids of a reply, the one that ends it included, and the words of its transcript."""

    ids: list[int]
    words: list[WordSpan]


def spell_reply(reply: str, transcript: str, tokenizer: PreTrainedTokenizerBase) -> SpelledReply:
    """Divide a reply into words.

    A token that spells parts of two words belongs to both.

    Args:
        reply: what the model said.
        transcript: the part of it that is the transcript.
    """
    encoded = tokenizer(reply + IM_END, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    start = max(0, reply.rfind(transcript))
    words = []
    for place in find_words(transcript):
        first, last = start + place.start, start + place.end
        tokens = [n for n, (begin, end) in enumerate(offsets) if max(begin, first) < min(end, last)]
        if tokens:
            words.append(WordSpan(reply[first:last], tokens))
    return SpelledReply(encoded["input_ids"], words)


def word_keywords(text: str, keywords: Iterable[str]) -> list[str | None]:
    """The keyword that each word of a text belongs to, as the list writes it; None where it belongs to none."""
    found = list(find_keywords(text, keywords))
    return [
        next((one.keyword for one in found if one.start < place.end and place.start < one.end), None)
        for place in find_words(text)
    ]
