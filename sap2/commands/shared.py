"""What the commands of this package share: the parser, kinds of options, progress, and one border for errors.

A command is a module with ``add_arguments(parser)`` and ``run(args)``, which returns an exit code or None.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from sap2.errors import EngineError, InputError, debugging, print_error
from sap2.files import check_writable, is_standard_output
from sap2.rowfiles import FORMATS, row_format
from sap2.text import NORMALIZERS

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


class Command(NamedTuple):
    """The module of a command, and its line in the list of commands."""

    module: str
    help: str


class Parser(argparse.ArgumentParser):
    """A parser of ``sap2``: flags may be written with hyphens or underscores, and errors have one prefix.

    Args:
        module: the module of the command. It is imported only when its arguments are parsed, so that a list of
            commands answers at once.
        kwargs: of ``argparse.ArgumentParser``. Flags are not abbreviated, and the description is shown as it stands.
    """

    def __init__(self, *args: Any, module: str | None = None, **kwargs: Any) -> None:
        kwargs = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}
        super().__init__(*args, **kwargs)
        self._module = module
        self.commands: dict[str, Parser] = {}

    def add_commands(self, commands: Mapping[str, Command], metavar: str) -> None:
        """Offer commands by name; without a name, the list of them is shown."""
        subparsers = self.add_subparsers(metavar=metavar)
        for name, command in commands.items():
            self.commands[name] = subparsers.add_parser(
                name, help=command.help, description=f"{name}: {command.help}.", module=command.module
            )
        self.set_defaults(run=self._show_commands)

    def _show_commands(self, args: argparse.Namespace) -> None:
        self.print_help()

    def parse_known_args(self, args=None, namespace=None):
        """As upstream's, after the command's module has added its arguments."""
        self.load()
        return super().parse_known_args(self._with_known_flags(sys.argv[1:] if args is None else args), namespace)

    def load(self) -> None:
        """Import the command's module and let it add its arguments, once."""
        if self._module is not None:
            module, self._module = importlib.import_module(self._module), None
            module.add_arguments(self)
            if hasattr(module, "run"):
                self.set_defaults(run=module.run)

    def completions(self, words: Sequence[str]) -> list[str]:
        """What the last of the words, which is begun, may become: commands, flags, or the choices of a flag."""
        self.load()
        for index, word in enumerate(words[:-1]):
            if word in self.commands:
                return self.commands[word].completions(words[index + 1 :])
        before = self._option_string_actions.get(words[-2]) if len(words) > 1 else None
        if before is not None and before.choices:
            found = [str(choice) for choice in before.choices]
        else:
            found = [*self.commands, *(flag for flag in self._option_string_actions if flag.startswith("--"))]
        return [word for word in found if word.startswith(words[-1])]

    def _with_known_flags(self, args: Sequence[str]) -> list[str]:
        """The arguments with ``--a_b`` for ``--a-b``, or the reverse, where only that is a flag of this parser."""
        args = list(args)
        for index, argument in enumerate(args):
            if argument == "--":
                break
            flag, equals, value = argument.partition("=")
            if flag.startswith("--") and flag not in self._option_string_actions:
                spellings = (f"--{flag[2:].replace('_', '-')}", f"--{flag[2:].replace('-', '_')}")
                known = next((spelling for spelling in spellings if spelling in self._option_string_actions), flag)
                args[index] = known + equals + value
        return args

    def error(self, message: str) -> NoReturn:
        """A wrong command line: its usage, and one line."""
        self.print_usage(sys.stderr)
        print_error(message)
        sys.exit(EXIT_BAD_INPUT)


def run_parser(parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Parse a command line and run its command behind the border for errors; returns the exit code."""

    def command() -> int | None:
        args = parser.parse_args(argv)
        return args.run(args)

    return run_bordered(command)


def run_module(module: str, prog: str, argv: Sequence[str] | None = None) -> int:
    """Run the command of a module under another name than that of ``sap2``; returns the exit code."""
    return run_parser(Parser(prog=prog, module=module), argv)


def run_bordered(command: Callable[[], int | None]) -> int:
    """Call a command and return its exit code; the one place where errors become a line on standard error.

    Bad input (:class:`InputError`, or an OSError that names its file) is one line and code 2, an engine that has died
    one line and code 1, Ctrl-C is code 130.
    Anything else is a fault of ours and keeps its traceback, as all errors do with ``SAP2_DEBUG=1``. Characters that
    the terminal cannot show are escaped. A command that is terminated removes its half-made output before it ends.
    """
    _show_every_character()
    try:
        with _ends_orderly(), _written_out():
            return command() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as head does
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (InputError, OSError) as error:
        if debugging() or (isinstance(error, OSError) and error.filename is None):
            raise
        print_error(_file_error(error) if isinstance(error, OSError) else error)
        return EXIT_BAD_INPUT
    except EngineError as error:
        if debugging():
            raise
        print_error(error)
        return EXIT_FAILED


def _file_error(error: OSError) -> str:
    return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.strerror else str(error)


def _show_every_character() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):  # it is closed
                stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    """What the block prints is written before it ends, while a reader that has gone away can still be dealt with."""
    try:
        yield
    finally:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()


@contextlib.contextmanager
def _ends_orderly() -> Iterator[None]:
    """SIGTERM ends the block by an exception, so that its half-made outputs are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """``--output FILE`` and ``--format``."""
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=f"{what}; .jsonl, .json or .parquet; - is standard output"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="format of the output (default: by the name of the file, else jsonl)"
    )


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output whose name and ``--format`` disagree, or that cannot be written, before anything is read.

    Raises:
        InputError: they disagree, or it is a folder.
        OSError: it cannot be written.
    """
    row_format(args.output, getattr(args, "format", None))
    check_writable(args.output)


def print_report(report: object, *outputs: str | os.PathLike[str] | None) -> None:
    """Print what a command did: on standard output, or on standard error where one of its outputs goes there."""
    taken = any(output is not None and is_standard_output(output) for output in outputs)
    print(report, file=sys.stderr if taken else sys.stdout)


def add_slide_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """``--language``, ``--common-words`` and ``--notes``: what of slides are keywords."""
    parser.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help="language whose 5,000 most frequent words are no keywords of slides; other than en with the package "
        "wordfreq; none: all words may be keywords (default: %(default)s)",
    )
    parser.add_argument("--common-words", metavar="FILE", help="words that are no keywords, one a line, instead")
    parser.add_argument("--notes", action="store_true", help="take the speaker's notes of PPTX slides too")


def add_normalizer(parser: argparse.ArgumentParser) -> None:
    """``--normalizer``, as in the evaluation."""
    parser.add_argument(
        "--normalizer",
        choices=NORMALIZERS,
        default="whisper-en",
        help="finds keywords in the transcript; use that of the evaluation (default: %(default)s)",
    )


def share(text: str) -> float:
    """A number from 0 to 1, as an argparse type."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")


def count(text: str) -> int:
    """A whole number from 0, as an argparse type."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """A whole number from 1, as an argparse type."""
    return _whole(text, 1)


def true_or_false(text: str) -> bool:
    """``true`` or ``false``, as ms-swift's flags have it, as an argparse type."""
    if text.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _whole(text: str, least: int) -> int:
    # int() would take "1_000" and " 7 " too
    if not re.fullmatch(r"\d+", text, re.ASCII) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)
