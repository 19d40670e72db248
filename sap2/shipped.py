"""The checkpoints that come with the package, by name. Standard library only."""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path

from sap2.errors import InputError

SHIPPED = {
    "sap2-tiny": "a Qwen2-Audio of 1.4 million weights that hears synthetic talks",
    "sap2-tiny-prune": "its LoRA adapter for stage one",
    "sap2-tiny-asr": "its LoRA adapter for stage two",
}
FOLDER = Path(__file__).parent / "checkpoints"
_ALIKE = 0.75


def resolve_name(name: str | os.PathLike[str]) -> str:
    """The folder of a shipped checkpoint; anything else, and a name that is also a path here, comes back unchanged."""
    text = os.fspath(name)
    if text in SHIPPED and not Path(text).exists():
        return str(FOLDER / text)
    return text


def is_here(name: str | os.PathLike[str] | None) -> bool:
    """Whether a model or an adapter is a folder of this machine, or comes with the package."""
    return bool(name) and Path(resolve_name(name)).expanduser().exists()


def check_name(name: str) -> None:
    """Refuse what no hub can have: a path that is not there, and almost the name of a shipped checkpoint.

    What takes a name for one of a hub would look for it there, for long, and would not know what was meant.

    Raises:
        InputError: says what there is instead.
    """
    if is_here(name) or not isinstance(name, str):
        return
    if name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"{name} does not exist{suggest(name)}; allowed: a folder, a hub name, or {_allowed()}")
    if "/" not in name and difflib.get_close_matches(name, SHIPPED, 1, _ALIKE):
        raise InputError(f"there is no model {name}{suggest(name)}; allowed: a folder, a hub name, or {_allowed()}")


def is_adapter(name: str | os.PathLike[str]) -> bool:
    """Whether it is the folder, or the name, of an adapter and of no whole model."""
    folder = Path(resolve_name(name)).expanduser()
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def find_checkpoint(name: str | os.PathLike[str]) -> str:
    """As :func:`resolve_name`, and what cannot be a name is refused.

    Raises:
        InputError: as :func:`check_name`.
    """
    check_name(os.fspath(name))
    return resolve_name(name)


def _allowed() -> str:
    return ", ".join(SHIPPED)


def suggest(name: str) -> str:
    """A name that is written almost the same: beside it, or of a shipped checkpoint."""
    path = Path(name).expanduser()
    beside = {str(path.with_name(other.name)): other.name for other in _siblings(path)}
    alike = difflib.get_close_matches(path.name, beside.values(), 1, _ALIKE)
    found = next((full for full, last in beside.items() if last in alike), None)
    found = found or next(iter(difflib.get_close_matches(name, SHIPPED, 1, _ALIKE)), None)
    return f" (did you mean {found}?)" if found else ""


def _siblings(path: Path) -> list[Path]:
    try:
        return sorted(path.parent.iterdir())
    except OSError:
        return []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sap2 path``."""
    parser.add_argument("name", nargs="?", default="sap2-tiny", choices=SHIPPED, help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """``sap2 path``: for programs that do not know the names."""
    print(FOLDER / args.name)
