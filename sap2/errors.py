"""The error for bad input: a row, a file or a setting that somebody has to mend. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType

DEBUG_VARIABLE = "SAP2_DEBUG"


class InputError(ValueError):
    """Bad input, said in one line that names the row or file, what is wrong and what is allowed."""


class MissingExtraError(InputError, ImportError):
    """A package that only a part of sap2 needs is not installed.

    Args:
        what: what needs it, such as ``talk.pdf``.
        package: its name on the package index.
        extra: the extra of sap2 that holds it. sap2 itself is on no index, so that the extra is named as it is
            installed from a checkout.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package}: pip install {package} (all such packages, in a checkout of sap2: "
            f"pip install '.[{extra}]')"
        )


def debugging() -> bool:
    """Whether errors keep their traceback (``SAP2_DEBUG=1``)."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}


def list_some(names: Sequence[str], shown: int = 10) -> str:
    """The first names of many, and how many more there are.

    >>> list_some(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def one_line(error: object) -> str:
    """What an error of another library says, in one line; the name of its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def print_error(message: object) -> None:
    """One line on standard error, with the prefix that all commands share."""
    print(f"sap2: error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def print_note(message: object) -> None:
    """One line on standard error that a person should see, though nothing is wrong."""
    print(f"sap2: note: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


class EngineError(RuntimeError):
    """What generates the replies has failed for good, said in one line; the input may be well."""


def input_error_line(error: BaseException) -> str:
    """The one line of an :class:`InputError`; a data-loader worker hands errors on as a whole traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else "bad input"
    kind, _, message = line.partition("Error: ")
    return message if message and kind.replace(".", "").isidentifier() else line


def install_excepthook() -> None:
    """End a program on an uncaught :class:`InputError` with its one line instead of a traceback.

    The exit code stays 1. ``SAP2_DEBUG=1`` keeps the traceback.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, InputError) and not debugging():
            print_error(input_error_line(error))
        else:
            previous(kind, error, traceback)

    sys.excepthook = hook
