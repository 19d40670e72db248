"""The seam between our model, which hears, pools and embeds, and the language model, which generates.

An engine gets prompts as the embeddings that the language model reads (speech and pooled context in place), and the
stage, which tells the adapter. To add one, write a class with :class:`Engine`'s methods in a module of this folder and
hand it to :class:`sap2.pipeline.decoder.Decoder`. Stages, batches, results and errors know nothing of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class EmbeddedPrompt(NamedTuple):
    """One prompt.

    Attributes:
        input_ids: its S token ids, placeholders included; a repetition penalty looks at them.
        embeddings: (S, D), what the language model reads.
    """

    input_ids: list[int]
    embeddings: Tensor


class Reply(NamedTuple):
    """One reply.

    Attributes:
        text: without the token that ends it.
        complete: whether it came to its end; False where it reached the limit of tokens.
        pieces: the text of each token, the one that ends the reply included.
        log_probs: of each token, given all before it.
    """

    text: str
    complete: bool
    pieces: list[str]
    log_probs: list[float]


class Engine(Protocol):
    """Greedy decoding with one base model and an adapter for each stage.

    Attributes:
        max_length: positions of a prompt and its reply at most.
    """

    max_length: int

    def generate(self, stage: str, prompts: Sequence[EmbeddedPrompt], max_new_tokens: int) -> list[Reply]:
        """Replies in the order of the prompts.

        Args:
            stage: whose adapter speaks; the base model where the stage has none.
            max_new_tokens: longest reply.
        """
        ...

    def stream(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Generator[str, None, Reply]:
        """The text of one reply in pieces, as they come; returns the reply, whose text they make up.

        The generator asks when its first piece is asked for. Closed before its end, it ends the reply, for which nobody
        waits any more.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. Calling it again does nothing."""
        ...


@runtime_checkable
class ConcurrentEngine(Engine, Protocol):
    """An engine that takes prompts at any time and works on many at once; no reply waits for those of others."""

    def submit(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Future[Reply]:
        """Ask for one reply; safe to call from several threads.

        The future raises :class:`sap2.errors.EngineError` where the engine has died.
        """
        ...
