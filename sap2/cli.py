"""The ``sap2`` command.

Every command is a module with ``add_arguments(parser)`` and ``run(args)``, named in :data:`COMMANDS`. It is imported
only when it is asked for, so that ``sap2`` and ``sap2 --help`` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sap2 import __version__
from sap2.commands.shared import Command, Parser, run_parser

COMMANDS = {
    "transcribe": Command("sap2.commands.transcribe", "transcribe a recording with the keywords of its slides"),
    "pipeline": Command("sap2.commands.pipeline", "decode a test set: pick the keywords, then transcribe"),
    "explain": Command("sap2.commands.explain", "say of each word of a recording why it was written"),
    "serve": Command("sap2.commands.serve", "transcribe over HTTP, as OpenAI's clients ask for it"),
    "calibrate": Command("sap2.commands.calibrate", "make the probabilities of the pruner spot true, on a dev set"),
    "score": Command("sap2.scoring.command", "score transcripts: WER, U-WER, B-WER and keyword recall"),
    "score-keywords": Command("sap2.scoring.selection", "score the keywords that stage one picked"),
    "data": Command("sap2.commands.data", "turn corpora and talks into utterances and training rows, and check them"),
    "make-tiny": Command("sap2.tiny.checkpoint", "write a tiny Qwen2-Audio checkpoint with random weights"),
    "make-talks": Command("sap2.tiny.talks", "write a corpus of synthetic talks with slides, spoken by espeak-ng"),
    "path": Command("sap2.shipped", "print the folder of a checkpoint that comes with the package"),
    "completion": Command("sap2.commands.completion", "print what completes commands and flags in bash"),
    "doctor": Command("sap2.doctor", "look for problems of this installation and say what to do about them"),
}


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="sap2", description="Contextual speech recognition with ms-swift: SAP².")
    parser.add_argument("--version", action="version", version=f"sap2 {__version__}")
    parser.add_commands(COMMANDS, "COMMAND")
    parser.epilog = "sap2 COMMAND --help shows the options of a command."
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; without a command, show the list of them.

    Errors are those of :func:`sap2.commands.shared.run_bordered`.
    """
    return run_parser(build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
