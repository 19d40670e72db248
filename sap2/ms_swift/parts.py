"""The parts that listen beside the language model, the spotter and the retriever: trained along, or alone."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from sap2.errors import InputError
from sap2.model.adapters import LAYERS, carry_part

ALONE = ("spotter", "retriever")
"""What ``--sap_train`` trains alone."""


def trained_alone(args: Any) -> str | None:
    """The part that is trained alone, without the language model; None: all is trained."""
    chosen = getattr(args, "sap_train", None)
    return chosen if chosen in ALONE else None


def train_parts(args: Any) -> None:
    """An adapter carries the spotter and the retriever: they are small, and a base model has none or another's.

    Raises:
        InputError: ``--sap_train`` with a value or a tuner that it cannot have.
    """
    chosen, alone = getattr(args, "sap_train", None), trained_alone(args)
    if chosen not in (None, "all", *ALONE):
        raise InputError(f"--sap_train is {chosen!r}; allowed: {', '.join(('all', *ALONE))}")
    if alone is not None:
        if getattr(args, "tuner_type", "lora") != "lora":
            raise InputError(f"--sap_train {alone} makes an adapter of the {alone} alone; allowed: --tuner_type lora")
        args.target_modules = args.target_regex = DUMMY_TARGET_MODULES
    if hasattr(args, "modules_to_save") and args.tuner_type != "full":
        parts = [f"sap_{alone}"] if alone else [part for part in LAYERS if getattr(args, part)]
        layers = [layer for part in parts for layer in LAYERS[part]]
        if layers:
            args.modules_to_save = list(dict.fromkeys([*(args.modules_to_save or []), *layers]))


def train_alone(model: nn.Module, alone: str) -> None:
    """Leave one part of a model to be trained, whatever the adapter that it goes on with has and would train."""
    if isinstance(model, PeftModel):
        carry_part(model, f"sap_{alone}")
    layers = [f".{layer}." for layer in LAYERS[f"sap_{alone}"]]
    for name, parameter in model.named_parameters():
        if not any(layer in f".{name}" for layer in layers):
            parameter.requires_grad_(False)
