"""What the commands of this package share: options, the progress bar, and errors as one line."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from sap2.rowfiles import FORMATS, row_format
from sap2.text import NORMALIZERS

Item = TypeVar("Item")


def command_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for ``python -m module`` that shows the module's docstring as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """``--output FILE`` and ``--format``."""
    parser.add_argument("--output", required=True, metavar="FILE", help=f"{what}; .jsonl, .json or .parquet")
    parser.add_argument("--format", choices=FORMATS, help="format of the output (default: by the name of the file)")


def add_normalizer(parser: argparse.ArgumentParser) -> None:
    """``--normalizer``, as in the evaluation."""
    parser.add_argument(
        "--normalizer",
        choices=NORMALIZERS,
        default="whisper-en",
        help="finds keywords in the transcript; use that of the evaluation (default: %(default)s)",
    )


def parse_output(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse; an output whose name and ``--format`` disagree is a usage error."""
    args = parser.parse_args(argv)
    try:
        row_format(args.output, args.format)
    except ValueError as error:
        parser.error(str(error))
    return args


def share(text: str) -> float:
    """A number from 0 to 1, as an argparse type."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def count(text: str) -> int:
    """A whole number from 0, as an argparse type."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1, as an argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "row") -> Iterable[Item]:
    """The items behind a progress bar on stderr, which stays away where stderr is not a terminal."""
    return tqdm(items, desc=description, total=total, unit=f" {unit}s", disable=None)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what bad input raises into one line on stderr and exit code 1; other errors keep their traceback.

    A command that is terminated removes its half-made output before it ends.
    """
    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminate) if main else None
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if main:
            signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, _frame: object) -> None:
    sys.exit(128 + number)
