"""Trainers that have the model write the replies (GRPO, GKD)."""

from __future__ import annotations

import functools

from sap2.model.settings import MODEL_TYPE


def log_prompts_as_text(trainer: type) -> None:
    """Let a trainer log prompts as they stand in the rows. Once is enough.

    ms-swift encodes the turns alone for that, and a row whose audio got lost is an error of our template.
    """
    original = trainer._apply_chat_template_to_messages_list
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def prompts(self, messages_list):
        if self.template.model_meta.model_type != MODEL_TYPE:
            return original(self, messages_list)
        return ["\n".join(turn["content"] for turn in turns if turn["role"] != "assistant") for turns in messages_list]

    trainer._apply_chat_template_to_messages_list = prompts
