"""Stage one: which keywords of the list are spoken?

A pruner ranks the keywords of each utterance by how likely they are spoken, from the speech and the list. Here the
model is asked and names them (``generate``). To add another, write a class with :class:`Pruner`'s members and hand it
to :class:`sap2.pipeline.decoder.Decoder`: one that does not ask the model finds the speech embeddings of a batch with
:meth:`sap2.pipeline.asking.Hearing.speech`. How many of the ranked keywords are kept is the pruner's own affair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sap2.pipeline.asking import Asker, Hearing
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.stages import PRUNE
from sap2.pipeline.utterances import Utterance
from sap2.prompts import parse_prune_reply
from sap2.text import choose_listed


class RankedKeyword(NamedTuple):
    """A keyword of the list, and the probability that it is spoken."""

    keyword: str
    probability: float


class Pruning(NamedTuple):
    """What a pruner found in one utterance.

    Attributes:
        ranked: keywords of the list, the likeliest first; those that the pruner says nothing about are left out.
        picked: those that go to the next stage, in the list's order.
        unlisted: what the pruner named though no list has it.
        reply: what the model said, where it was asked.
    """

    ranked: list[RankedKeyword]
    picked: list[str]
    unlisted: list[str]
    reply: Reply | None = None


class Pruner(Protocol):
    """Stage one.

    Attributes:
        asks_model: whether it puts stage one's question to the model, whose prompt is then made ahead.
    """

    asks_model: bool

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """Look for the keywords of each utterance in its speech; in the order of the utterances."""
        ...


class GeneratePruner:
    """Asks the model, which replies with the spoken keywords (paper, section "Speech-Aware Context Pruning").

    A keyword's probability is that of the reply's tokens that name it, the comma or end after them included, given
    the reply before it.
    """

    asks_model = True

    def __init__(self, asker: Asker):
        self._asker = asker

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """See :class:`Pruner`."""
        replies = self._asker.ask(PRUNE, hearing, utterances)
        return [read_pruning(reply, u.keywords) for reply, u in zip(replies, utterances, strict=True)]


def read_pruning(reply: Reply, keywords: Sequence[str]) -> Pruning:
    """The keywords of the list that a reply names, with their probabilities."""
    picked, unlisted = choose_listed(parse_prune_reply(reply.text), keywords)
    named: dict[str, float] = {}
    for part, probability in zip(reply.text.split(","), _part_probabilities(reply), strict=False):
        for keyword in choose_listed(parse_prune_reply(part), keywords)[0]:
            named[keyword] = max(probability, named.get(keyword, 0.0))
    ranked = [RankedKeyword(keyword, named.get(keyword, 0.0)) for keyword in picked]
    return Pruning(sorted(ranked, key=lambda pick: -pick.probability), picked, unlisted, reply)


def _part_probabilities(reply: Reply) -> list[float]:
    """For each part between commas of a reply, the probability of its tokens."""
    sums = [0.0]
    for piece, log_prob in zip(reply.pieces, reply.log_probs, strict=True):
        sums[-1] += log_prob
        sums += [0.0] * piece.count(",")
    return [math.exp(value) for value in sums]
