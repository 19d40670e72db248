"""Score contextual speech recognition: WER, U-WER, B-WER and keyword recall, by the two published definitions.

    sap2 score result.jsonl
    sap2 score base=a.jsonl sap2=b.jsonl --html report.html
    sap2 score --transcript out/*.json --reference talk.txt --keywords slides.pdf --normalize whisper-en
    sap2 score --ref ref --hyp sap2=hyp --keywords ocr --utt2session utt2spk --by-session
    sap2 score --biasing-tsv test-clean.biasing_100.tsv --hyp hyp.tsv

Exit code: 0 when everything was scored, 2 for bad input or a wrong command line, 3 when --lenient left something out.
docs/evaluation.md has the definitions, the formats and the JSON schema.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sap2.commands.shared import count, positive, print_report
from sap2.errors import InputError
from sap2.files import check_writable
from sap2.progress import progress
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
    title: str = ""


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
        files={name: str(path) for name, path in (sources.input_files or sources.hyps or {}).items()},
        replies=test_set.hyps,
        picks=test_set.picks,
        sure=test_set.sure,
        title=settings.title,
    )
    return scores, report


def _refuse(test_set: TestSet, settings: Settings) -> None:
    if test_set.problems and not settings.lenient:
        raise InputError(test_set.problems.refusal())


def _bar(items: Collection[Any]) -> Iterator[Any]:
    return progress(items, "bootstrap", unit="session")


def named_files(option: str, values: Sequence[str] | None) -> dict[str, Path]:
    """``[NAME=]FILE`` arguments as name → file.

    Raises:
        InputError: one has no name or file, or two have the same name.
    """
    files: dict[str, Path] = {}
    for value in values or ():
        name, separator, path = value.partition("=")
        if not separator or Path(value).exists():
            name, path = DEFAULT_NAME, value
        if not name or not path:
            raise InputError(f"{option} {value!r}: expected FILE or NAME=FILE")
        if name in files:
            raise InputError(f"{option}: two systems are called {name!r}; name them with NAME=FILE")
        files[name] = Path(path)
    return files


def add_result_files(group: argparse._ArgumentGroup, help: str) -> None:
    """Result files of one or more systems, as they are or behind ``--input-file``."""
    group.add_argument("results", nargs="*", metavar="[NAME=]RESULT", help=help)
    group.add_argument("--input-file", nargs="+", action="extend", metavar="[NAME=]FILE", help="the same, as an option")


def result_files(args: argparse.Namespace) -> dict[str, Path]:
    """The files of :func:`add_result_files`, by the name of the system."""
    return named_files("result files", [*args.results, *(args.input_file or ())])


def read_sources(args: argparse.Namespace) -> Sources:
    """The input files of parsed arguments.

    Raises:
        InputError: options that do not go together.
    """
    results = result_files(args)
    given = {
        "result files": results,
        "--ref": args.ref,
        "--biasing-tsv": args.biasing_tsv,
        "--transcript": args.transcript,
    }
    inputs = [name for name, value in given.items() if value]
    if len(inputs) != 1:
        asked = f", not {len(inputs)} of them" if inputs else ""
        raise InputError(
            f"give result files, --transcript, --ref or --biasing-tsv{asked}; sap2 score --help has examples"
        )
    if bool(args.transcript) != bool(args.reference):
        raise InputError("--transcript and --reference go together")
    if args.transcript and args.hyp:
        raise InputError("--hyp goes with --ref or --biasing-tsv; --transcript files are the hypotheses themselves")
    if results and args.hyp:
        raise InputError("--hyp goes with --ref or --biasing-tsv; result files hold the hypotheses themselves")
    if not results and not args.hyp and not args.transcript:
        raise InputError(f"{inputs[0]} needs --hyp [NAME=]FILE")
    hyps = named_files("--hyp", args.hyp)
    talks = (args.transcript or [], args.reference or [])
    return Sources(results, args.ref, args.biasing_tsv, hyps, args.keywords, args.utt2session, args.reply, *talks)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 score``."""
    parser.description = __doc__
    files = parser.add_argument_group("input")
    add_result_files(files, "result.jsonl of swift infer or sap2 pipeline; several systems with names")
    files.add_argument("--ref", type=Path, metavar="FILE", help="references in Kaldi style: id, then text")
    files.add_argument("--biasing-tsv", type=Path, metavar="FILE", help="LibriSpeech biasing list with references")
    files.add_argument(
        "--hyp",
        nargs="+",
        action="extend",
        metavar="[NAME=]FILE",
        help="hypotheses: Kaldi style for --ref, id TAB text for --biasing-tsv, or rows",
    )
    files.add_argument(
        "--transcript", nargs="+", type=Path, metavar="FILE", help="whole talks, as sap2 transcribe writes them"
    )
    files.add_argument(
        "--reference",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="what is said: a text for each, or one for all",
    )
    files.add_argument(
        "--keywords",
        type=Path,
        metavar="FILE",
        help="keyword lists, 'utt A$B$C', instead of the rows'; with --transcript the slides or a list",
    )
    files.add_argument("--utt2session", type=Path, metavar="FILE", help="session (talk, speaker) of every utterance")
    files.add_argument(
        "--reply",
        choices=("auto", "plain", "joint"),
        default="auto",
        help="form of labels and responses; joint: 'Selected keywords are: … Transcription: …' (default: %(default)s)",
    )
    _add_rules(parser.add_argument_group("rules"))
    output = parser.add_argument_group("output")
    output.add_argument("--by-session", action="store_true", help="print the figures of every session, too")
    output.add_argument("--json", type=Path, metavar="OUT", help="write all figures")
    output.add_argument("--tsv", type=Path, metavar="OUT", help="write one line for each utterance and system")
    output.add_argument("--html", type=Path, metavar="OUT", help="write one page to look at the errors")
    output.add_argument("--title", default="", metavar="TEXT", help="title of the page (default: names of the systems)")


def _add_rules(rules: argparse._ArgumentGroup) -> None:
    rules.add_argument(
        "--definition",
        choices=DEFINITIONS,
        help="which words are keywords (default: librispeech with --biasing-tsv, else slidespeech)",
    )
    add_comparison_rules(rules)
    rules.add_argument(
        "--bootstrap",
        type=positive,
        default=2000,
        metavar="DRAWS",
        help="draws of the bootstrap (default: %(default)s)",
    )
    rules.add_argument("--seed", type=count, default=0, help="seed of the bootstrap (default: %(default)s)")


def add_comparison_rules(rules: argparse._ArgumentGroup) -> None:
    """How texts are compared, and whether what does not fit may be left out."""
    rules.add_argument(
        "--normalize", choices=NORMALIZERS, default="none", help="normaliser of all texts (default: %(default)s)"
    )
    rules.add_argument("--char", action="store_true", help="Chinese and other scripts without spaces by character")
    rules.add_argument("--lenient", action="store_true", help="leave out what does not fit, count and print it")


def run(args: argparse.Namespace) -> int:
    """Score, write the files that were asked for, and print the summary; 3 where something was left out."""
    outputs = (args.json, args.tsv, args.html)
    for path in filter(None, outputs):
        check_writable(path)
    sources = read_sources(args)
    settings = Settings(args.definition, args.normalize, args.char, args.lenient, args.bootstrap, args.seed, args.title)
    scores, report = evaluate(sources, settings)
    if args.by_session and not report.sessions:
        raise InputError("--by-session: no session is known; give --utt2session FILE, or rows with a session")
    print_report("\n".join(summary_lines(report, args.by_session)), *outputs)
    for path, write in zip(outputs, (write_json, write_tsv, write_html), strict=True):
        if path:
            write(path, scores, report)
    return NOT_ALL_SCORED if report.problems else 0
