"""The checkpoints that come with the package, by name. Standard library only."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

SHIPPED = {
    "sap2-tiny": "a Qwen2-Audio of 1.4 million weights that hears synthetic talks",
    "sap2-tiny-prune": "its LoRA adapter for stage one",
    "sap2-tiny-asr": "its LoRA adapter for stage two",
}
FOLDER = Path(__file__).parent / "checkpoints"


def resolve_name(name: str | os.PathLike[str]) -> str:
    """The folder of a shipped checkpoint; anything else, and a name that is also a path here, comes back unchanged."""
    text = os.fspath(name)
    if text in SHIPPED and not Path(text).exists():
        return str(FOLDER / text)
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sap2 path``."""
    parser.add_argument("name", nargs="?", default="sap2-tiny", choices=SHIPPED, help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """``sap2 path``: for programs that do not know the names."""
    print(FOLDER / args.name)
