"""Stage one: which keywords of the list are spoken?

A pruner ranks the keywords of each utterance, and the terms of a bank, by how likely they are spoken:

- ``generate``: the model is asked and names them (the paper's first stage);
- ``spot``: the spotter looks for each of them in the speech, without the language model;
- ``attend``: the retriever looks for them, likewise;
- ``match``: what the spotter reads is looked up in the list.

Several joined by ``+`` are one pruner that finds what any of them finds. To add another, write a class with
:class:`Pruner`'s members and name it in :data:`sap2.pruning.PRUNERS`: one that does not ask the model finds the speech
embeddings of a batch with :meth:`sap2.pipeline.asking.Hearing.speech`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sap2.errors import InputError
from sap2.model.retriever import TokenQueries
from sap2.model.spotter import spelled_frames
from sap2.pipeline.asking import Asker, Hearing
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.stages import ASKED
from sap2.pipeline.utterances import Pruning, Utterance
from sap2.prompts import ASR, PRUNE, parse_prune_reply
from sap2.pruning import PRUNE_THRESHOLD, PRUNE_TOP, PRUNERS
from sap2.pruning.attending import AttendedBank
from sap2.pruning.bank import TermBank
from sap2.pruning.calibration import Calibration
from sap2.pruning.matching import Matcher, greedy_text
from sap2.pruning.spotting import RankedKeyword, heard_in, list_bank, merge_rankings, rank_spotted
from sap2.slides.common import common_words
from sap2.spelling import Writing
from sap2.text import choose_listed


class Pruner(Protocol):
    """Stage one.

    Attributes:
        asks_model: whether it puts stage one's question to the model, whose prompt is then made ahead. Such a pruner is
            an :class:`AskingPruner`.
    """

    asks_model: bool

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """Look for the keywords of each utterance in its speech; in the order of the utterances."""
        ...


class AskingPruner(Pruner, Protocol):
    """One that asks the model, in two steps for those who put the question to the model themselves."""

    def listen(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[list[Pruning]]:
        """What is found without the model, for each utterance: to be handed to :meth:`read`."""
        ...

    def read(self, reply: Reply, keywords: Sequence[str], heard: Sequence[Pruning]) -> Pruning:
        """What the model's reply says, with what was found without it."""
        ...


class Choice(NamedTuple):
    """Which of the ranked keywords go on: the first ``top``, of those at least as likely as ``threshold``."""

    top: int
    threshold: float

    def of(self, ranked: Sequence[RankedKeyword]) -> list[str]:
        """The keywords that go on, the likeliest first."""
        return [entry.keyword for entry in ranked[: self.top] if entry.probability >= self.threshold]


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

    def listen(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[list[Pruning]]:
        """See :class:`AskingPruner`."""
        return [[] for _ in utterances]

    def read(self, reply: Reply, keywords: Sequence[str], heard: Sequence[Pruning]) -> Pruning:
        """See :class:`AskingPruner`."""
        return read_pruning(reply, keywords)


class SpotPruner:
    """The spotter looks for each keyword of the list, and of the bank, in the speech.

    Args:
        stage: whose adapter listens.
        bank: terms beside each utterance's own list, or None.
        calibration: makes probabilities of what is heard.
        choice: what goes on.
    """

    asks_model = False

    def __init__(self, stage: str, bank: TermBank | None, calibration: Calibration, choice: Choice):
        self._stage, self._calibration, self._choice = stage, calibration, choice
        self._banks = [] if bank is None else [bank]

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """See :class:`Pruner`."""
        log_probs, mask = hearing.letters(self._stage)
        frames = spelled_frames(log_probs, mask)
        found = []
        for index, utterance in enumerate(utterances):
            banks = [list_bank(utterance.keywords), *self._banks]
            ranked = rank_spotted(heard_in(frames, index), banks, self._calibration)
            found.append(Pruning(ranked, self._choice.of(ranked), []))
        return found


class AttendPruner:
    """The retriever looks for the tokens of each keyword of the list, and of the bank, in the speech.

    Args:
        stage: whose adapter listens.
        bank: terms beside each utterance's own list, or None.
        writing: of the keywords in the retriever's training.
        encoder: knows tokens.
        choice: what goes on.
    """

    asks_model = False

    def __init__(self, stage: str, bank: TermBank | None, writing: Writing, encoder: Encoder, choice: Choice):
        self._stage, self._writing, self._encoder, self._choice = stage, writing, encoder, choice
        self._bank = None if bank is None else self._attended(bank)
        self._queries: TokenQueries | None = None

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """See :class:`Pruner`."""
        rankings = [[] for _ in utterances] if self._bank is None else self._search_bank(hearing, self._bank)
        lists = [self._attended(list_bank(utterance.keywords)) for utterance in utterances]
        tokens = np.unique(np.concatenate([own.tokens for own in lists]))
        if len(tokens):
            odds = hearing.token_odds(self._stage, hearing.queries(self._stage, tokens))
            for ranking, own, heard in zip(rankings, lists, odds, strict=True):
                ranking += [own.rank(heard[np.searchsorted(tokens, own.tokens)])] if len(own) else []
        found = [merge_rankings(ranking[::-1]) for ranking in rankings]  # as the own list writes it
        return [Pruning(ranked, self._choice.of(ranked), []) for ranked in found]

    def _attended(self, bank: TermBank) -> AttendedBank:
        return AttendedBank(bank, self._tokenize)

    def _tokenize(self, terms: Sequence[str]) -> list[list[int]]:
        return self._encoder.tokenize_terms([self._writing.of(term) for term in terms])

    def _search_bank(self, hearing: Hearing, bank: AttendedBank) -> list[list[list[RankedKeyword]]]:
        if self._queries is None:
            self._queries = hearing.queries(self._stage, bank.tokens)  # once: the adapter does not change
        return [[bank.rank(heard)] for heard in hearing.token_odds(self._stage, self._queries)]


class MatchPruner:
    """What the spotter reads is looked up in the list and the bank; the numbers are likenesses, not probabilities.

    Args:
        stage: whose adapter listens.
        bank: terms beside each utterance's own list, or None.
        common: words that are not looked up.
        choice: what goes on.
    """

    asks_model = False

    def __init__(self, stage: str, bank: TermBank | None, common: Collection[str], choice: Choice):
        self._stage, self._common, self._choice = stage, common, choice
        self._matchers = [] if bank is None else [Matcher(bank, common)]

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """See :class:`Pruner`."""
        log_probs, mask = hearing.letters(self._stage)
        found = []
        for row, valid, utterance in zip(log_probs, mask, utterances, strict=True):
            text = greedy_text(row[valid])
            matchers = [Matcher(list_bank(utterance.keywords), self._common), *self._matchers]
            ranked = merge_rankings([matcher.rank(text) for matcher in matchers])
            found.append(Pruning(ranked, self._choice.of(ranked), []))
        return found


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


class UnionPruner:
    """What any of several pruners finds; a keyword's probability is the highest that one of them gives it."""

    def __init__(self, pruners: Sequence[Pruner]):
        self._pruners = list(pruners)
        self.asks_model = any(pruner.asks_model for pruner in self._pruners)

    def prune(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Pruning]:
        """See :class:`Pruner`."""
        columns = [pruner.prune(hearing, utterances) for pruner in self._pruners]
        return [_union(found) for found in zip(*columns, strict=True)]

    def listen(self, hearing: Hearing, utterances: Sequence[Utterance]) -> list[list[Pruning]]:
        """See :class:`AskingPruner`; for a union of which one asks."""
        columns = [pruner.prune(hearing, utterances) for pruner in self._pruners if not pruner.asks_model]
        return [list(found) for found in zip(*columns, strict=True)]

    def read(self, reply: Reply, keywords: Sequence[str], heard: Sequence[Pruning]) -> Pruning:
        """See :class:`AskingPruner`."""
        others = iter(heard)
        return _union([read_pruning(reply, keywords) if p.asks_model else next(others) for p in self._pruners])


def _union(found: Sequence[Pruning]) -> Pruning:
    ranked = merge_rankings([one.ranked for one in found])
    picked = {keyword for one in found for keyword in one.picked}
    named = [entry.keyword for entry in ranked if entry.keyword in picked]
    reply = next((one.reply for one in found if one.reply is not None), None)
    return Pruning(ranked, named, [keyword for one in found for keyword in one.unlisted], reply)


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """How stage one is done.

    Attributes:
        pruner: of :data:`sap2.pruning.PRUNERS`, several joined by ``+``; None: the model is asked, or with a term bank
            the spotter.
        prune_top: keywords that go on at most.
        prune_threshold: least probability of those.
        term_bank: file of terms that are looked for in every utterance, beside its own list.
    """

    pruner: str | None = None
    prune_top: int = PRUNE_TOP
    prune_threshold: float = PRUNE_THRESHOLD
    term_bank: str | None = None

    def corrects(self, stages: Sequence[str]) -> bool:
        """Whether keywords can be corrected: stage one has the spotter's probabilities, and stage two transcribes."""
        return "spot" in self.names() and tuple(stages) == (PRUNE, ASR)

    def names(self) -> tuple[str, ...]:
        """The pruners, each once; none where nothing here asks for one.

        Raises:
            InputError: one is unknown, a number is out of range, or the model would be asked for a bank.
        """
        if self.prune_top < 1 or not 0 <= self.prune_threshold <= 1:
            raise InputError(
                f"--prune-top {self.prune_top} --prune-threshold {self.prune_threshold:g}; "
                f"allowed: a top from 1, a threshold from 0 to 1"
            )
        if self.pruner is None:
            return ("spot",) if self.term_bank else ()
        names = tuple(dict.fromkeys(part.strip() for part in self.pruner.split("+")))
        unknown = [name for name in names if name not in PRUNERS]
        if unknown:
            raise InputError(f"--pruner {self.pruner!r} is unknown; allowed: {', '.join(PRUNERS)}, or several with +")
        if self.term_bank and names == (ASKED,):
            raise InputError(
                "--pruner generate cannot search a --term-bank; allowed: spot, attend, match, or spot+generate"
            )
        return names


def make_pruner(options: PruneOptions, asker: Asker, loaded: LoadedModel, listen: str, bank: TermBank | None) -> Pruner:
    """The pruner that the options ask for.

    Args:
        asker: of the model.
        loaded: model and adapters.
        listen: the stage whose adapter the spotter and the retriever listen with.
        bank: of the options, prepared.

    Raises:
        InputError: a pruner needs the spotter or the retriever, and the model has none.
    """
    names = options.names() or (ASKED,)
    what = f"--pruner {'+'.join(names)}"
    if {"spot", "match"} & set(names):
        loaded.check_spotter(listen, what)
    if "attend" in names:
        loaded.check_retriever(listen, what)
    choice = Choice(options.prune_top, options.prune_threshold)
    made: list[Pruner] = []
    for name in names:
        if name == ASKED:
            made.append(GeneratePruner(asker))
        elif name == "spot":
            made.append(SpotPruner(listen, bank, loaded.calibration(listen), choice))
        elif name == "attend":
            writing = asker.writings.get(listen) or loaded.writing(listen)
            made.append(AttendPruner(listen, bank, writing, asker.encoder, choice))
        else:
            made.append(MatchPruner(listen, bank, common_words(), choice))
    return made[0] if len(made) == 1 else UnionPruner(made)
