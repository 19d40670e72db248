"""Compare the pruners on lists of 40 to 100,000 terms: what they find, how fast, and what stage two makes of it.

    python eval/prune.py UTTERANCES OUTPUT --model sap2-tiny --prune-adapter sap2-tiny-prune --asr-adapter sap2-tiny-asr

Each utterance has its own list (38 keywords of 5 slides). Longer lists add the keywords of all other talks, and names
that are in no talk, made as those of the talks are. Up to 500 terms they stand in the row, more are a term bank, and
then the row has no list (``bank``) or its own one (``beside``). Lists that fit into a prompt are also transcribed with
as they are (``whole``), and the model is asked only for them (``generate``). ``useless`` is a list, or a bank, of which
nothing is said; ``alike`` is the own list with two look-alikes in the place of each keyword that is said. Each seed
draws other utterances, other names and other lists. A run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from prune_report import OWN, Arm, limits, write_report

from sap2.commands.shared import Parser, positive, run_parser
from sap2.errors import InputError
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pruning import PRUNE_THRESHOLD, PRUNE_TOP
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import Row
from sap2.tiny.names import NameMaker
from sap2.tiny.plan import ACCENTS
from sap2.tiny.sentences import common_words

SIZES = (40, 500, 2000, 10_000, 100_000)
PRUNERS = ("spot", "match", "generate", "spot+generate")
PROMPT_MOST = 500
"""Terms that the model is told at most."""
BANK = 10_000
"""Terms at most of the bank that is searched beside the own lists, and of the useless one."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared; see the options of the command."""

    utterances: Path
    output: Path
    model: str
    prune_adapter: str
    asr_adapter: str
    sizes: Sequence[int]
    pruners: Sequence[str]
    seeds: int
    per_talk: int
    prune_top: int
    prune_threshold: float
    batch_size: int


def _make_maker(seed: str, taken: Iterable[str] = ()) -> NameMaker:
    return NameMaker(random.Random(seed), sorted(ACCENTS), {*common_words(), *taken})


def make_names(count: int, taken: set[str], seed: int = 0) -> list[str]:
    """Names that are in no talk; no two of them sound alike."""
    maker = _make_maker(f"prune {seed}")
    names = (name for name in iter(maker.name, "") if name not in taken)
    return list(itertools.islice(names, count))


def arms(settings: Settings) -> Iterator[Arm]:
    """All that is decoded."""
    yield Arm("none", 0, None)
    yield Arm("useless", OWN, "spot")
    yield Arm("alike", OWN, "spot")
    for size in settings.sizes:
        if size <= PROMPT_MOST:
            yield Arm("whole", size, None)
        for pruner in settings.pruners:
            if size <= PROMPT_MOST:
                yield Arm("list", size, pruner)
            elif "generate" not in pruner:
                yield Arm("bank", size, pruner)
    banks = [size for size in settings.sizes if PROMPT_MOST < size <= BANK]
    if banks:
        yield Arm("beside", max(banks), "spot")
        yield Arm("useless", max(banks), "spot")


def prepare(settings: Settings, seed: int, folder: Path) -> None:
    """Write the rows and banks of all sizes.

    Raises:
        InputError: the utterances are of one talk.
    """
    talks: dict[str, list[Row]] = {}
    for _, row in read_rows(settings.utterances):
        talks.setdefault(row["session"], []).append(row)
    if len(talks) < 2:
        raise InputError(f"{settings.utterances} holds {len(talks)} talks; allowed: 2 or more")
    rows = [row for of_talk in talks.values() for row in _spread(of_talk, settings, seed)]
    listed = list(
        dict.fromkeys(keyword for of_talk in talks.values() for row in of_talk for keyword in row["keywords"])
    )
    draw = random.Random(seed)
    draw.shuffle(listed)
    pool = [*listed, *make_names(max(0, max(settings.sizes) - len(listed)), set(listed), seed)]
    lists = [row["keywords"] for row in rows]
    write_rows(folder / "none.jsonl", [{**row, "keywords": []} for row in rows])
    # the list of an utterance of another talk, as far away as can be
    others = [*lists[len(lists) // 2 :], *lists[: len(lists) // 2]]
    useless = [{**row, "keywords": other} for row, other in zip(rows, others, strict=True)]
    write_rows(folder / "useless.jsonl", useless)
    maker = _make_maker(f"alike {seed}", listed)
    write_rows(folder / "alike.jsonl", [_alike(row, maker) for row in rows])
    write_rows(folder / f"{OWN}.jsonl", rows)
    said = {word for row in rows for word in row["text"].split()}
    unsaid = [name for name in pool if name not in said]
    for size in settings.sizes:
        if OWN < size <= PROMPT_MOST:
            write_rows(folder / f"{size}.jsonl", [_longer(row, pool, size) for row in rows])
        elif size > PROMPT_MOST:
            # all that is said, in places of chance
            left_out = {*unsaid[max(0, size - (len(pool) - len(unsaid))) :]}
            bank = [name for name in pool if name not in left_out]
            (folder / f"bank.{size}.txt").write_text("\n".join(bank) + "\n", encoding="utf-8")
    for size in settings.sizes:
        (folder / f"useless.{size}.txt").write_text("\n".join(unsaid[:size]) + "\n", encoding="utf-8")


def _spread(rows: list[Row], settings: Settings, seed: int) -> list[Row]:
    """So many rows of a talk, evenly over it, and other ones for each seed; of a short talk all."""
    every = min(settings.seeds * settings.per_talk, len(rows))
    return [rows[index * len(rows) // every] for index in range(seed, every, settings.seeds)]


def _alike(row: Row, maker: NameMaker) -> Row:
    """Nothing that is said is in the list, but of each such keyword one with a letter changed, and one with two."""
    said = set(row["text"].split())
    keywords: list[str] = []
    for keyword in row["keywords"]:
        if said.isdisjoint(keyword.split()):
            keywords.append(keyword)
        elif near := maker.near(keyword):
            keywords += [near, *filter(None, [maker.near(near)])]
    random.Random(row["id"]).shuffle(keywords)
    return {**row, "keywords": keywords}


def _longer(row: Row, pool: Sequence[str], size: int) -> Row:
    own = set(row["keywords"])
    added = random.Random(row["id"]).sample([name for name in pool[: 20 * size] if name not in own], size - len(own))
    keywords = [*row["keywords"], *added]
    random.Random(row["id"]).shuffle(keywords)
    return {**row, "keywords": keywords}


def decode(settings: Settings, arm: Arm, folder: Path) -> None:
    """Run one arm through the pipeline.

    Raises:
        InputError: a row failed.
    """
    bank = arm.size > PROMPT_MOST
    useless = "none" if bank else "useless"
    sources = {"none": "none", "bank": "none", "beside": str(OWN), "useless": useless, "alike": "alike"}
    source = sources.get(arm.kind, str(arm.size))
    banks = {"bank": f"bank.{arm.size}.txt", "beside": f"bank.{arm.size}.txt", "useless": f"useless.{arm.size}.txt"}
    asks = arm.pruner is not None and "generate" in arm.pruner
    report = run_pipeline(
        PipelineOptions(
            val_dataset=str(folder / f"{source}.jsonl"),
            result_path=str(folder / f"result.{arm.name}.jsonl"),
            model=settings.model,
            prune_adapter=settings.prune_adapter if asks else None,
            asr_adapter=settings.asr_adapter,
            pruner=arm.pruner,
            prune_top=settings.prune_top,
            prune_threshold=settings.prune_threshold,
            term_bank=str(folder / banks[arm.kind]) if bank else None,
            batch_size=settings.batch_size,
            max_new_tokens=64,  # the longest sentence has 47 letters
        )
    )
    if report.failed:
        raise InputError(f"{arm.name}: {report.failed} rows failed, see {report.errors}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("utterances", type=Path, metavar="UTTERANCES", help="of several talks, with their lists")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for rows, results, table and plot")
    parser.add_argument("--model", default="sap2-tiny", help="default: %(default)s")
    parser.add_argument("--prune-adapter", default="sap2-tiny-prune", help="default: %(default)s")
    parser.add_argument("--asr-adapter", default="sap2-tiny-asr", help="default: %(default)s")
    parser.add_argument(
        "--sizes", type=positive, nargs="+", default=list(SIZES), metavar="N", help="terms of the lists"
    )
    parser.add_argument("--pruners", nargs="+", default=list(PRUNERS), help="default: all, and spot+generate")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--per-talk", type=positive, default=10, metavar="N", help="utterances of a seed (default: %(default)s)"
    )
    parser.add_argument("--prune-top", type=positive, default=PRUNE_TOP, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--prune-threshold", type=float, default=PRUNE_THRESHOLD, metavar="P", help="default: %(default)s"
    )
    parser.add_argument("--batch-size", type=positive, default=24, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Prepare, decode what is not decoded yet, and report."""
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    folders = [settings.output / f"seed.{seed}" for seed in range(settings.seeds)]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        prepare(settings, seed, folder)
    planned = list(arms(settings))
    for arm in planned:
        for folder in folders:
            decode(settings, arm, folder)
        write_report(settings.output, folders, [done for done in planned if all(map(done.is_decoded, folders))])
    print((settings.output / "table.md").read_text(encoding="utf-8"))
    for line in limits(folders, planned):
        print(line)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="prune.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
