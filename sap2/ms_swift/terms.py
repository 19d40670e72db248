"""Terms of a batch, from which the retriever learns: what is spoken of the lists of its rows, looked for in all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sap2.model.context import tokenize_terms
from sap2.model.retriever import NO_TERM, NO_TOKEN
from sap2.rows import Row, row_keywords
from sap2.text import clean_keywords, spoken_keywords

MOST = 100
"""Terms of a batch at most."""
NORMALIZER = "whisper-en"
"""Finds them in the transcripts; that of the data tools."""


def spoken_terms(keywords: Sequence[str], transcript: str) -> list[str]:
    """The terms of a row: the keywords of its list that its transcript holds."""
    return spoken_keywords(clean_keywords(keywords), transcript, NORMALIZER)


def has_terms(row: Row, transcript: str | None) -> bool:
    """Whether the retriever can learn from a row."""
    return bool(transcript and spoken_terms(row_keywords(row), transcript))


def collate_terms(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """The terms of all rows, each looked for in each audio: ``term_input_ids`` (A, K, n) and ``term_targets`` (A, K).

    Of more than :data:`MOST` terms as many are drawn; the draw depends on the terms alone. A term counts as spoken
    wherever a transcript holds it. Of a row without a transcript, or with several audios, nobody knows what is spoken.
    Nothing where no row has a term.
    """
    terms = sorted({term for row in rows for term in row.get("terms") or []})
    if not terms:
        return {}
    random.Random("\n".join(terms)).shuffle(terms)
    terms = terms[:MOST]
    ids = [torch.tensor(of_term) for of_term in tokenize_terms(tokenizer, terms)]
    padded = torch.nn.utils.rnn.pad_sequence(ids, True, NO_TOKEN)
    labels = [labelled for row in rows for labelled in [_labels(row, terms)] * len(row["input_features"])]
    return {
        "term_input_ids": padded.expand(len(labels), -1, -1).contiguous(),
        "term_targets": torch.tensor(labels),
    }


def _labels(row: Mapping[str, Any], terms: Sequence[str]) -> list[int]:
    transcript = row.get("transcript")
    if not transcript or len(row["input_features"]) != 1:
        return [NO_TERM] * len(terms)
    spoken = set(spoken_keywords(terms, transcript, NORMALIZER))
    return [int(term in spoken) for term in terms]
