"""How many positions a row takes in the language model, before and after its contexts are compressed.

Uses the tokenizer of a model folder through ``tokenizers``, which needs no torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sap2.data.row_checks import RowParts
from sap2.errors import InputError
from sap2.lengths import MAX_SECONDS, SAMPLING_RATE, least_positions, pooled_length, speech_token_count
from sap2.prompts import AUDIO_BOS, AUDIO_EOS, AUDIO_TAG, DEFAULT_SYSTEM, IM_END, IM_START, close_list
from sap2.rows import find_contexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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
        min_positions: embeddings that a context becomes at least; None takes the model's, or 0.

    Raises:
        InputError: there is no tokenizer, or the window is below 1.
    """

    def __init__(
        self, model: str | os.PathLike[str], window: int | None = None, min_positions: int | None = None
    ) -> None:
        folder = Path(model)
        config = _read(folder / "config.json")
        self.window = window if window is not None else config.get("sap_window_size", 2)
        by_config = config.get("sap_min_positions")
        by_config = least_positions(config.get("sap_pooling")) if by_config is None else by_config
        self.min_positions = by_config if min_positions is None else min_positions
        for what, value, least in (("window", self.window, 1), ("min-positions", self.min_positions, 0)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"{what} {value!r} must be a whole number from {least}")
        # only salience has least positions; it gives every keyword its separator
        self.closed = config.get("sap_pooling") == "salience" or self.min_positions > 0
        self.max_seconds = float(_read(folder / "preprocessor_config.json").get("chunk_length", MAX_SECONDS))
        self._text = _load(folder / "tokenizer.json")
        self._plain = _load(folder / "tokenizer.json")
        # keywords are data: nothing in them becomes a special token
        self._plain.encode_special_tokens = True

    def count(self, parts: RowParts, seconds: list[float]) -> TokenCounts:
        """Count one row whose audios last that long."""
        context = pooled = 0
        for span in parts.contexts:
            body = close_list(span.body) if self.closed else span.body
            length = len(self._plain.encode(body, add_special_tokens=False).ids)
            context += length
            pooled += pooled_length(length, self.window, self.min_positions)
        fixed = sum(self._length(text) for text in self._texts(parts)) + 2 * len(parts.contexts)
        heard = (round(min(length, self.max_seconds) * SAMPLING_RATE) for length in seconds)
        fixed += sum(map(speech_token_count, heard))
        return TokenCounts(context, pooled, fixed + context, fixed + pooled)

    def _length(self, text: str) -> int:
        return len(self._text.encode(text, add_special_tokens=False).ids)

    def _texts(self, parts: RowParts) -> list[str]:
        """The row in ChatML as pieces of text between its contexts; delimiters are special tokens, which divide text.

        Without any tag in the text, ms-swift puts the audios in front of it.
        """
        turns = list(parts.turns)
        if turns[0][0] != "system":
            turns.insert(0, ("system", DEFAULT_SYSTEM))
        missing = len(parts.audios) - sum(text.count(AUDIO_TAG) for text in parts.user)
        first = next(index for index, (role, _) in enumerate(turns) if role == "user")
        turns[first] = ("user", AUDIO_TAG * missing + turns[first][1])
        pieces, audio = [""], 0
        for role, text in turns:
            # an empty system prompt is left out
            if role == "system" and not text:
                continue
            position = 0
            pieces[-1] += f"{IM_START}{role}\n"
            spans = [(context.start, context.end) for context in find_contexts(text)] if role == "user" else []
            for start, end in [*spans, (len(text), len(text))]:
                piece, audio = _with_audio_marks(text[position:start], audio)
                pieces[-1] += piece
                pieces.append("")
                position = end
            pieces[-1] += f"{IM_END}\n"
        if parts.reply is None:
            pieces[-1] += f"{IM_START}assistant\n"
        return pieces


def _with_audio_marks(text: str, audio: int) -> tuple[str, int]:
    """The text with the marks around each audio, and the number of the last."""
    while AUDIO_TAG in text:
        audio += 1
        text = text.replace(AUDIO_TAG, f"Audio {audio}: {AUDIO_BOS}{AUDIO_EOS}\n", 1)
    return text, audio


def _load(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise InputError(f"{path.parent}: no tokenizer.json; --model names a folder of a model with its tokenizer")
    return Tokenizer.from_file(str(path))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
