"""A trained checkpoint as it is shipped: bfloat16, without optimizer, arguments and paths of the machine.

    python examples/sap2_tiny/export.py runs/sap2-tiny/long/checkpoint-1300 sap2/checkpoints/sap2-tiny
    python examples/sap2_tiny/export.py runs/sap2-tiny/asr/checkpoint-330 sap2/checkpoints/sap2-tiny-asr

A whole model becomes a plain Qwen2-Audio, without settings of the pooling (float32 when loaded: CPUs are slow in
bfloat16); an adapter keeps its settings and names ``sap2-tiny`` as its base. Of several adapters, which began as the
same one, the mean of their weights is written, with the settings of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from sap2.commands.shared import Parser, run_parser
from sap2.errors import InputError
from sap2.files import atomic_folder
from sap2.model.configuration import SAP_FIELDS
from sap2.model.weights import NAMES
from sap2.tiny.checkpoint import build_model, build_processor, hub_names, write_checkpoint, write_weights

BASE = "sap2-tiny"
KEPT_ARGUMENTS = (
    "tuner_type",
    "model_type",
    "template",
    "use_chat_template",
    "task_type",
    "swift_version",
    "sap_case",
    "sap_punctuation",
    "sap_stages",
    *SAP_FIELDS,
)
"""Arguments of the training that decoding reads again."""


def export_model(checkpoint: Path, folder: Path) -> None:
    """Write a fully trained model as a plain Qwen2-Audio; the spotter's tensors come along.

    Raises:
        InputError: the tensors are not those of the tiny model.
    """
    weights = load_file(checkpoint / "model.safetensors")
    processor = build_processor()
    model = build_model(processor.tokenizer)
    expected = {name: tensor.shape for name, tensor in hub_names(model.state_dict()).items()}
    if {name: tensor.shape for name, tensor in weights.items() if NAMES["sap_spotter"] not in name} != expected:
        raise InputError(f"{checkpoint} does not hold the tensors of the tiny model")
    with atomic_folder(folder, "config.json", overwrite=True) as new:
        write_checkpoint(new, processor, model, _half(weights))


def export_adapters(checkpoints: Sequence[Path], folder: Path) -> None:
    """Write an adapter, or the mean of several, with what decoding needs of its arguments.

    Raises:
        InputError: one of them is no adapter, or has other tensors than the first.
    """
    for path in checkpoints:
        if not (path / "adapter_config.json").is_file():
            raise InputError(f"{path} is no adapter; allowed: one checkpoint, or several adapters")
    adapters = [load_file(path / "adapter_model.safetensors") for path in checkpoints]
    shapes = [{name: tensor.shape for name, tensor in adapter.items()} for adapter in adapters]
    for path, shape in zip(checkpoints, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(f"{path} has other tensors than {checkpoints[0]}")
    mean = {name: torch.stack([one[name].float() for one in adapters]).mean(0) for name in adapters[0]}
    checkpoint = checkpoints[0]
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    arguments = json.loads((checkpoint / "args.json").read_text(encoding="utf-8"))
    kept = {"model": BASE, **{name: arguments[name] for name in KEPT_ARGUMENTS if arguments.get(name) is not None}}
    with atomic_folder(folder, "adapter_config.json", overwrite=True) as new:
        write_weights(new / "adapter_model.safetensors", _half(mean))
        _write(new / "adapter_config.json", {**config, "base_model_name_or_path": BASE})
        _write(new / "args.json", kept)


def _half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="export.py", description=__doc__)
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="of swift sft: a whole model, or adapters"
    )
    parser.add_argument("folder", type=Path, help="is replaced")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    first, *more = args.checkpoints
    if more or (first / "adapter_config.json").is_file():
        export_adapters(args.checkpoints, args.folder)
    else:
        export_model(first, args.folder)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
