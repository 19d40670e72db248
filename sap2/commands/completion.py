"""``sap2 completion``: the Tab key in bash."""

from __future__ import annotations

import argparse

BASH = """\
_sap2() { mapfile -t COMPREPLY < <(sap2 completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); }
complete -o default -F _sap2 sap2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 completion``."""
    parser.epilog = 'In ~/.bashrc: eval "$(sap2 completion)"'
    parser.add_argument(
        "--words",
        nargs=argparse.REMAINDER,
        help="complete the last of these words, as the printed function asks for",
    )


def run(args: argparse.Namespace) -> None:
    """Print the function, or what the last word may become."""
    if args.words is None:
        print(BASH, end="")
        return
    from sap2.cli import build_parser

    print("\n".join(build_parser().completions(args.words or [""])))
