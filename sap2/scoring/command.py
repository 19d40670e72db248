"""Score contextual speech recognition: WER, U-WER, B-WER and keyword recall, by the two published definitions.

    python eval/slidespeech_wer.py --input_file result.jsonl
    python eval/slidespeech_wer.py --input_file base=a.jsonl --input_file sap2=b.jsonl --html report.html
    python eval/slidespeech_wer.py --ref ref --hyp sap2=hyp --keywords ocr --utt2session utt2spk --by_session
    python eval/slidespeech_wer.py --biasing_tsv test-clean.biasing_100.tsv --hyp hyp.tsv

Exit code: 0 when everything was scored, 1 for an error, 2 for a wrong command line, 3 when ``--lenient`` let something
be left out. docs/evaluation.md has the definitions, the formats and the JSON schema.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sap2.errors import InputError
from sap2.scoring.definitions import DEFINITIONS, Scores, score
from sap2.scoring.figures import FEW_UTTERANCES, compare_systems, figures, totals
from sap2.scoring.html import write_html
from sap2.scoring.inputs import TestSet
from sap2.scoring.output import Report, session_figures, summary_lines, write_json, write_tsv
from sap2.scoring.testset import DEFAULT_NAME, Sources, load_test_set
from sap2.text import NORMALIZERS

NOT_ALL_SCORED = 3


@dataclass
class Settings:
    """How to score: see the options of the command."""

    definition: str | None = None
    normalize: str = "none"
    char: bool = False
    lenient: bool = False
    draws: int = 2000
    seed: int = 0


def evaluate(sources: Sources, settings: Settings) -> tuple[Scores, Report]:
    """Read, align and count everything.

    Raises:
        InputError: a file cannot be understood, or ids do not fit together and ``lenient`` is not set; the message
            lists the ids.
    """
    name = settings.definition or ("librispeech" if sources.biasing_tsv else "slidespeech")
    test_set = load_test_set(sources)
    _refuse(test_set, settings)
    scores = score(test_set, DEFINITIONS[name], settings.normalize, settings.char)
    _refuse(test_set, settings)  # a reference may be empty once it is normalised
    if len(test_set.hyps) > 1 and len(test_set.utterances) < FEW_UTTERANCES:
        test_set.notes.append(f"only {len(test_set.utterances)} in the test set: intervals and p say little")
    report = Report(
        definition=name,
        normalize=settings.normalize,
        char=settings.char,
        utterances=len(scores.utterances),
        systems={system: figures(totals(found)) for system, found in scores.systems.items()},
        sessions=session_figures(scores),
        comparisons=compare_systems(scores, settings.draws, settings.seed, _bar),
        bootstrap={"draws": settings.draws, "seed": settings.seed},
        unparsed=test_set.unparsed,
        problems=test_set.problems,
        notes=test_set.notes,
    )
    return scores, report


def _refuse(test_set: TestSet, settings: Settings) -> None:
    if test_set.problems and not settings.lenient:
        raise InputError(test_set.problems.refusal())


def _bar(items):
    return tqdm(items, desc="bootstrap per session", leave=False, disable=None)


def named_files(parser: argparse.ArgumentParser, option: str, values: Sequence[str] | None) -> dict[str, Path]:
    """``[NAME=]FILE`` arguments as name → file."""
    files: dict[str, Path] = {}
    for value in values or ():
        name, separator, path = value.partition("=")
        if not separator or Path(value).exists():
            name, path = DEFAULT_NAME, value
        if not name or not path:
            parser.error(f"{option} {value!r}: expected FILE or NAME=FILE")
        if name in files:
            parser.error(f"{option}: two systems are called {name!r}; name them with NAME=FILE")
        files[name] = Path(path)
    return files


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked against one another, with ``sources`` and ``settings`` made of them."""
    parser = _parser()
    args = parser.parse_args(argv)
    inputs = [name for name in ("input_file", "ref", "biasing_tsv") if getattr(args, name)]
    if len(inputs) != 1:
        parser.error("give one of --input_file, --ref and --biasing_tsv" + (f", not {len(inputs)}" if inputs else ""))
    if args.input_file and args.hyp:
        parser.error("--hyp goes with --ref or --biasing_tsv; the rows of --input_file hold the hypotheses")
    if not args.input_file and not args.hyp:
        parser.error(f"--{inputs[0]} needs --hyp [NAME=]FILE")
    if args.bootstrap < 1:
        parser.error(f"--bootstrap {args.bootstrap}: the number of draws must be at least 1")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: must not be negative")
    args.sources = Sources(
        named_files(parser, "--input_file", args.input_file),
        args.ref,
        args.biasing_tsv,
        named_files(parser, "--hyp", args.hyp),
        args.keywords,
        args.utt2session,
        args.reply,
    )
    args.settings = Settings(args.definition, args.normalize, args.char, args.lenient, args.bootstrap, args.seed)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    files = parser.add_argument_group("input")
    systems = {"nargs": "+", "action": "extend", "metavar": "[NAME=]FILE"}
    files.add_argument("--input_file", **systems, help="result.jsonl of swift infer; several systems with names")
    files.add_argument("--ref", type=Path, metavar="FILE", help="references in Kaldi style: id, then text")
    files.add_argument("--biasing_tsv", type=Path, metavar="FILE", help="LibriSpeech biasing list with references")
    files.add_argument(
        "--hyp", **systems, help="hypotheses: Kaldi style for --ref, id TAB text for --biasing_tsv, or rows"
    )
    files.add_argument("--keywords", type=Path, metavar="FILE", help="keyword lists, 'utt A$B$C'; instead of the rows'")
    files.add_argument("--utt2session", type=Path, metavar="FILE", help="session (talk, speaker) of every utterance")
    files.add_argument(
        "--reply",
        choices=("auto", "plain", "joint"),
        default="auto",
        help="form of labels and responses; joint: 'Selected keywords are: … Transcription: …'; default: %(default)s",
    )
    rules = parser.add_argument_group("rules")
    rules.add_argument(
        "--definition", choices=DEFINITIONS, help="default: librispeech with --biasing_tsv, else slidespeech"
    )
    rules.add_argument("--normalize", choices=NORMALIZERS, default="none", help="default: %(default)s")
    rules.add_argument("--char", action="store_true", help="Chinese and other scripts without spaces by character")
    rules.add_argument("--lenient", action="store_true", help="leave out what does not fit, count and print it")
    rules.add_argument(
        "--bootstrap", type=int, default=2000, metavar="DRAWS", help="samples of the bootstrap; default: %(default)s"
    )
    rules.add_argument("--seed", type=int, default=0, help="of the bootstrap; default: %(default)s")
    output = parser.add_argument_group("output")
    output.add_argument("--by_session", action="store_true", help="print every session, too")
    output.add_argument("--json", type=Path, metavar="OUT", help="all figures")
    output.add_argument("--tsv", type=Path, metavar="OUT", help="one line per utterance and system")
    output.add_argument("--html", type=Path, metavar="OUT", help="one page to look at the errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    try:
        scores, report = evaluate(args.sources, args.settings)
        if args.by_session and not report.sessions:
            raise InputError("--by_session: no session is known; give --utt2session FILE")
        for path, write in ((args.json, write_json), (args.tsv, write_tsv), (args.html, write_html)):
            if path:
                write(path, scores, report)
    except (ValueError, OSError) as error:
        print(f"slidespeech_wer.py: error: {error}", file=sys.stderr)
        return 1
    print("\n".join(summary_lines(report, args.by_session)))
    return NOT_ALL_SCORED if report.problems else 0
