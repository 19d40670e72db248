"""Salience of keywords: which of them does the speech hold, by their spelling, before the language model reads them.

A small head on the speech embeddings gives each frame a distribution over bytes (CTC, Graves et al. 2006); a keyword's
salience is its best path through the frames, between two spaces, against what a keyword of its length is expected to
reach where it is not said. The head is trained on the transcripts along with everything else, and does not change what
it listens to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sap2.errors import InputError
from sap2.model.search import LOWEST, STEP, UNREACHED, best_paths, build_trie, frame_scores
from sap2.text import keep_results

SYMBOLS = 257
"""Blank, then the 256 bytes."""
WIDTH = 128
REACH = 4
"""Frames on either side that a frame is read with: 0.16 s."""
LONGEST_KEYWORD = 48
"""Bytes of a keyword that are looked for; more only takes time."""
SPACE = ord(" ") + 1
"""The symbol between words."""
LETTER_WORTH = 2.5
"""Nats that a letter adds to the salience of a keyword: about what it takes to guess one. Without it, a few letters
that are easily found in any speech stand before a name that is said and heard with an error."""
MISSING_SPACE = -3.0
"""Nats that a space costs at most in one frame: "emily" is found in "emily's", and "co-op" in "coop"."""
NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no space between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u0060\u00b4", "'"))


def spelling(text: str) -> list[int]:
    """Symbols of a text as it is spoken: lower case, composed, without punctuation, with marks and apostrophes.

    0 is the blank, a byte b of UTF-8 is b + 1. However the text is written in Unicode, its spelling is the same.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower())
    spoken = (c if c == "'" or c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return [byte + 1 for byte in " ".join("".join(spoken).split()).encode(errors="replace")]


@keep_results
def keyword_symbols(keyword: str) -> tuple[int, ...]:
    """Symbols of a keyword as it is looked for: its spelling between two spaces, where its script has spaces.

    What is longer than :data:`LONGEST_KEYWORD` is looked for by its beginning.
    """
    symbols = spelling(keyword)
    if not symbols or NO_SPACES.search(keyword):
        return tuple(symbols[:LONGEST_KEYWORD])
    return (SPACE, *symbols[:LONGEST_KEYWORD], *([SPACE] if len(symbols) <= LONGEST_KEYWORD else []))


def pad_spellings(keywords: Sequence[Sequence[str]]) -> Tensor:
    """Keywords of each audio → (audios, most keywords, longest) symbols to look for, int64, 0 = padding."""
    spelled = [[keyword_symbols(keyword) for keyword in of_audio] for of_audio in keywords]
    count = max([1, *map(len, spelled)])
    longest = max([1, *(len(symbols) for of_audio in spelled for symbols in of_audio)])
    lengths = np.zeros((len(keywords), count), dtype=np.int64)
    for row, of_audio in enumerate(spelled):
        lengths[row, : len(of_audio)] = [len(symbols) for symbols in of_audio]
    padded = np.zeros((len(keywords), count, longest), dtype=np.int64)
    symbols = (symbol for of_audio in spelled for one in of_audio for symbol in one)
    padded[np.arange(longest) < lengths[..., None]] = np.fromiter(symbols, dtype=np.int64, count=int(lengths.sum()))
    return torch.from_numpy(padded)


def pad_transcripts(transcripts: Sequence[str], audios: Sequence[int]) -> Tensor:
    """Transcripts of rows with so many audios each → (all audios, longest) symbols, int64, 0 = padding or unknown."""
    rows = [
        torch.tensor(spelling(transcript), dtype=torch.int64)
        for transcript, count in zip(transcripts, audios, strict=True)
        for _ in range(count)
    ]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class SpotterLinear(nn.Linear):
    """A layer of the spotter, untrained: the same in every process, whatever the random state is."""

    seed = 0

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """A fixed draw, as wide as suits inputs of variance 1."""
        numbers = torch.Generator("cpu").manual_seed(self.seed)
        self.weight.copy_(torch.randn(self.weight.shape, generator=numbers, device="cpu") * self.in_features**-0.5)
        self.bias.zero_()


class ZeroLinear(SpotterLinear):
    """A layer that adds nothing as long as it is untrained: whatever is heard, every symbol is as likely."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Zeros."""
        self.weight.zero_()
        self.bias.zero_()


class KeywordSpotter(nn.Module):
    """Speech embeddings (A, T, D) → log probabilities of the symbols (A, T, 257), float32.

    Each frame is read together with its neighbours, :data:`REACH` on either side: which letter a sound is depends on
    what is around it. Untrained, all symbols are equal, and so are all keywords of the same length.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.hidden = SpotterLinear(hidden_size, WIDTH)
        self.around = ZeroLinear((2 * REACH + 1) * WIDTH, WIDTH)
        self.symbols = ZeroLinear(WIDTH, SYMBOLS)

    def forward(self, speech: Tensor, mask: Tensor | None = None, untrained: bool = False) -> Tensor:
        """Listen.

        Args:
            mask: (A, T), True = valid; None: all are. What is not valid is not heard by its neighbours either.
            untrained: allow a spotter that has learnt nothing, as is always allowed in training mode.

        Raises:
            InputError: the spotter has learnt nothing.
        """
        speech = nn.functional.layer_norm(speech.float(), speech.shape[-1:]).to(self.hidden.weight.dtype)
        hidden = self.hidden(speech)
        heard = hidden.relu()
        if mask is not None:
            heard = heard.masked_fill(~mask.unsqueeze(-1), 0)
        padded = nn.functional.pad(heard, (0, 0, REACH, REACH))
        # (A, T, 2·REACH + 1, WIDTH), the earliest frame first
        near = padded.unfold(1, 2 * REACH + 1, 1).transpose(2, 3)
        symbols = self.symbols((hidden + self.around(near.flatten(2))).relu()).float()
        if not (untrained or self.training or symbols.any()):
            raise InputError(
                "the keyword spotter of this model is not trained; allowed: a model or an adapter trained with it "
                "(--sap_spotter true or --sap_pooling salience, on rows with a transcript) or by --sap_train spotter"
            )
        return symbols.log_softmax(-1)

    def is_trained(self) -> bool:
        """Whether it has learnt anything."""
        return bool(self.symbols.weight.any() or self.symbols.bias.any())


class Spelled(NamedTuple):
    """What is heard in each frame, for the search: ``scores`` (A, T + 2, symbols) int32 and ``mask`` (A, T + 2).

    Before the speech and after it there is a space, and a space costs no more than :data:`MISSING_SPACE`.
    """

    scores: Tensor
    mask: Tensor


def spelled_frames(log_probs: Tensor, speech_mask: Tensor) -> Spelled:
    """From log probabilities (A, T, symbols) and their mask (A, T), whose valid frames come first."""
    scores = frame_scores(log_probs)
    scores[..., SPACE].clamp_(min=round(MISSING_SPACE / STEP))
    space = scores.new_full(scores[:, :1].shape, round(LOWEST / STEP))
    space[..., SPACE] = 0
    scores = torch.cat([space, scores, space], 1)
    ends = speech_mask.sum(-1) + 1
    scores[torch.arange(len(ends), device=ends.device), ends] = space[:, 0]
    return Spelled(scores, torch.arange(scores.shape[1], device=ends.device)[None] <= ends[:, None])


@torch.no_grad()
def keyword_salience(log_probs: Tensor, speech_mask: Tensor, spellings: Tensor) -> Tensor:
    """Salience of each keyword: the log probability of its best path, relative to the best symbols of its frames, and
    :data:`LETTER_WORTH` for each of its letters.

    Args:
        log_probs: (A, T, symbols) of the spotter.
        speech_mask: (A, T), True = valid; the valid frames come first.
        spellings: (A, K, n) of :func:`pad_spellings`.

    Returns:
        (A, K); -inf where a keyword has no symbol or does not fit into the frames.
    """
    best = best_paths(*spelled_frames(log_probs, speech_mask), build_trie(spellings.cpu().numpy()))
    letters = ((spellings > 0) & (spellings != SPACE)).sum(-1)
    return (best * STEP + LETTER_WORTH * letters).masked_fill(best == UNREACHED, -torch.inf)


def spotting_loss(log_probs: Tensor, speech_mask: Tensor, transcripts: Tensor) -> Tensor:
    """CTC loss of the transcripts (A, n; 0 = padding), mean over the symbols and then over the audios that have one."""
    # every tensor on one device: the parts of a model may lie on several
    device = log_probs.device
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        device = torch.device("cpu")  # the backward pass on a GPU has no fixed order of its sums
    log_probs, speech_mask, transcripts = (tensor.to(device) for tensor in (log_probs, speech_mask, transcripts))
    lengths = (transcripts > 0).sum(-1)
    losses = nn.functional.ctc_loss(
        log_probs.transpose(0, 1), transcripts, speech_mask.sum(-1), lengths, reduction="none", zero_infinity=True
    )
    known = lengths > 0
    return (losses / lengths.clamp(min=1)).masked_fill(~known, 0).sum() / known.sum().clamp(min=1)
