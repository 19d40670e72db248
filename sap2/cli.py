"""The ``sap2`` command.

A command is a module with ``add_arguments(parser)`` and ``run(args)``, named in :data:`COMMANDS`. It is imported only
when it is asked for, so that ``sap2 --help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sap2 import __version__
from sap2.errors import DEBUG_VARIABLE

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


class Command(NamedTuple):
    """Where a command lives, and its line in ``sap2 --help``."""

    module: str
    help: str


COMMANDS = {
    "make-tiny": Command("sap2.tiny.checkpoint", "write a tiny Qwen2-Audio checkpoint with random weights"),
    "make-talks": Command("sap2.tiny.talks", "write a corpus of synthetic talks with slides, spoken by espeak-ng"),
    "transcribe": Command("sap2.commands.transcribe", "transcribe a recording with the keywords of its slides"),
    "pipeline": Command("sap2.commands.pipeline", "decode a test set: pick the keywords, then transcribe"),
    "path": Command("sap2.shipped", "print the folder of a checkpoint that comes with the package"),
    "doctor": Command("sap2.doctor", "look for problems of this installation and say what to do about them"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Bad input (ValueError) is one line and code 2, a file or library that fails (OSError, ImportError) one line and
    code 1, Ctrl-C code 130. With ``SAP2_DEBUG=1`` errors keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:  # the process is the command's own
            signal.signal(signal.SIGTERM, _terminate)
        args = _build_parser(arguments).parse_args(arguments)
        return importlib.import_module(COMMANDS[args.command].module).run(args) or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}:
            raise
        print(f"sap2: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, ValueError) else EXIT_FAILED


def _terminate(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # unlike the default, this lets half-made outputs be removed


def _build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sap2", description="Contextual speech recognition with ms-swift: SAP².")
    parser.add_argument("--version", action="version", version=f"sap2 {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=f"{name}: {command.help}.")
        if name == asked:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
