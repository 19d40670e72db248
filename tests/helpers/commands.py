"""Running commands in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sap2.cli import main
from sap2.commands.data import run_tool


def exit_code(command: Callable[[Sequence[str]], int], arguments: Sequence[object]) -> int:
    """The exit code of a command, whether its parser or the command itself ended."""
    try:
        return command([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code or 0


def tool(name: str, *arguments: object) -> int:
    """The exit code of ``python -m data_tools.NAME``."""
    return exit_code(lambda argv: run_tool(name, argv), arguments)


def sap2(*arguments: object) -> int:
    """The exit code of ``sap2 …``."""
    return exit_code(main, arguments)
