"""The error for bad input: a row, a file or a setting that somebody has to mend."""

from __future__ import annotations

import os
import sys
from types import TracebackType

DEBUG_VARIABLE = "SAP2_DEBUG"


class InputError(ValueError):
    """Bad input, said in one line that names the row or file, what is wrong and what is allowed."""


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
        if issubclass(kind, InputError) and os.environ.get(DEBUG_VARIABLE, "0") in {"", "0"}:
            print(f"sap2: error: {input_error_line(error)}", file=sys.stderr, flush=True)
        else:
            previous(kind, error, traceback)

    sys.excepthook = hook
