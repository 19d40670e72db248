"""Keywords that were heard, and that stage two wrote wrongly: the spotter puts them right.

Stage two is told a keyword and still writes "bailvan" for "gailvan", the more often the louder the noise is. The
spotter may be all but sure of the keyword meanwhile. Where it is, where the keyword stands nowhere in the transcript,
and where something is written instead that is spelled much like it, the keyword takes its place, if the speech does not
speak against it: both transcripts are laid over what the spotter hears (CTC, the sum over all paths). Where the speech
speaks for it, it also takes the place of what is not like it, and of another keyword that is written twice. A keyword
of the utterance's own list need not be that sure: it takes the place of what is spelled nearly like it and is no
keyword, where the speech speaks less against it.

Beside a bank, stage two may also be told a keyword of the slides and a term of the bank that sounds the same, and write
the latter. Then the keyword is written, where the spotter finds it likelier.

A common word is never replaced.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from sap2.model.spotter import spelling
from sap2.pipeline.asking import Hearing
from sap2.pipeline.types import Correction
from sap2.pipeline.utterances import Utterance
from sap2.pipeline.words import Place, find_words
from sap2.pruning import POSSIBLE, SURE
from sap2.pruning.spoken import as_heard, spoken_forms
from sap2.pruning.spotting import RankedKeyword
from sap2.spelling import Writing, find_keywords, letters_of
from sap2.text import keep_results

ALIKE = 0.4
"""Likeness of what is written and the keyword, letter by letter, from which it may be the keyword."""
AGAINST = 6.0
"""Nats by which the spotter may hear what is written better than the keyword: with the list known, it is sure of it."""
NEARLY = 0.6
"""The likeness where the spotter is not sure of the keyword."""
AGAINST_NEARLY = 4.0
"""The nats where the spotter is not sure of the keyword."""
UNLIKE = 0.0
"""Nats by which the spotter must hear the keyword better, where what is written is not like it, or is another keyword
that stands elsewhere as well."""
ENDING = 1.0
"""The same where what is written is the keyword with an ending: "transformers" is no error for "transformer"."""
LIKELIER = 1.0
"""Nats of log odds by which a keyword must be likelier than a term of the bank that was written in its place."""
SHORTEST = 3
"""Letters of a keyword at least."""
PLACES = 8
"""Places of a transcript at most that are tried for a keyword, those most like it."""
_TOGETHER = 16
"""Texts that are laid over the frames at a time."""
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)


class Candidate(NamedTuple):
    """A place of a transcript, and how much better the keyword is heard there than what is written (nats)."""

    place: Place
    gain: float


class Lists(NamedTuple):
    """Of one utterance: the keywords that stage two was ``told``, the utterance's ``own`` list, and the ``common``
    words that are never replaced, lower case."""

    told: Sequence[str]
    own: Sequence[str]
    common: Collection[str]

    def is_sure(self, one: RankedKeyword) -> bool:
        """Whether stage one is sure of a keyword, and stage two was told it."""
        return one.probability >= SURE and one.keyword in self.told

    def is_possible(self, one: RankedKeyword) -> bool:
        """Whether a keyword of the own list may have been said."""
        return one.probability >= POSSIBLE and one.keyword in self.own


def likelier_keywords(text: str, ranked: Sequence[RankedKeyword], lists: Lists) -> list[Correction]:
    """Terms of a bank that stage two wrote though it was told a likelier keyword of the utterance's own list much like
    it, with that one; in their order.

    Args:
        text: the transcript.
        ranked: what stage one found, the likeliest first.
        lists: of the utterance.
    """
    told = lists.told
    listed = {keyword.casefold() for keyword in lists.own}
    if all(keyword.casefold() in listed for keyword in told):
        return []
    present = list(find_keywords(text, told))
    times = Counter(one.keyword for one in present)
    odds = {one.keyword: _log_odds(one.probability) for one in ranked if one.keyword in told}
    found: list[Correction] = []
    for one in present:
        written = one.keyword.casefold()
        if times[one.keyword] > 1 or one.keyword not in odds or written in listed or written in lists.common:
            continue
        for keyword, probability in ranked:  # the likeliest first
            likelier = odds.get(keyword, -math.inf) - odds[one.keyword] >= LIKELIER
            free = keyword.casefold() in listed and keyword not in times
            if likelier and free and _likeness(keyword, one.keyword) >= ALIKE:
                found.append(Correction(one.start, one.end, text[one.start : one.end], keyword, probability))
                times[keyword] += 1
                break
    return found


def _log_odds(probability: float) -> float:
    rounded = min(max(probability, 1e-4), 1 - 1e-4)  # as results have it
    return math.log(rounded / (1 - rounded))


def _likeness(one: str, other: str) -> float:
    return Levenshtein.normalized_similarity(letters_of(one), letters_of(other))


def missing_keywords(text: str, ranked: Sequence[RankedKeyword], lists: Lists) -> list[RankedKeyword]:
    """Keywords that stand nowhere in a transcript, and may have been said: those that stage one is sure of, and those
    of the own list that something in the transcript is nearly like. Arguments as of :func:`likelier_keywords`."""
    heard = [one for one in ranked if _is_long(one.keyword) and (lists.is_sure(one) or lists.is_possible(one))]
    standing = list(find_keywords(text, [*lists.told, *lists.own])) if heard else []
    written, taken = {one.keyword for one in standing}, [Place(one.start, one.end) for one in standing]
    missing = [one for one in heard if one.keyword not in written]
    return [one for one in missing if lists.is_sure(one) or _nearly(text, one.keyword, taken, lists.common)]


def _nearly(text: str, keyword: str, taken: Sequence[Place], common: Collection[str]) -> list[Place]:
    """Places where something nearly like a keyword is written."""
    places = _places(text, keyword, taken, common)
    return [place for place in places if _likeness(text[place.start : place.end], keyword) >= NEARLY]


def find_misspellings(log_probs: Tensor, text: str, missing: Sequence[RankedKeyword], lists: Lists) -> list[Correction]:
    """Where keywords that are missing in a transcript were meant, in its order; the places do not overlap.

    Args:
        log_probs: (T, symbols) of the spotter.
        text: the transcript.
        missing: of :func:`missing_keywords`.
        lists: of the utterance.
    """
    standing = list(find_keywords(text, lists.told))
    times = Counter(one.keyword for one in standing)
    taken = [Place(one.start, one.end) for one in standing]
    repeated = {Place(one.start, one.end): one.keyword for one in standing if times[one.keyword] > 1}
    listed = [Place(one.start, one.end) for one in find_keywords(text, [*lists.told, *lists.own])]
    found: list[Correction] = []
    for one in missing:
        keyword = one.keyword
        if lists.is_sure(one):
            places, against = [*_places(text, keyword, taken, lists.common), *repeated], AGAINST
        else:
            places, against = _nearly(text, keyword, [*taken, *listed], lists.common), AGAINST_NEARLY
        candidates = _hear(log_probs, text, places, keyword)
        fitting = [each for each in candidates if each.gain >= _least(text, each.place, keyword, repeated, against)]
        best = max(fitting, key=lambda each: each.gain, default=None)
        if best is None:
            continue
        if best.place in repeated:
            stays = repeated[best.place]
            repeated = {place: other for place, other in repeated.items() if other != stays}
        taken.append(best.place)
        found.append(Correction(*best.place, text[best.place.start : best.place.end], keyword, one.probability))
    return sorted(found)


def _least(text: str, place: Place, keyword: str, repeated: Collection[Place], against: float) -> float:
    """The gain from which a keyword takes a place."""
    written = text[place.start : place.end]
    if place in repeated or _likeness(written, keyword) < ALIKE:
        return UNLIKE
    return -ENDING if _has_ending(written, keyword) else -against


def _has_ending(written: str, keyword: str) -> bool:
    letters, wanted = letters_of(written), letters_of(keyword)
    return letters.startswith(wanted) and letters != wanted


def _is_long(keyword: str) -> bool:
    return len(letters_of(keyword)) >= SHORTEST


def _places(text: str, keyword: str, taken: Sequence[Place], common: Collection[str]) -> list[Place]:
    """Where a keyword may have been meant: neighbouring words, about as many as it has, that are spelled like it."""
    own = find_words(keyword)
    parts = {keyword[place.start : place.end].casefold() for place in own}
    cores = [_core(text, place) for place in find_words(text)]
    words = [text[core.start : core.end].casefold() for core in cores]
    rare = [bool(word) and word not in common for word in words]
    free = [
        (rare[number] or word in parts)  # "watch" is common, and a part of "Apple Watch"
        and not any(core.start < other.end and other.start < core.end for other in taken)
        for number, (word, core) in enumerate(zip(words, cores, strict=True))
    ]
    alike: list[tuple[float, Place]] = []
    for length in range(max(1, len(own) - 1), len(own) + 2):
        for first in range(len(cores) - length + 1):
            if all(free[first : first + length]) and any(rare[first : first + length]):
                place = Place(cores[first].start, cores[first + length - 1].end)
                possessive = _POSSESSIVE.search(text[place.start : place.end])
                if possessive and not _POSSESSIVE.search(keyword):
                    place = Place(place.start, place.end - len(possessive[0]))
                likeness = _likeness(text[place.start : place.end], keyword)
                alike.append((likeness, place))
    return [place for _, place in sorted(alike, key=lambda one: -one[0])[:PLACES]]


def _core(text: str, place: Place) -> Place:
    """A word without the punctuation around it; empty where it is nothing else."""
    start, end = place
    while start < end and not _is_letter(text[start]):
        start += 1
    while start < end and not _is_letter(text[end - 1]):
        end -= 1
    return Place(start, end)


def _is_letter(character: str) -> bool:
    """Of a word: a letter, a digit, or a mark on one."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _hear(log_probs: Tensor, text: str, places: Sequence[Place], keyword: str) -> list[Candidate]:
    """The keyword in each of the places, in the form that is heard best, against what is written there."""
    if not places:
        return []
    texts: list[str] = []
    spans: list[tuple[int, int, int]] = []
    for place in places:
        before, written, after = text[: place.start], text[place.start : place.end], text[place.end :]
        as_is = [f"{before}{form}{after}" for form in _forms(written)]
        corrected = [f"{before}{form}{after}" for form in _forms(keyword)]
        spans.append((len(texts), len(texts) + len(as_is), len(texts) + len(as_is) + len(corrected)))
        texts += as_is + corrected
    heard = transcript_log_probs(log_probs, texts)
    gains = [float(heard[middle:last].max() - heard[first:middle].max()) for first, middle, last in spans]
    # nothing is heard of a text that does not fit into the frames: its gain is no number, and no candidate
    return [Candidate(*one) for one in zip(places, gains, strict=True) if math.isfinite(one[1])]


@keep_results
def _forms(written: str) -> tuple[str, ...]:
    """Ways in which something written is said."""
    return tuple(dict.fromkeys([written, as_heard(written), *spoken_forms(written)]))


def transcript_log_probs(log_probs: Tensor, texts: Sequence[str]) -> Tensor:
    """Log probability (N,) of each text under what the spotter hears (T, symbols), over all of its frames; -inf of a
    text that does not fit into them."""
    log_probs = log_probs.cpu()
    losses = []
    for first in range(0, len(texts), _TOGETHER):
        symbols = [torch.tensor(spelling(text), dtype=torch.int64) for text in texts[first : first + _TOGETHER]]
        targets = nn.utils.rnn.pad_sequence(symbols, batch_first=True)
        lengths = torch.tensor([len(one) for one in symbols])
        heard = log_probs[:, None].expand(-1, len(symbols), -1)
        frames = torch.full((len(symbols),), len(log_probs))
        losses.append(nn.functional.ctc_loss(heard, targets, frames, lengths, reduction="none"))
    return -torch.cat(losses)


class Corrector:
    """Puts right what stage two wrote, by what stage one heard.

    Args:
        stage: whose adapter the spotter listens with.
        writing: how stage two is told the keywords, and writes them.
        common: words that are never replaced.
        on: False: replaces nothing.
    """

    def __init__(self, stage: str, writing: Writing, common: Collection[str], on: bool = True):
        self._stage, self._writing, self._common = stage, writing, common
        self._on = on

    def correct(self, hearing: Hearing, utterances: Sequence[tuple[int, Utterance]]) -> None:
        """Correct the texts of utterances that are done, each given with its row of the hearing."""
        if not self._on:
            return
        asked: list[tuple[int, Utterance, list[RankedKeyword], Lists]] = []
        for row, utterance in utterances:
            if not utterance.job.correct or (utterance.leak is not None and utterance.leak.replaced):
                continue
            ranked = [RankedKeyword(*one) for one in utterance.probabilities.items()]
            lists = Lists(utterance.keywords, utterance.job.keywords, self._common)
            likelier = likelier_keywords(utterance.text, ranked, lists)
            missing = missing_keywords(utterance.text, ranked, lists)
            missing = [one for one in missing if one.keyword not in {other.keyword for other in likelier}]
            if missing:
                asked.append((row, utterance, missing, lists))
            self._put_right(utterance, likelier)
        if not asked:
            return
        log_probs, mask = hearing.take([row for row, *_ in asked]).letters(self._stage)
        for heard, valid, (_, utterance, missing, lists) in zip(log_probs, mask, asked, strict=True):
            self._put_right(utterance, find_misspellings(heard[valid], utterance.written, missing, lists))

    def _put_right(self, utterance: Utterance, found: Sequence[Correction]) -> None:
        """Add corrections of what the model wrote."""
        if found:
            told = [one._replace(keyword=self._writing.of(one.keyword)) for one in found]
            utterance.take_corrections(sorted([*utterance.corrections, *told]))
