"""Rows that teach a model from scratch to spell what it hears and to copy from a context: lists that grow.

A small model that meets long lists from the start learns to spell and ignores them. With one name at first, then two,
four and more, it learns to look into the list as well. So the rows are in an order, and training keeps it:

    swift sft ... --dataset_shuffle false --train_dataloader_shuffle false

Tasks are mixed: transcribe with a list, select from a list, both at once, transcribe without a list. Some lists hold
nothing that is spoken. The other keywords of a list come from the utterance's own, nearest slide first (which may
sound like the spoken ones), or from all utterances of the file.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence

from sap2.commands.shared import add_output, check_output, positive, print_report
from sap2.data.building import BuildReport, CleanUtterance, clean_utterance, make_row
from sap2.data.utterances import read_utterances
from sap2.errors import InputError
from sap2.progress import progress
from sap2.prompts import asr_prompt, joint_prompt, joint_reply, prune_prompt, prune_reply
from sap2.rowfiles import write_rows
from sap2.rows import Row
from sap2.text import spoken_keywords

TASKS = {"asr": 0.5, "prune": 0.25, "joint": 0.1, "plain": 0.15}
"""Share of the rows of each task."""
USELESS = 0.12
"""Share of the lists from which the spoken keywords are left out."""
OWN_LIST = 0.5
"""Share of the lists that are taken from the utterance's own alone; the others hold any keyword of the file."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A share of the rows, and how many keywords their lists have (drawn evenly on a logarithmic scale)."""

    share: float
    shortest: int
    longest: int


DEFAULT_TASKS = ",".join(f"{task}={fraction}" for task, fraction in TASKS.items())
DEFAULT_STAGES = "0.25:1,0.1:2,0.1:4,0.15:8,0.4:8-48"


def parse_tasks(text: str) -> dict[str, float]:
    """``asr=0.8,plain=0.2``: shares of the tasks.

    Raises:
        InputError: not of this form, an unknown task, or the shares do not sum to 1.
    """
    tasks = {}
    for part in text.split(","):
        task, _, fraction = part.partition("=")
        try:
            tasks[task] = float(fraction)
        except ValueError:
            raise InputError(f"task {part!r} is not TASK=SHARE, such as asr=0.8") from None
        if task not in TASKS or not 0 < tasks[task] <= 1:
            raise InputError(f"task {part!r}; allowed: {', '.join(TASKS)}, with shares up to 1")
    if not math.isclose(sum(tasks.values()), 1, abs_tol=1e-6):
        raise InputError(f"the shares of {text!r} sum to {sum(tasks.values()):g}; allowed: 1")
    return tasks


def parse_stages(text: str) -> list[Stage]:
    """``0.25:1,0.75:2-8``: a quarter of the rows with one keyword, then the others with 2 to 8.

    Raises:
        InputError: not of this form, or the shares do not sum to 1.
    """
    stages = []
    for part in text.split(","):
        fraction, _, sizes = part.partition(":")
        shortest, _, longest = sizes.partition("-")
        try:
            stage = Stage(float(fraction), int(shortest), int(longest or shortest))
        except ValueError:
            raise InputError(f"stage {part!r} is not SHARE:KEYWORDS or SHARE:FEWEST-MOST, such as 0.4:8-48") from None
        if not (0 < stage.share <= 1 and 1 <= stage.shortest <= stage.longest):
            raise InputError(f"stage {part!r}; allowed: a share up to 1, and keywords from 1, the fewest first")
        stages.append(stage)
    if not math.isclose(sum(stage.share for stage in stages), 1, abs_tol=1e-6):
        raise InputError(f"the shares of {text!r} sum to {sum(stage.share for stage in stages):g}; allowed: 1")
    return stages


class Curriculum:
    """Draws rows from utterances.

    Args:
        utterances: with transcripts; their keywords are in the order of the list, nearest slide first.
        tasks: share of the rows of each task.
        block: rows in a row that have lists of the same size: the batch of a step, so that little is padding.
        seed: of all draws.

    Raises:
        InputError: there are no utterances, or one has no transcript.
    """

    def __init__(self, utterances: Sequence[CleanUtterance], tasks: Mapping[str, float], block: int, seed: int) -> None:
        if not utterances:
            raise InputError("there are no utterances to draw from")
        self.utterances = list(utterances)
        self.tasks = dict(tasks)
        self.block = block
        self.rng = random.Random(f"curriculum {seed}")
        # single words are found as they stand: the transcripts are lower case without punctuation
        self.spoken = {u.id: spoken_keywords(u.keywords, u.text, "none") for u in self.utterances}
        self.pool = sorted({keyword for u in self.utterances for keyword in u.keywords})

    def rows(self, count: int, stages: Sequence[Stage]) -> Iterator[tuple[Row, int]]:
        """``count`` rows and the size of their lists, in the order of training."""
        order = self._endless()
        ends = [sum(stage.share for stage in stages[: number + 1]) * count for number in range(len(stages))]
        size = 1
        for number in range(count):
            if number % self.block == 0:
                stage = next((s for s, end in zip(stages, ends, strict=True) if number < end), stages[-1])
                size = round(math.exp(self.rng.uniform(math.log(stage.shortest), math.log(stage.longest))))
            utterance = next(order)
            keywords, prompt, reply = self._turns(utterance, size)
            row = make_row(utterance, prompt, reply, with_transcript=utterance.text not in reply)
            yield {**row, "id": f"{utterance.id}#{number}"}, len(keywords)

    def _endless(self) -> Iterator[CleanUtterance]:
        while True:
            yield from self.rng.sample(self.utterances, len(self.utterances))

    def _turns(self, utterance: CleanUtterance, size: int) -> tuple[list[str], str, str]:
        task = self.rng.choices(list(self.tasks), list(self.tasks.values()))[0]
        if task == "plain":
            return [], asr_prompt([]), utterance.text
        keywords = self._keywords(utterance, size)
        listed = set(keywords)
        spoken = [keyword for keyword in self.spoken[utterance.id] if keyword in listed]
        if task == "prune":
            return keywords, prune_prompt(keywords), prune_reply(spoken)
        if task == "joint":
            return keywords, joint_prompt(keywords), joint_reply(spoken, utterance.text)
        return keywords, asr_prompt(keywords), utterance.text

    def _keywords(self, utterance: CleanUtterance, size: int) -> list[str]:
        """A list of ``size`` keywords in any order (of fewer, where the utterance's own list has no more)."""
        rng = self.rng
        spoken = self.spoken[utterance.id]
        taken = [] if rng.random() < USELESS else rng.sample(spoken, min(len(spoken), size))
        unspoken = set(spoken)
        own = [keyword for keyword in utterance.keywords if keyword not in unspoken]
        if rng.random() >= OWN_LIST:
            others = rng.sample(self.pool, min(len(self.pool), size))
            own = own[: size // 4] + [keyword for keyword in others if keyword not in unspoken]
        keywords = list(dict.fromkeys(taken + own))[:size]
        rng.shuffle(keywords)
        return keywords


def build_curriculum(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    rows: int,
    stages: str = DEFAULT_STAGES,
    *,
    tasks: str = DEFAULT_TASKS,
    block: int = 24,
    seed: int = 0,
    format: str | None = None,
) -> BuildReport:
    """Write ``rows`` rows drawn from the utterances in ``source``.

    Raises:
        InputError: bad input; the message names file and line, or the option.
    """
    parsed, shares = parse_stages(stages), parse_tasks(tasks)
    utterances = []
    for where, raw in read_utterances(source):
        utterance = clean_utterance(raw)
        if not utterance.text:
            raise InputError(f"{where}: {utterance.id} has no transcript")
        utterances.append(utterance)
    report = BuildReport()

    def drawn() -> Iterator[Row]:
        for row, keywords in progress(Curriculum(utterances, shares, block, seed).rows(rows, parsed), "building", rows):
            report.rows += 1
            report.keywords += keywords
            yield row

    write_rows(output, drawn(), format)
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = __doc__
    parser.add_argument("source", metavar="UTTERANCES", help="file of utterances, as a corpus converter writes it")
    add_output(parser, "rows of all tasks, in the order of training")
    parser.add_argument("--rows", type=positive, required=True, metavar="N", help="steps x rows of a step")
    parser.add_argument(
        "--stages", default=DEFAULT_STAGES, metavar="S:N,S:N-M", help="shares and sizes of lists (default: %(default)s)"
    )
    parser.add_argument(
        "--tasks", default=DEFAULT_TASKS, metavar="T=S,T=S", help="shares of tasks (default: %(default)s)"
    )
    parser.add_argument("--block", type=positive, default=24, metavar="N", help="rows of a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_output(args)
    report = build_curriculum(
        args.source,
        args.output,
        args.rows,
        args.stages,
        tasks=args.tasks,
        block=args.block,
        seed=args.seed,
        format=args.format,
    )
    print_report(f"{args.output}: {report}", args.output)
