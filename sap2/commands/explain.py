"""``sap2 explain``: why was this word written?"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING

from sap2.commands.shared import count, positive
from sap2.commands.transcribe import add_recording_arguments, load_transcriber, make_request, write_or_print
from sap2.errors import InputError
from sap2.files import STDOUT, check_writable

if TYPE_CHECKING:
    from sap2.explain.types import Cost, Explanation


def word_range(text: str) -> tuple[int, int]:
    """``3-7`` or ``3``, as an argparse type."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of words, such as 3-7 or 3, counted from 1")
    return first, last


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 explain``."""
    parser.add_argument("audio", help="a recording of any length, audio or video")
    add_recording_arguments(parser)
    explaining = parser.add_argument_group("explaining")
    output = parser.add_argument_group("output")
    explaining.add_argument(
        "--words", type=word_range, metavar="A-B", help="explain these words of the transcript, counted from 1"
    )
    explaining.add_argument(
        "--masks",
        type=positive,
        default=512,
        metavar="N",
        help="ways in which parts of the sound are silenced; more take longer and say more surely what a word needs "
        "(default: %(default)s)",
    )
    explaining.add_argument(
        "--gradient-steps",
        type=count,
        default=32,
        metavar="N",
        help="steps of the integrated gradients of each word; 0: none (default: %(default)s)",
    )
    output.add_argument("--html", metavar="FILE", help="page with the words on the spectrogram")
    output.add_argument("--json", metavar="FILE", help="all numbers (default: -, where there is no --html)")


def run(args: argparse.Namespace) -> int:
    """Explain, and write what was asked for."""
    if args.engine != "transformers":
        raise InputError(f"--engine {args.engine}: explain looks into the language model; allowed: transformers")
    target = args.json or (STDOUT if args.html is None else None)
    for path in (args.html, target):
        if path is not None:
            check_writable(path)
    args.spelling = "keywords"
    request = make_request(args, args.audio)
    if args.keywords is not None and not (request.keywords or request.slides):
        raise InputError(f"--keywords {args.keywords}: it holds no keyword")
    from sap2.explain.explaining import explain
    from sap2.explain.types import ExplainOptions

    options = ExplainOptions(args.masks, args.gradient_steps)
    with load_transcriber(args) as transcriber:
        explanation = explain(transcriber, request, words=args.words, options=options, announce=_announce)
    _write(explanation, args.html, target)
    return 0


def _announce(cost: Cost) -> None:
    print(
        f"{cost.words} words in {cost.segments} segments: {cost.forward} forward passes and {cost.backward} with "
        f"gradients, about {cost.seconds:.0f} s",
        file=sys.stderr,
    )


def _write(explanation: Explanation, html: str | None, target: str | None) -> None:
    from sap2.explain.page import write_html

    if html is not None:
        write_html(html, explanation)
    if target is not None:
        write_or_print(target, json.dumps(explanation.to_dict(), ensure_ascii=False) + "\n")
