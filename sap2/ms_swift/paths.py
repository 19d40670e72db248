"""Mistyped paths and names end at once: ms-swift takes what is no file for a name on its hub, and tries for long."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from sap2.errors import InputError
from sap2.shipped import FOLDER, SHIPPED, resolve_name

ROW_FILES = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".arrow"}
_ALIKE = 0.75


def is_here(name: str | os.PathLike[str] | None) -> bool:
    """Whether a model or an adapter is a folder of this machine, or comes with the package."""
    return bool(name) and Path(resolve_name(name)).expanduser().exists()


def check_name(name: str) -> None:
    """Refuse what no hub can have: a path that is not there, and almost the name of a shipped checkpoint.

    Raises:
        InputError: says what there is instead.
    """
    if is_here(name) or not isinstance(name, str):
        return
    if name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"{name} does not exist{_suggest(name)}; allowed: a folder, a hub name, or {_shipped()}")
    if "/" not in name and difflib.get_close_matches(name, SHIPPED, 1, _ALIKE):
        raise InputError(f"there is no model {name}{_suggest(name)}; allowed: a folder, a hub name, or {_shipped()}")


def check_checkpoints(args: Any) -> None:
    """Refuse models that are adapters and adapters that are models, for our model type.

    Raises:
        InputError: names the flag that it belongs to.
    """
    adapters = args.adapters if isinstance(args.adapters, list) else [args.adapters] if args.adapters else []
    for name in [args.model, *adapters]:
        if name:
            check_name(name.partition("=")[2] or name)
    if is_here(args.model) and _has(args.model, "adapter_config.json") and not _has(args.model, "config.json"):
        raise InputError(f"--model {args.model} is an adapter; allowed: --adapters {args.model}")
    for name in adapters:
        path = name.partition("=")[2] or name
        if is_here(path) and _has(path, "config.json") and not _has(path, "adapter_config.json"):
            raise InputError(f"--adapters {name} is a whole model; allowed: --model {path}")


def write_elsewhere(args: Any) -> None:
    """What ms-swift would write beside a shipped checkpoint (merged weights, results) goes to the current folder."""
    folder = getattr(args, "ckpt_dir", None)
    checkpoint = Path(folder) if folder else None
    if checkpoint is None or checkpoint.resolve().parent != FOLDER.resolve():
        return
    args.ckpt_dir = str(Path.cwd() / checkpoint.name)
    if getattr(args, "merge_lora", False) and getattr(args, "output_dir", None) is None:
        args.output_dir = f"{args.ckpt_dir}-merged"


def check_datasets(args: Any) -> None:
    """Refuse files of rows that are not there.

    Raises:
        InputError: names the file, and one that is called alike.
    """
    for flag in ("dataset", "val_dataset"):
        for given in getattr(args, flag, None) or []:
            path = given.rpartition("#")[0] if "#" in given and not Path(given).exists() else given
            if not Path(path).expanduser().exists() and _is_file_name(path):
                raise InputError(f"--{flag} {path} does not exist{_suggest(path)}; allowed: a file of rows, a hub name")


def _is_file_name(path: str) -> bool:
    if path.startswith(("hf::", "ms::", "HF::", "MS::")):
        return False
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).suffix.lower() in ROW_FILES


def _has(folder: str, name: str) -> bool:
    return Path(resolve_name(folder), name).expanduser().is_file()


def _shipped() -> str:
    return ", ".join(SHIPPED)


def _suggest(name: str) -> str:
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
