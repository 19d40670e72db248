"""The guard against leaks (:mod:`sap2.pipeline.leaks`): asks again without the list, and settles which reply stays."""

from __future__ import annotations

from collections.abc import Sequence

from sap2.pipeline.asking import Asker, Hearing
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.leaks import Leak, Suspicion, is_leak, suspect
from sap2.pipeline.prompting import Prompt
from sap2.pipeline.stages import read_reply, stage_content
from sap2.pipeline.utterances import Utterance
from sap2.prompts import PRUNE


class LeakGuard:
    """Looks at the transcripts of a run.

    Args:
        asker: writes prompts.
        stages: of the run; the last one's replies are looked at.
        on: False: suspects nothing.
    """

    def __init__(self, asker: Asker, stages: Sequence[str], on: bool = True):
        self._asker, self._stages = asker, tuple(stages)
        self._on = on and self._stages[-1] != PRUNE

    def suspect(self, stage: str, utterance: Utterance) -> Suspicion | None:
        """Whether what a stage replied looks like a leak."""
        if not self._on or stage != self._stages[-1]:
            return None
        complete = stage not in utterance.cut_off  # the limit of tokens makes a reply short as well
        return suspect(utterance.text, utterance.told, utterance.heard.seconds if complete else 0.0)

    def prompt(self, stage: str, utterance: Utterance) -> Prompt:
        """The stage's question without the list."""
        given = utterance.job.system if stage == self._stages[0] else None
        system = self._asker.systems[stage] if given is None else given
        return self._asker.encoder.prompt(stage_content(stage, []), system, utterance.heard.tokens)

    def settle(self, stage: str, utterance: Utterance, suspicion: Suspicion, reply: Reply) -> None:
        """Go on with the reply without the list where the first one was a leak."""
        reading = read_reply(stage, reply.text, [])
        leaked = is_leak(suspicion, utterance.text, reading.text)
        utterance.leak = Leak(suspicion.reason, utterance.replies[stage], leaked)
        if not leaked:
            return
        utterance.text = reading.text
        utterance.content = stage_content(stage, [])
        utterance.cut_off = [name for name in utterance.cut_off if name != stage]
        utterance.note(stage, reply)

    def check(self, stage: str, hearing: Hearing, utterances: Sequence[Utterance]) -> None:
        """Look at the replies of a batch, and ask again at once where they are suspect."""
        found = [(row, self.suspect(stage, utterance)) for row, utterance in enumerate(utterances)]
        suspects = [(row, suspicion) for row, suspicion in found if suspicion is not None]
        if not suspects:
            return
        asked = [utterances[row] for row, _ in suspects]
        taken = hearing.take([row for row, _ in suspects])
        embedded = taken.embed(stage, self._asker.encoder, [self.prompt(stage, utterance) for utterance in asked])
        replies = self._asker.engine.generate(stage, embedded, min(map(self._asker.room, embedded)))
        for utterance, (_, suspicion), reply in zip(asked, suspects, replies, strict=True):
            self.settle(stage, utterance, suspicion, reply)
