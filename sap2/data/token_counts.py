"""How many positions a row takes in the language model, before and after its contexts are compressed.

Uses the tokenizer of a model folder through ``tokenizers``, which needs no torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sap2.data.cutting import MAX_SECONDS, SAMPLE_RATE
from sap2.data.row_checks import RowParts
from sap2.errors import InputError
from sap2.lengths import audio_token_count, least_positions
from sap2.prompts import (
    AUDIO_BOS,
    AUDIO_EOS,
    AUDIO_TAG,
    DEFAULT_SYSTEM,
    IM_END,
    close_user_turn,
    open_user_turn,
    system_turn,
)
from sap2.rows import find_contexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HOP = 160  # samples of one mel frame


class TokenCounts(NamedTuple):
    """Positions of one row.

    Attributes:
        context: tokens of the keywords, before compression.
        pooled: embeddings that they become.
        before: the whole row with the context as it is.
        after: the whole row with the pooled context; what ``--max_length`` counts.
    """

    context: int
    pooled: int
    before: int
    after: int


class TokenCounter:
    """Counts tokens as the template of ms-swift does (ChatML, its default system turn, ``Audio N: …``).

    Args:
        model: folder with ``tokenizer.json``; the context window and the audio window come from its
            ``config.json`` and ``preprocessor_config.json`` where they say so.
        window: context tokens that become one embedding; None takes the model's, or 2.

    Raises:
        InputError: there is no tokenizer, or the window is below 1.
    """

    def __init__(self, model: str | os.PathLike[str], window: int | None = None) -> None:
        folder = Path(model)
        config = _read(folder / "config.json")
        self.window = window if window is not None else config.get("sap_window_size", 2)
        least = config.get("sap_min_positions")
        self.min_positions = least_positions(config.get("sap_pooling")) if least is None else least
        if not isinstance(self.window, int) or self.window < 1:
            raise InputError(f"window {self.window!r} must be a whole number from 1")
        self.max_seconds = float(_read(folder / "preprocessor_config.json").get("chunk_length", MAX_SECONDS))
        self._text = _load(folder / "tokenizer.json")
        self._plain = _load(folder / "tokenizer.json")
        # keywords are data: nothing in them becomes a special token
        self._plain.encode_special_tokens = True

    def count(self, parts: RowParts, seconds: list[float]) -> TokenCounts:
        """Count one row whose audios last that long."""
        context = pooled = 0
        for span in parts.contexts:
            length = len(self._plain.encode(span.body, add_special_tokens=False).ids)
            context += length
            pooled += max(-(-length // self.window), min(length, self.min_positions))
        fixed = sum(self._length(text) for text in self._texts(parts)) + 2 * len(parts.contexts)
        fixed += sum(_audio_tokens(length, self.max_seconds) for length in seconds)
        return TokenCounts(context, pooled, fixed + context, fixed + pooled)

    def _length(self, text: str) -> int:
        return len(self._text.encode(text, add_special_tokens=False).ids)

    def _texts(self, parts: RowParts) -> list[str]:
        """The row as pieces of text between contexts and audios; delimiters are special tokens, which divide text."""
        pieces, audio = [system_turn(DEFAULT_SYSTEM)], 0
        for text in parts.user:
            position = 0
            spans = [(context.start, context.end) for context in find_contexts(text)]
            open_turn = open_user_turn("")
            for start, end in [*spans, (len(text), len(text))]:
                piece = text[position:start]
                while AUDIO_TAG in piece:
                    audio += 1
                    piece = piece.replace(AUDIO_TAG, f"Audio {audio}: {AUDIO_BOS}{AUDIO_EOS}\n", 1)
                pieces.append(open_turn + piece)
                open_turn, position = "", end
            pieces[-1] += close_user_turn()
        if parts.reply is not None:
            pieces.append(f"{parts.reply}{IM_END}\n")
        return pieces


def _audio_tokens(seconds: float, max_seconds: float) -> int:
    frames = -(-round(min(seconds, max_seconds) * SAMPLE_RATE) // HOP)
    return audio_token_count(frames) if frames else 0


def _load(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise InputError(f"{path.parent}: no tokenizer.json; --model names a folder of a model with its tokenizer")
    return Tokenizer.from_file(str(path))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
