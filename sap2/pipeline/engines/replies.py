"""From generated tokens to replies: at once, or piece by piece while they come.

Where a reply is streamed, the thread that generates puts tokens into a queue, and the reader makes text of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from queue import SimpleQueue

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sap2.pipeline.engines.base import Reply
from sap2.prompts import IM_END

UNFINISHED = "�"
"""What a tokenizer makes of a character of which not all tokens are there."""


def read_replies(generated: Tensor, steps: Sequence[Tensor], tokenizer: PreTrainedTokenizerBase) -> list[Reply]:
    """Replies of the generated ids (B, new tokens).

    Padding and the token that ends the reply are left out; special tokens within a reply stay visible.

    Args:
        steps: for each new token, the log probabilities (B,).
    """
    rows = zip(generated.tolist(), torch.stack(list(steps), 1).tolist(), strict=True)
    return [read_reply(ids, log_probs, tokenizer) for ids, log_probs in rows]


def read_reply(generated: Sequence[int], log_probs: Sequence[float], tokenizer: PreTrainedTokenizerBase) -> Reply:
    """One reply of its ids and their log probabilities; see :func:`read_replies`."""
    pad = tokenizer.pad_token_id
    complete = not {pad, *_ends(tokenizer)}.isdisjoint(generated)
    pieces = [tokenizer.decode([token]) for token in generated if token != pad]
    spoken = [log_prob for token, log_prob in zip(generated, log_probs, strict=True) if token != pad]
    return Reply(read_text(generated, tokenizer), complete, pieces, spoken)


def read_text(generated: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a reply of its ids; see :func:`read_replies`."""
    ids = [token for token in generated if token != tokenizer.pad_token_id]
    for end in _ends(tokenizer):
        ids = ids[:-1] if ids and ids[-1] == end else ids
    return tokenizer.decode(ids, skip_special_tokens=False, spaces_between_special_tokens=False)


def _ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer.convert_tokens_to_ids([tokenizer.eos_token, IM_END])


class TokenQueue:
    """Tokens of one reply on their way from the thread that generates to the one that reads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Sequence[int], Sequence[float]] | BaseException | None] = SimpleQueue()

    def put(self, ids: Sequence[int], log_probs: Sequence[float]) -> None:
        """Hand on the next tokens and their log probabilities."""
        self._queue.put((ids, log_probs))

    def end(self, error: BaseException | None = None) -> None:
        """Say that there are no more, or why there will be none."""
        self._queue.put(error)

    def __iter__(self) -> Iterator[tuple[Sequence[int], Sequence[float]]]:
        while (step := self._queue.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield step


def read_stream(tokens: TokenQueue, tokenizer: PreTrainedTokenizerBase) -> Generator[str, None, Reply]:
    """The text in pieces, each as soon as its characters are whole; returns the reply, whose text they make up."""
    ids: list[int] = []
    log_probs: list[float] = []
    said = ""
    for new_ids, new_log_probs in tokens:
        ids += new_ids
        log_probs += new_log_probs
        text = read_text(ids, tokenizer).rstrip(UNFINISHED)
        if len(text) > len(said):
            yield text[len(said) :]
            said = text
    reply = read_reply(ids, log_probs, tokenizer)
    if len(reply.text) > len(said):  # it ends in the middle of a character
        yield reply.text[len(said) :]
    return reply
