"""The stages: which there are, what each asks the model, and what its reply means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sap2.errors import InputError
from sap2.prompts import (
    ASR_PROMPT,
    AUDIO_TAG,
    JOINT_PROMPT,
    PLAIN_ASR_PROMPT,
    PRUNE_PROMPT,
    asr_prompt,
    joint_prompt,
    parse_joint_reply,
    parse_prune_reply,
    prune_prompt,
)
from sap2.rows import find_contexts
from sap2.text import choose_listed

PRUNE, ASR, JOINT = "prune", "asr", "joint"
STAGES = {
    "asr": (ASR,),
    "prune,asr": (PRUNE, ASR),
    "joint": (JOINT,),
    "prune": (PRUNE,),
}
"""What ``--stages`` allows: transcribe with the list as it is, prune it first, both in one reply, prune only."""

_HEADS = {
    PRUNE: (PRUNE_PROMPT.partition("{context}")[0],),
    ASR: (ASR_PROMPT.partition("{context}")[0], PLAIN_ASR_PROMPT.partition("{context}")[0]),
    JOINT: (JOINT_PROMPT.partition("{context}")[0],),
}
_PROMPTS: dict[str, Callable[[Sequence[str]], str]] = {PRUNE: prune_prompt, ASR: asr_prompt, JOINT: joint_prompt}


class Reading(NamedTuple):
    """A reply, understood: the transcript, keywords in the list, and those that are not."""

    text: str
    picked: list[str]
    unlisted: list[str]


def parse_stages(name: str) -> tuple[str, ...]:
    """The stages of a ``--stages`` value.

    Raises:
        InputError: there is no such combination.
    """
    stages = STAGES.get(name.replace(" ", ""))
    if stages is None:
        raise InputError(f"--stages {name!r} is unknown; allowed: {' | '.join(STAGES)}")
    return stages


def check_stages(stages: Sequence[str], prune_adapter: str | None, asr_adapter: str | None) -> None:
    """Refuse stages that do not fit the adapters.

    Raises:
        InputError: both stages without an adapter for the first, or an adapter that no stage would use.
    """
    name = ",".join(stages)
    if PRUNE in stages and len(stages) > 1 and prune_adapter is None:
        raise InputError(f"--stages {name} needs --prune-adapter; allowed without it: asr, joint, prune")
    if PRUNE not in stages and prune_adapter is not None:
        raise InputError(f"--stages {name} would not use --prune-adapter {prune_adapter}; leave one of them out")
    if set(stages) == {PRUNE} and asr_adapter is not None:
        raise InputError(f"--stages {name} would not use --asr-adapter {asr_adapter}; leave one of them out")


def stage_content(stage: str, keywords: Sequence[str]) -> str:
    """A user's turn: the audio's tag, and the stage's prompt with clean keywords."""
    return AUDIO_TAG + _PROMPTS[stage](keywords)


def content_stage(content: str) -> str | None:
    """The stage whose prompt a user's turn holds; None where the wording is the user's own."""
    contexts = find_contexts(content)
    before = content[: contexts[0].start] if contexts else content
    return next((stage for stage, heads in _HEADS.items() if before.endswith(heads)), None)


def read_reply(stage: str, reply: str, keywords: Sequence[str]) -> Reading:
    """What a reply says. Any text is a valid reply; a joint reply without a transcription has an empty one."""
    if stage == ASR:
        return Reading(reply, list(keywords), [])
    if stage == PRUNE:
        return Reading(reply, *choose_listed(parse_prune_reply(reply), keywords))
    parsed = parse_joint_reply(reply)
    if parsed is None:
        return Reading("", [], [])
    return Reading(parsed.transcript, *choose_listed(parsed.keywords, keywords))
