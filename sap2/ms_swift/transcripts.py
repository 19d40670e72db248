"""What is said in the rows of a training, from which the spotter and the retriever learn."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from swift.dataset import LazyLLMDataset
from swift.utils import get_logger

from sap2.errors import InputError
from sap2.ms_swift.terms import has_terms
from sap2.prompts import said_in

COLUMNS = ("messages", "transcript")


def transcript_of(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """What is said in the audio of a conversation of one question and one reply; None where nobody knows."""
    turns = {
        role: [m["content"] for m in messages if m["role"] == role and isinstance(m["content"], str)]
        for role in ("user", "assistant")
    }
    if len(turns["user"]) != 1 or len(turns["assistant"]) != 1:
        return None
    return said_in(turns["user"][0], turns["assistant"][0])


def check_rows_before(train):
    """``SwiftSft.train`` that first looks for rows from which the spotter and the retriever can learn."""

    @functools.wraps(train)
    def checked(self, trainer):
        if getattr(self.args, "sap_spotter", None) and getattr(self.args, "sap_train", None) != "retriever":
            check_transcripts(trainer.train_dataset, untrained=_is_untrained(self.args, trainer))
        if getattr(self.args, "sap_train", None) == "retriever":
            check_terms(trainer.train_dataset)
        return train(self, trainer)

    return checked


def check_transcripts(dataset: Any, untrained: bool) -> None:
    """Look for a row that tells what is said.

    Rows of a stream, and rows that are encoded already, are not looked at.

    Raises:
        InputError: no row does, and the spotter is ``untrained``. (Where it is not, a warning says that it learns
            nothing.)
    """
    rows = _looked_at(dataset)
    if rows is None or any(map(_tells, rows)):
        return
    if untrained:
        raise InputError(
            f"none of the {len(rows)} training rows tells what is said: the spotter would learn nothing; allowed: "
            f"rows with a column 'transcript' (data_tools.build_prune writes it) or with a prompt of transcription, or "
            f"no spotter (--sap_pooling attention or mean, --sap_spotter false)"
        )
    get_logger().warning(f"none of the {len(rows)} training rows tells what is said: the spotter stays as it is")


def check_terms(dataset: Any) -> None:
    """Look for a row of whose list something is said.

    Rows of a stream, and rows that are encoded already, are not looked at.

    Raises:
        InputError: there is none: the retriever would learn nothing.
    """
    rows = _looked_at(dataset)
    if rows is not None and not any(has_terms(row, _told(row)) for row in rows):
        raise InputError(
            f"none of the {len(rows)} training rows has a keyword in its list that its transcript holds: the retriever "
            f"would learn nothing; allowed: rows with lists and transcripts (sap2 data build_terms)"
        )


def _looked_at(dataset: Any) -> Any:
    """The rows with what tells what is said; None where they cannot be looked at."""
    rows = dataset.dataset if isinstance(dataset, LazyLLMDataset) else dataset
    columns = [name for name in COLUMNS if name in (getattr(rows, "column_names", None) or ())]
    return rows.select_columns(columns) if "messages" in columns else None


def _told(row: Mapping[str, Any]) -> str | None:
    return row.get("transcript") or transcript_of(row["messages"])


def _tells(row: Mapping[str, Any]) -> bool:
    return bool(_told(row))


def _is_untrained(args: Any, trainer: Any) -> bool:
    model = trainer.template.get_base_model(trainer.accelerator.unwrap_model(trainer.model))
    return "sap_spotter" in model.lacks and not (args.adapters or args.resume_from_checkpoint)
