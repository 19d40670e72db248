"""Biasing lists as Le et al. 2021 make them (arXiv 2104.02194): the rare words of an utterance among distractors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from sap2.data.building import row_random
from sap2.errors import InputError, list_some
from sap2.tables import BiasingEntry, check_id, iter_biasing

COMMON_COUNT = 5000
"""Words that count as common: the most frequent ones of the training transcripts."""


def read_biasing(path: str | os.PathLike[str]) -> dict[str, BiasingEntry]:
    """A published ``test-{clean,other}.biasing_N.tsv`` by utterance id: id, text, rare words, list (both JSON).

    Raises:
        InputError: a line does not hold these four fields, a rare word is not in its list, or an id occurs twice.
    """
    entries: dict[str, BiasingEntry] = {}
    for entry in iter_biasing(path):
        check_id(entry.id, entry.where)
        if entry.words is None:
            raise InputError(f"{entry.where}: 3 columns; a line is: id, text, rare words, list, with tabs between")
        if entry.id in entries:
            raise InputError(f"{entry.where}: {entry.id!r} occurs a second time, first at {entries[entry.id].where}")
        absent = sorted(set(entry.rare) - set(entry.words))
        if absent:
            raise InputError(f"{entry.where}: rare words that the list lacks: {list_some(absent)}")
        entries[entry.id] = entry
    return entries


def derive_common_words(transcripts: Iterable[str], count: int = COMMON_COUNT) -> list[str]:
    """The most frequent words, the most frequent first; words of equal count in alphabetical order."""
    counts = Counter(word for text in transcripts for word in text.lower().split())
    return sorted(counts, key=lambda word: (-counts[word], word))[:count]


def rare_words(transcript: str, common_words: Collection[str]) -> list[str]:
    """The words of a transcript outside the common ones, in alphabetical order, each once."""
    return sorted(set(transcript.lower().split()) - set(common_words))


def draw_biasing_list(
    utterance_id: str,
    transcript: str,
    rare: Sequence[str],
    pool: Sequence[str],
    distractors: tuple[int, int],
    no_true_share: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """A list of the rare words of one utterance and distractors, in alphabetical order as in the published lists.

    Args:
        utterance_id: draws depend on it and on the seed, not on the rows before.
        transcript: no distractor is one of its words.
        rare: its rare words.
        pool: words to draw distractors from, each once.
        distractors: their least and greatest number; drawn evenly between.
        no_true_share: chance of a list of distractors only, by which a model learns to ignore a useless list.
        seed: of the draws.

    Raises:
        InputError: the pool is smaller than what is to be drawn from it.
    """
    rng = row_random(seed, utterance_id)
    true = [] if rng.random() < no_true_share else list(rare)
    spoken = set(transcript.lower().split())
    count = rng.randint(*distractors)
    # the spoken words among the drawn ones fall away, so that many more are drawn
    drawn = rng.sample(pool, min(count + len(spoken), len(pool)))
    chosen = [word for word in drawn if word not in spoken][:count]
    if len(chosen) < count:
        raise InputError(f"{count} distractors from {len(pool)} rare words, of which too few are not in the transcript")
    return sorted({*true, *chosen})
