"""WER and B-WER of replies inside ms-swift; imported when the first is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sap2.prompts import parse_joint_reply, parse_keywords
from sap2.rows import find_contexts, user_texts
from sap2.scoring.align import BIASED, DELS, INS, REF_WORDS, SUBS
from sap2.scoring.definitions import DEFINITIONS, FP, SystemScore, score
from sap2.scoring.figures import figures, totals, value
from sap2.scoring.inputs import TestSet, Utterance

WORST_REWARD = -1.0


def list_of(row: dict[str, Any]) -> list[str]:
    """The keywords in the contexts of a row."""
    return [
        keyword
        for text in user_texts(row)
        for context in find_contexts(text)
        for keyword in parse_keywords(context.body)
    ]


def transcript_of(reply: str) -> str:
    """What a reply says was spoken: of a joint reply its second part."""
    joint = parse_joint_reply(reply)
    return joint.transcript if joint else reply


def score_replies(replies: Sequence[str], references: Sequence[str], lists: Sequence[Sequence[str]]) -> SystemScore:
    """Count the errors of replies as SlideSpeech's scorer does, on words of any case.

    Raises:
        InputError: there is nothing to score.
    """
    ids = [str(number) for number in range(len(references))]
    utterances = [
        Utterance(name, transcript_of(reference), list(keywords))
        for name, reference, keywords in zip(ids, references, lists, strict=True)
    ]
    hyps = {"reply": dict(zip(ids, map(transcript_of, replies), strict=True))}
    return score(TestSet(utterances, hyps), DEFINITIONS["slidespeech"]).systems["reply"]


def wer_rewards(system: SystemScore) -> list[float]:
    """1 - WER of each reply, at least :data:`WORST_REWARD`."""
    errors = system.errors.sum(axis=1)
    return [max(WORST_REWARD, 1 - _wrong(row) / max(1, row[REF_WORDS])) for row in errors]


def bwer_rewards(system: SystemScore) -> list[float]:
    """1 - B-WER of each reply, at least :data:`WORST_REWARD`. A word of the list that was not said counts as an error
    too, or a reply that names the whole list would be rewarded."""
    false_alarms = system.keywords[:, FP]
    return [
        max(WORST_REWARD, 1 - (_wrong(row[BIASED]) + alarms) / max(1, row[BIASED][REF_WORDS]))
        for row, alarms in zip(system.errors, false_alarms, strict=True)
    ]


def _wrong(row: Any) -> int:
    return int(row[SUBS] + row[INS] + row[DELS])


def measure(replies: Sequence[str], references: Sequence[str], lists: Sequence[Sequence[str]]) -> dict[str, float]:
    """WER, U-WER, B-WER and keyword recall of all replies together, in percent; what is undefined is left out."""
    found = figures(totals(score_replies(replies, references, lists)))
    rates = {name: value(found, name) for name in ("wer", "u_wer", "b_wer", "recall")}
    return {name: round(rate, 4) for name, rate in rates.items() if rate is not None}
