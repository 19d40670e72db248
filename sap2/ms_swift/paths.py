"""Mistyped paths and names end at once: ms-swift takes what is no file for a name on its hub, and tries for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sap2.errors import InputError
from sap2.shipped import FOLDER, check_name, is_adapter, is_here, resolve_name, suggest

ROW_FILES = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".arrow"}


def check_checkpoints(args: Any) -> None:
    """Refuse models that are adapters and adapters that are models, for our model type.

    Raises:
        InputError: names the flag that it belongs to.
    """
    adapters = args.adapters if isinstance(args.adapters, list) else [args.adapters] if args.adapters else []
    for name in [args.model, *adapters]:
        if name:
            check_name(name.partition("=")[2] or name)
    if args.model and is_adapter(args.model):
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
                raise InputError(f"--{flag} {path} does not exist{suggest(path)}; allowed: a file of rows, a hub name")


def _is_file_name(path: str) -> bool:
    if path.startswith(("hf::", "ms::", "HF::", "MS::")):
        return False
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).suffix.lower() in ROW_FILES


def _has(folder: str, name: str) -> bool:
    return Path(resolve_name(folder), name).expanduser().is_file()
