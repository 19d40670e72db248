"""What a word would be without a keyword of the list: the causal answer, one forced pass for each keyword."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sap2.explain.forced import ForcedReply
from sap2.explain.saliency import Told, word_log_probs
from sap2.explain.spans import WordSpan
from sap2.pipeline.stages import stage_content
from sap2.pipeline.utterances import Outcome
from sap2.prompts import parse_keywords
from sap2.rows import find_contexts


def listed(content: str) -> list[str]:
    """The keywords of a user's turn, as they stand there."""
    return [keyword for context in find_contexts(content) for keyword in parse_keywords(context.body)]


def told_keywords(outcome: Outcome, offered: Sequence[str]) -> list[str]:
    """The keywords that the last stage was told, as the list that was offered writes them."""
    names = {keyword.casefold(): keyword for keyword in (*offered, *outcome.reading.picked)}
    return [names.get(keyword.casefold(), keyword) for keyword in listed(outcome.content)]


@torch.no_grad()
def without_each(
    forced: ForcedReply, content: str, words: Sequence[WordSpan], batch: int, told: Told
) -> list[np.ndarray]:
    """Log probability (W,) of the words without each keyword of the list, in its order.

    Args:
        content: the user's turn that the model replied to.
        batch: keywords at a time.
        told: is told how many more inputs have gone through the model.
    """
    keywords, system = listed(content), forced.loaded.systems[forced.stage]
    rests = [keywords[:n] + keywords[n + 1 :] for n in range(len(keywords))]
    prompts = [forced.encoder.prompt(stage_content(forced.stage, rest), system, forced.heard.tokens) for rest in rests]
    found: list[np.ndarray] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        found += list(word_log_probs(forced.log_probs_told(part), words).cpu().numpy())
        told(len(part))
    return found
