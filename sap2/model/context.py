"""From a text with contexts to a text with placeholders, and the token ids that the placeholders stand for."""

from __future__ import annotations

import bisect
import copy
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sap2.errors import InputError
from sap2.lengths import pooled_length
from sap2.model.weights import HUB_ARGUMENTS
from sap2.prompts import (
    AUDIO_TOKEN,
    CONTEXT_TOKEN,
    END_OF_CONTEXT,
    SAP_TOKENS,
    START_OF_CONTEXT,
    close_list,
    divide_list,
)
from sap2.rows import find_contexts
from sap2.text import find_special

_READERS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, PreTrainedTokenizerBase] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class Context(NamedTuple):
    """A tokenised list of keywords.

    Attributes:
        ids: its tokens.
        numbers: the keyword that each token belongs to, from 1 and in order; a separator belongs to the one before it.
        keywords: as they stand in the list.
    """

    ids: list[int]
    numbers: list[int]
    keywords: list[str]


NO_CONTEXT = Context([], [], [])
"""That of an audio without one."""


class Expanded(NamedTuple):
    """Texts whose contexts are placeholders, and the context of each audio (an empty one where it has none)."""

    texts: list[str]
    contexts: list[Context]


def add_sap_tokens(tokenizer: PreTrainedTokenizerBase, embedding_rows: int) -> int:
    """Add the three tokens of SAP² where they are missing, keeping every other special token.

    Args:
        embedding_rows: rows of the model's token embedding; the new ids must be below.

    Returns:
        The id of :data:`sap2.prompts.CONTEXT_TOKEN`.

    Raises:
        InputError: the embedding has no row for a token.
    """
    # By default transformers replaces the list of extra special tokens, and <|AUDIO|> would stop being one.
    tokenizer.add_special_tokens({"extra_special_tokens": list(SAP_TOKENS)}, replace_extra_special_tokens=False)
    ids = tokenizer.convert_tokens_to_ids(list(SAP_TOKENS))
    if max(ids) >= embedding_rows:
        raise InputError(
            f"the tokens {', '.join(SAP_TOKENS)} need ids up to {max(ids)}, but the token embedding has "
            f"{embedding_rows} rows; use a checkpoint whose embedding has rows to spare (Qwen2-Audio-7B has), "
            f"or resize it to at least {max(ids) + 1} rows and save it first"
        )
    return ids[-1]


def context_token_id(source: str | os.PathLike[str], embedding_rows: int, **kwargs: Any) -> int | None:
    """The placeholder's id for the tokenizer in a folder or on the hub; None where there is no tokenizer.

    ``kwargs``: those of ``from_pretrained``; what concerns the hub is handed on.
    """
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    except (OSError, ValueError):
        return None
    if AUDIO_TOKEN not in tokenizer.get_added_vocab():
        return None  # transformers makes an empty tokenizer where it finds none
    return add_sap_tokens(tokenizer, embedding_rows)


def tokenize_context(tokenizer: PreTrainedTokenizerBase, body: str, closed: bool = False) -> Context:
    """The keywords between two delimiters, as plain text (:func:`sap2.prompts.divide_list`).

    Keywords come from slides and can be anything: no part of them may become a special token.

    Args:
        closed: give every keyword its separator (:func:`sap2.prompts.close_list`).

    Raises:
        InputError: the text holds a special token.
    """
    special = find_special(body)
    if special is not None:
        raise InputError(
            f"the keywords contain {special!r}, which is a special token; allowed: plain text "
            f"(sap2.text.clean_keywords makes it plain)"
        )
    body = close_list(body) if closed else body
    reader = _plain_reader(tokenizer)
    encoded = reader(body, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    keywords, starts = divide_list(body)
    numbers = [bisect.bisect_right(starts, end - 1) for _, end in encoded["offset_mapping"]]
    return Context(encoded["input_ids"], numbers, keywords)


def tokenize_terms(tokenizer: PreTrainedTokenizerBase, terms: Sequence[str]) -> list[list[int]]:
    """The tokens of each term by itself, as plain text."""
    if not terms:
        return []
    return _plain_reader(tokenizer)(list(terms), add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _plain_reader(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer for plain text only.

    A fast tokenizer keeps ``split_special_tokens`` as a state of its own, and ms-swift encodes the rows of a batch in
    threads: with one tokenizer for both, the special tokens of another row's prompt would now and then become text.
    """
    with _LOCK:
        if tokenizer not in _READERS:
            _READERS[tokenizer] = copy.deepcopy(tokenizer)
        return _READERS[tokenizer]


def expand_contexts(
    texts: Sequence[str],
    audio_mark: str,
    tokenizer: PreTrainedTokenizerBase,
    window_size: int | None,
    min_positions: int = 0,
    closed: bool = False,
) -> Expanded:
    """Replace the contexts of a conversation by their placeholders.

    A context belongs to the last audio before it.

    Args:
        texts: the turns that a user wrote, in order.
        audio_mark: what marks the place of an audio in them (``<audio>``, or ``<|AUDIO|>``).
        window_size: for one placeholder per window; None: one for each context that has a token, for a caller that
            repeats the ids itself.
        min_positions: see :func:`sap2.lengths.pooled_length`.
        closed: give every keyword its separator, as a pooling that moves keywords needs it
            (:data:`sap2.model.pooling.MOVING`).

    Raises:
        InputError: a delimiter is missing, in the wrong order or nested; a context without an audio before it; two
            contexts for one audio; a special token among the keywords.
    """
    expanded: list[str] = []
    contexts: list[Context | None] = []
    for text in texts:
        pieces, position = [], 0
        try:
            found = find_contexts(text)
        except ValueError as error:
            raise InputError(str(error)) from None
        for context in found:
            before = text[position : context.start]
            contexts += [None] * before.count(audio_mark)
            tokenized = tokenize_context(tokenizer, context.body, closed)
            if not contexts:
                raise InputError(f"the context {_shorten(context.body)!r} has no audio before it; allowed: audio first")
            if contexts[-1] is not None:
                raise InputError(f"audio {len(contexts)} has two contexts; allowed: one context for each audio")
            contexts[-1] = tokenized
            length = len(tokenized.ids)
            placeholders = CONTEXT_TOKEN * pooled_length(length, window_size or max(1, length), min_positions)
            pieces += [before, START_OF_CONTEXT, placeholders, END_OF_CONTEXT]
            position = context.end
        contexts += [None] * text.count(audio_mark, position)
        expanded.append("".join([*pieces, text[position:]]))
    return Expanded(expanded, [context or NO_CONTEXT for context in contexts])


def _shorten(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
