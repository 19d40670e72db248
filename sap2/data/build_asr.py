"""Rows of stage two: transcribe with these keywords.

--keywords all        the whole list of the utterance
--keywords oracle     those that are spoken, with --drop and --distractors as the errors of stage one
--keywords predicted  those that stage one chose (--predictions result.jsonl of `swift infer`)
--keywords none       the plain prompt and an empty context
"""

from __future__ import annotations

import argparse
import os

from sap2.commands.shared import (
    add_normalizer,
    add_output,
    check_output,
    count,
    print_report,
    share,
)
from sap2.data.building import (
    BuildReport,
    CleanUtterance,
    RowOptions,
    add_char,
    add_row_options,
    build_rows,
    row_options,
    row_random,
)
from sap2.data.extract_predicted_keywords import Predictions
from sap2.errors import InputError
from sap2.prompts import asr_prompt
from sap2.text import spoken_keywords

KEYWORD_MODES = ("all", "oracle", "predicted", "none")


def noisy_oracle(
    keywords: list[str], spoken: list[str], utterance_id: str, drop: float = 0.0, distractors: int = 0, seed: int = 0
) -> list[str]:
    """The spoken keywords with the errors of a stage one, in the list's order.

    Args:
        keywords: the whole list of the row.
        spoken: those of it that occur in the transcript.
        utterance_id: draws are made per row, so that they do not depend on the rows before it.
        drop: chance of each spoken keyword to be left out (a miss).
        distractors: up to this many keywords of the list that are not spoken come in (false picks); their number is
            drawn evenly from 0 to this.
        seed: of the draws.
    """
    rng = row_random(seed, utterance_id)
    true = set(spoken)
    kept = {keyword for keyword in spoken if rng.random() >= drop}
    others = [keyword for keyword in keywords if keyword not in true]
    kept.update(rng.sample(others, min(rng.randint(0, distractors), len(others))))
    return [keyword for keyword in keywords if keyword in kept]


def build_asr(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    keywords: str = "all",
    *,
    predictions: str | os.PathLike[str] | None = None,
    lenient: bool = False,
    drop: float = 0.0,
    distractors: int = 0,
    seed: int = 0,
    normalizer: str = "whisper-en",
    options: RowOptions | None = None,
) -> BuildReport:
    """Write the stage-two rows of the utterances in ``source``.

    Raises:
        InputError: bad input; the message names file and line, or the ids that predictions lack or have too many of.
    """
    if keywords not in KEYWORD_MODES:
        raise InputError(f"keywords {keywords!r} is unknown; allowed: {', '.join(KEYWORD_MODES)}")
    if (keywords == "predicted") != (predictions is not None):
        raise InputError("keywords 'predicted' and a file of predictions go together")
    options = options or RowOptions()
    table = Predictions(predictions, lenient=lenient) if predictions is not None else None

    def choose(utterance: CleanUtterance) -> list[str]:
        if keywords == "none":
            return []
        if keywords == "all":
            return utterance.keywords
        if keywords == "predicted":
            return table.keywords_of(utterance.id, utterance.audio, utterance.keywords)
        if not utterance.text:
            raise InputError(f"{utterance.id} has no transcript to take the oracle's keywords from")
        spoken = spoken_keywords(utterance.keywords, utterance.text, normalizer, options.char)
        return noisy_oracle(utterance.keywords, spoken, utterance.id, drop, distractors, seed)

    def make_turns(utterance: CleanUtterance) -> tuple[list[str], str, str]:
        chosen = choose(utterance)
        return chosen, asr_prompt(chosen), utterance.text

    return build_rows(source, output, make_turns, options, table.finish if table else None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    add_row_options(parser)
    add_output(parser, "stage-two rows")
    parser.add_argument("--keywords", choices=KEYWORD_MODES, default="all", help="default: %(default)s")
    parser.add_argument("--predictions", metavar="FILE", help="stage-one result.jsonl, with --keywords predicted")
    parser.add_argument(
        "--lenient", action="store_true", help="count missing and unknown predictions, do not refuse them"
    )
    parser.add_argument(
        "--drop", type=share, default=0.0, metavar="P", help="chance of a spoken keyword to be left out"
    )
    parser.add_argument(
        "--distractors", type=count, default=0, metavar="N", help="up to N unspoken keywords of the list"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --drop and --distractors (default: %(default)s)")
    add_normalizer(parser)
    add_char(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    if (args.keywords == "predicted") != (args.predictions is not None):
        raise InputError("--keywords predicted and --predictions FILE go together")
    if args.keywords != "oracle" and (args.drop or args.distractors):
        raise InputError("--drop and --distractors are errors put into --keywords oracle")
    report = build_asr(
        args.source,
        args.output,
        args.keywords,
        predictions=args.predictions,
        lenient=args.lenient,
        drop=args.drop,
        distractors=args.distractors,
        seed=args.seed,
        normalizer=args.normalizer,
        options=row_options(args),
    )
    print_report(f"{args.output}: {report}", args.output)
