"""From an utterance to a row of ms-swift: what the three builders have in common."""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
from collections.abc import Callable, Iterator

from sap2.commands.shared import add_normalizer, add_output
from sap2.data.utterances import Utterance, read_utterances
from sap2.errors import InputError
from sap2.progress import progress
from sap2.prompts import AUDIO_TAG, NO_KEYWORDS
from sap2.rowfiles import write_rows
from sap2.rows import Row
from sap2.text import clean_keywords, clean_text, spoken_keywords


@dataclasses.dataclass(frozen=True)
class RowOptions:
    """Options of every builder.

    Attributes:
        format: ``jsonl``, ``json`` or ``parquet``; None goes by the name of the output.
        split_words: cut the keywords into single words, as the paper does.
        with_reply: write the assistant's turn; without it the rows are for decoding and need no transcript.
        skip_empty: leave out (and count) utterances without a transcript instead of refusing them.
        char: look for keywords character by character in scripts without spaces, as the scorer does.
    """

    format: str | None = None
    split_words: bool = False
    with_reply: bool = True
    skip_empty: bool = False
    char: bool = False


@dataclasses.dataclass
class BuildReport:
    """What a builder wrote: ``rows`` written, utterances ``skipped``, ``keywords`` in all contexts together.

    ``unspoken`` are the rows of whose list nothing is spoken, where the builder looks for that.
    """

    rows: int = 0
    skipped: int = 0
    keywords: int = 0
    unspoken: int | None = None

    def __str__(self) -> str:
        mean = self.keywords / self.rows if self.rows else 0.0
        skipped = f", {self.skipped} skipped (no transcript)" if self.skipped else ""
        unspoken = f"; none of them spoken in {self.unspoken} rows" if self.unspoken is not None else ""
        if self.rows and self.unspoken == self.rows:
            unspoken += " (--char looks for keywords in scripts without spaces between words)"
        return f"{self.rows} rows{skipped}, {mean:.1f} keywords a row{unspoken}"


@dataclasses.dataclass(frozen=True)
class CleanUtterance:
    """An utterance whose text and keywords are safe in a row; ``text`` is empty where there is no transcript."""

    id: str
    audio: str
    text: str
    keywords: list[str]
    session: str | None = None


def clean_utterance(utterance: Utterance, split_words: bool = False) -> CleanUtterance:
    """Clean the transcript and the keywords (:mod:`sap2.text`), whoever wrote the file."""
    keywords = clean_keywords(utterance.keywords)
    if split_words:
        keywords = clean_keywords(word for keyword in keywords for word in keyword.split())
    return CleanUtterance(utterance.id, utterance.audio, clean_text(utterance.text or ""), keywords, utterance.session)


def make_row(utterance: CleanUtterance, prompt: str, reply: str | None, with_transcript: bool = False) -> Row:
    """One row: the audio and the prompt, the session where it is known, and the reply unless it is None.

    ``with_transcript`` adds the column ``transcript``, for a reply that does not hold it: training the spotter of
    ``sap_pooling`` salience needs it.
    """
    messages = [{"role": "user", "content": AUDIO_TAG + prompt}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    row: Row = {"id": utterance.id, "messages": messages, "audios": [utterance.audio]}
    if utterance.session is not None:  # results keep it, and are scored by session
        row["session"] = utterance.session
    return {**row, "transcript": utterance.text} if with_transcript and reply is not None else row


def row_random(seed: int, utterance_id: str) -> random.Random:
    """The random numbers of one row: the same whatever rows stand before it."""
    return random.Random(f"{seed}/{utterance_id}")


MakeTurns = Callable[[CleanUtterance], tuple[list[str], str, str]]
"""Gives the keywords of the context, the prompt and the reply."""


def build_rows(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    make_turns: MakeTurns,
    options: RowOptions,
    finish: Callable[[], object] | None = None,
    with_transcript: bool = False,
) -> BuildReport:
    """Stream the utterances of ``source`` into rows at ``output``, which appears whole or not at all.

    ``finish`` is called after the last row and before the output takes its name; ``with_transcript`` as in
    :func:`make_row`.

    Raises:
        InputError: a record is not an utterance, or has no transcript although the row needs one.
    """
    report = BuildReport()

    def rows() -> Iterator[Row]:
        yield from _rows(source, make_turns, options, report, with_transcript)
        if finish:
            finish()

    write_rows(output, rows(), options.format)
    return report


def _rows(
    source: str | os.PathLike[str],
    make_turns: MakeTurns,
    options: RowOptions,
    report: BuildReport,
    with_transcript: bool,
) -> Iterator[Row]:
    for where, raw in progress(read_utterances(source), "building"):
        utterance = clean_utterance(raw, options.split_words)
        if options.with_reply and not utterance.text:
            if not options.skip_empty:
                raise InputError(f"{where}: {utterance.id} has no transcript; --no-reply writes rows for decoding only")
            report.skipped += 1
            continue
        try:
            keywords, prompt, reply = make_turns(utterance)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        report.rows += 1
        report.keywords += len(keywords)
        if with_transcript:  # stage one
            report.unspoken = (report.unspoken or 0) + (reply == NO_KEYWORDS)
        yield make_row(utterance, prompt, reply if options.with_reply else None, with_transcript)


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`RowOptions`, and the source."""
    parser.add_argument("source", metavar="UTTERANCES", help="file of utterances, as a corpus converter writes it")
    parser.add_argument("--split-words", action="store_true", help="cut keywords into single words, as the paper does")
    parser.add_argument(
        "--no-reply", action="store_true", help="rows for decoding: no assistant turn, no transcript needed"
    )
    parser.add_argument(
        "--skip-empty", action="store_true", help="leave out utterances without a transcript, and count them"
    )


def add_char(parser: argparse.ArgumentParser) -> None:
    """``--char``, for tools that look for keywords in transcripts."""
    parser.add_argument(
        "--char",
        action="store_true",
        help="look for keywords character by character in scripts without spaces (Chinese, Japanese, Thai)",
    )


def row_options(args: argparse.Namespace) -> RowOptions:
    """The :class:`RowOptions` of parsed arguments."""
    return RowOptions(args.format, args.split_words, not args.no_reply, args.skip_empty, getattr(args, "char", False))


def build_spoken_rows(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    ask: Callable[[list[str]], str],
    answer: Callable[[list[str], str], str],
    normalizer: str = "whisper-en",
    options: RowOptions | None = None,
    with_transcript: bool = False,
) -> BuildReport:
    """As :func:`build_rows`, for rows whose reply names the keywords that are spoken.

    Args:
        ask: gives the prompt with a list of keywords.
        answer: gives the reply for the spoken ones of them and the transcript.
        normalizer: of the transcript and the keywords, where the spoken ones are looked for.
    """
    options = options or RowOptions()

    def make_turns(utterance: CleanUtterance) -> tuple[list[str], str, str]:
        spoken = spoken_keywords(utterance.keywords, utterance.text, normalizer, options.char)
        return utterance.keywords, ask(utterance.keywords), answer(spoken, utterance.text)

    return build_rows(source, output, make_turns, options, with_transcript=with_transcript)


def add_spoken_options(parser: argparse.ArgumentParser, what: str) -> None:
    """The options of the builders that look for the spoken keywords."""
    add_row_options(parser)
    add_output(parser, what)
    add_normalizer(parser)
    add_char(parser)
