"""The stages: which there are, what each asks the model, and what its reply means."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sap2.errors import InputError
from sap2.prompts import ASR, AUDIO_TAG, JOINT, PRUNE, asr_prompt, joint_prompt, parse_joint_reply, prune_prompt
from sap2.spelling import spell_as_listed
from sap2.text import choose_listed

ASKED = "generate"
"""The pruner that asks the model."""
STAGES = {
    "asr": (ASR,),
    "prune,asr": (PRUNE, ASR),
    "joint": (JOINT,),
    "prune": (PRUNE,),
}
"""What ``--stages`` allows: transcribe with the list as it is, prune it first, both in one reply, prune only."""

SPELLINGS = ("keywords", "model")
"""How listed keywords are written in a transcript: as in the list, or as the model did."""

_PROMPTS: dict[str, Callable[[Sequence[str]], str]] = {PRUNE: prune_prompt, ASR: asr_prompt, JOINT: joint_prompt}


class Reading(NamedTuple):
    """A reply, understood: the transcript, keywords in the list, and those that are not."""

    text: str
    picked: list[str]
    unlisted: list[str]


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Which ``stages`` run, in their order, and the ``adapters`` by the stage they were trained for (None: the model
    alone). The spotter listens with the last of them."""

    stages: tuple[str, ...]
    adapters: dict[str, str | None]


def plan_stages(
    stages: str | None,
    prune_adapter: str | os.PathLike[str] | None,
    asr_adapter: str | os.PathLike[str] | None,
    pruners: Sequence[str] = (),
) -> StagePlan:
    """Which stages run, and with which adapters.

    Args:
        stages: one of :data:`STAGES`; None: ``prune,asr`` with a prune adapter or a pruner, else ``asr``.
        prune_adapter, asr_adapter: LoRA checkpoints.
        pruners: those of stage one; none: the model is asked.

    Raises:
        InputError: there is no such combination, both stages have no adapter for the first, or an adapter or a pruner
            is given that no stage would use.
    """
    default = "prune,asr" if prune_adapter is not None or pruners else "asr"
    name, pruner = (stages or default).replace(" ", ""), "+".join(pruners)
    if name not in STAGES:
        raise InputError(f"--stages {stages!r} is unknown; allowed: {' | '.join(STAGES)}")
    names, asked = STAGES[name], not pruners or ASKED in pruners
    if len(names) > 1 and prune_adapter is None and asked:
        raise InputError(f"--stages {name} needs --prune-adapter, or --pruner spot; allowed without: asr, joint, prune")
    if PRUNE not in names and pruners:
        raise InputError(f"--stages {name} would not use --pruner {pruner}; leave one of them out")
    if prune_adapter is not None and (PRUNE not in names or (len(names) > 1 and not asked)):
        what = f"--stages {name}" if PRUNE not in names else f"--pruner {pruner}"
        raise InputError(f"{what} would not use --prune-adapter {prune_adapter}; leave one of them out")
    if names == (PRUNE,) and asr_adapter is not None and asked:
        raise InputError(f"--stages {name} would not use --asr-adapter {asr_adapter}; leave one of them out")
    folders = {stage: prune_adapter if stage == PRUNE else asr_adapter for stage in names}
    if PRUNE in names and not asked and prune_adapter is None and (len(names) > 1 or asr_adapter is not None):
        del folders[PRUNE]  # a stage that asks nobody listens with the adapter of stage two
        folders.setdefault(ASR, asr_adapter)
    named = {stage: None if folder is None else os.fspath(folder) for stage, folder in folders.items()}
    return StagePlan(names, named)


def stage_content(stage: str, keywords: Sequence[str]) -> str:
    """A user's turn: the audio's tag, and the stage's prompt with clean keywords."""
    return AUDIO_TAG + _PROMPTS[stage](keywords)


def read_reply(stage: str, reply: str, keywords: Sequence[str]) -> Reading:
    """What a reply with a transcript says; a joint one without a transcription has an empty text.

    What stage one replies is read by :func:`sap2.pipeline.pruners.read_pruning`.
    """
    if stage == ASR:
        return Reading(reply, list(keywords), [])
    parsed = parse_joint_reply(reply)
    if parsed is None:
        return Reading("", [], [])
    return Reading(parsed.transcript, *choose_listed(parsed.keywords, keywords))


def spelled_text(text: str, keywords: Sequence[str], spelling: str | None) -> str:
    """The transcript as it is given to people: with the keywords in one of :data:`SPELLINGS`."""
    return spell_as_listed(text.strip(), keywords) if spelling == "keywords" else text.strip()
