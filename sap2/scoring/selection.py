"""Score stage one, the picking of keywords: precision, recall, F1, and what the pruning costs stage two.

    sap2 score-keywords result.jsonl
    sap2 score-keywords a=a.jsonl b=b.jsonl --ref text --json keywords.json

A row's context is the list, its label the spoken keywords, its response the picked ones (swift infer writes such rows).
Exit codes are those of sap2 score; docs/evaluation.md has the definitions and the JSON schema.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sap2.commands.shared import print_report
from sap2.errors import InputError
from sap2.files import atomic_write, check_writable
from sap2.progress import progress
from sap2.prompts import parse_joint_reply, parse_prune_reply
from sap2.scoring.command import NOT_ALL_SCORED, add_comparison_rules, add_result_files, result_files
from sap2.scoring.figures import percentage
from sap2.scoring.inputs import Problems, ResultRow, is_joint, match_ids, read_kaldi, read_results
from sap2.scoring.output import show, table
from sap2.text import get_normalizer, split_words, spoken_keywords

RANKS = (3, 5, 10, 20)
"""How far down a ranking is looked."""


class Selection(NamedTuple):
    """Keywords of one utterance as word tuples: offered, spoken, picked; the transcript's words if it is known, and the
    ranking of a pruner, the likeliest first, if there is one."""

    listed: set[tuple[str, ...]]
    spoken: set[tuple[str, ...]]
    picked: set[tuple[str, ...]]
    ref: list[str] | None = None
    ranked: list[tuple[str, ...]] | None = None


@dataclass
class KeywordRules:
    """How keywords are compared: case is ignored, and both sides are normalised as in slidespeech_wer.py."""

    normalize: str = "none"
    char: bool = False

    def words(self, text: str) -> tuple[str, ...]:
        """The words of a keyword or transcript."""
        return tuple(split_words(get_normalizer(self.normalize)(text).casefold(), self.char))

    def all_of(self, keywords: Iterable[str]) -> set[tuple[str, ...]]:
        """The distinct keywords that have a word."""
        return {words for words in map(self.words, keywords) if words}


def score_selections(selections: Sequence[Selection]) -> dict[str, Any]:
    """Figures of stage one over all utterances, rates in percent, None where undefined.

    A picked keyword that was spoken is a tp, any other a fp, one that is not in the list (``invented``) included; a
    spoken keyword that was not picked is a fn. ``micro`` is over all keywords; ``macro`` is the mean over utterances of
    the rates that are defined there. ``compression`` is keywords of the lists per keyword that stays (picked and in the
    list, which is what stage two gets). ``ceiling`` is the keyword recall that stage two could still reach: the share
    of the list words in the transcript that are in the kept keywords, counted by occurrence; where transcripts are
    unknown, of the distinct words of the spoken keywords. ``recall_at`` is the share of the spoken keywords among the
    first k that a pruner ranked; None where nothing was ranked.
    """
    counts: Counter[str] = Counter()
    rates: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for selection in selections:
        one = _count(selection)
        counts.update(one)
        for name, rate in _rates(one).items():
            if rate is not None:
                rates[name].append(rate)
    return {
        "utterances": len(selections),
        "micro": {**{key: counts[key] for key in ("tp", "fp", "fn")}, **_rates(counts)},
        "macro": {name: sum(values) / len(values) if values else None for name, values in rates.items()},
        "invented": counts["invented"],
        "listed": counts["listed"],
        "kept": counts["kept"],
        "compression": counts["listed"] / counts["kept"] if counts["kept"] else None,
        "recall_at": _recall_at(selections),
        "ceiling": percentage(counts["reachable"], counts["words"]),
        "ceiling_words": counts["words"],
        "ceiling_reachable": counts["reachable"],
    }


def _recall_at(selections: Sequence[Selection]) -> dict[int, float | None] | None:
    """Share of the spoken keywords among the first k of the rankings; None where there is no ranking."""
    if not any(selection.ranked for selection in selections):
        return None
    spoken = sum(len(selection.spoken) for selection in selections)
    found = {k: sum(len(s.spoken.intersection((s.ranked or [])[:k])) for s in selections) for k in RANKS}
    return {k: percentage(count, spoken) for k, count in found.items()}


def _count(selection: Selection) -> dict[str, int]:
    kept = selection.picked & selection.listed
    kept_words = {word for keyword in kept for word in keyword}
    if selection.ref is None:
        wanted = list({word for keyword in selection.spoken for word in keyword})
    else:
        listed_words = {word for keyword in selection.listed for word in keyword}
        wanted = [word for word in selection.ref if word in listed_words]
    return {
        "tp": len(selection.picked & selection.spoken),
        "fp": len(selection.picked - selection.spoken),
        "fn": len(selection.spoken - selection.picked),
        "invented": len(selection.picked - selection.listed),
        "listed": len(selection.listed),
        "kept": len(kept),
        "words": len(wanted),
        "reachable": sum(word in kept_words for word in wanted),
    }


def _rates(counts: dict[str, int]) -> dict[str, float | None]:
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    return {
        "precision": percentage(tp, tp + fp),
        "recall": percentage(tp, tp + fn),
        "f1": percentage(2 * tp, 2 * tp + fp + fn),
    }


def picked_keywords(reply: str) -> list[str] | None:
    """The keywords of a stage-one or joint reply; None for a joint reply that does not parse."""
    if not is_joint(reply):
        return parse_prune_reply(reply)
    parsed = parse_joint_reply(reply)
    return parsed.keywords if parsed else None


@dataclass
class Loaded:
    """What was read: the selections of each system, and what did not fit."""

    selections: dict[str, list[Selection]]
    unparsed: dict[str, list[str]]
    problems: Problems


def load_selections(files: dict[str, Path], ref: Path | None, rules: KeywordRules) -> Loaded:
    """Read the rows of every system; all must hold the utterances of the first, and ``ref`` (Kaldi style) too."""
    problems = Problems()
    tables = {name: read_results(path, problems, "plain") for name, path in files.items()}
    refs = read_kaldi(ref, problems) if ref else None
    first = next(iter(tables.values()))
    loaded = Loaded({}, {}, problems)
    for name, rows in tables.items():
        matches = match_ids(first, rows)
        problems.add(f"missing reply ({name})", (key for key in first if key not in matches))
        used = set(matches.values())
        problems.add(f"extra reply ({name})", (key for key in rows if key not in used))
        kept = {key: rows[match] for key, match in matches.items()}
        loaded.unparsed[name] = []
        loaded.selections[name] = _select(name, kept, refs, rules, loaded)
    if refs is not None:
        used = set(match_ids(first, refs).values())
        problems.add(f"reference in {ref} without a reply", (key for key in refs if key not in used))
    return loaded


def _select(
    name: str, rows: dict[str, ResultRow], refs: dict[str, str] | None, rules: KeywordRules, loaded: Loaded
) -> list[Selection]:
    selections, incomplete = [], []
    matches = match_ids(rows, refs or {})
    for key, row in progress(rows.items(), name):
        text = refs[matches[key]] if key in matches else None
        # with --ref, every row needs its transcript; without, its label
        if row.hyp is None or (row.ref if refs is None else text) is None:
            incomplete.append(key)
            continue
        if picked_keywords(row.hyp) is None:
            loaded.unparsed[name].append(key)
        selections.append(_selection(row, text, rules))
    loaded.problems.add(f"no response, label or reference ({name})", incomplete)
    return selections


def _selection(row: ResultRow, text: str | None, rules: KeywordRules) -> Selection:
    """The label is what the model was asked for; without one, what is spoken is found as build_prune finds it.

    ``sap2 pipeline --stages prune`` on rows of stage two keeps their transcripts as labels, and those of stage one
    beside them.
    """
    label = row.ref if row.prune_ref is None else row.prune_ref
    if label is not None:
        spoken = picked_keywords(label) or []
    else:
        spoken = spoken_keywords(row.keywords, text or "", rules.normalize, rules.char)
    return Selection(
        rules.all_of(row.keywords),
        rules.all_of(spoken),
        rules.all_of(picked_keywords(row.hyp) or []),
        None if text is None else list(rules.words(text)),
        None if row.ranked is None else list(dict.fromkeys(map(rules.words, row.ranked))),
    )


def summary(systems: dict[str, dict[str, Any]], with_ref: bool) -> list[str]:
    """The summary as lines of text."""
    scores = [["system", "", "precision %", "recall %", "F1 %", "tp", "fp", "fn"]]
    sizes = [["system", "utterances", "listed", "kept", "compression", "invented", "recall ceiling %"]]
    for name, result in systems.items():
        for kind in ("micro", "macro"):
            found = result[kind]
            counts = [str(found.get(key, "")) for key in ("tp", "fp", "fn")]
            scores.append([name, kind, *(show(found[key]) for key in ("precision", "recall", "f1")), *counts])
        numbers = [str(result[key]) for key in ("utterances", "listed", "kept")]
        compression = show(result["compression"], 1)
        sizes.append([name, *numbers, compression, str(result["invented"]), show(result["ceiling"])])
    ranked = [
        [name, *map(show, result["recall_at"].values())] for name, result in systems.items() if result["recall_at"]
    ]
    ranks = ["", *table([["system", *(f"recall at {k} %" for k in RANKS)], *ranked], 1)] if ranked else []
    basis = "list words of the transcripts, by occurrence" if with_ref else "distinct words of the spoken keywords"
    return [*table(scores, 2), "", *table(sizes, 1), *ranks, "", f"recall ceiling for stage two: over the {basis}"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 score-keywords``."""
    parser.description = __doc__
    files = parser.add_argument_group("input")
    add_result_files(files, "stage-one or joint result.jsonl of swift infer; several systems with names")
    files.add_argument("--ref", type=Path, metavar="FILE", help="transcripts in Kaldi style: exact recall ceiling")
    add_comparison_rules(parser.add_argument_group("rules"))
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="OUT", help="write all figures")


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], Problems]:
    """The report as it is written to ``--json``, and what was left out.

    Raises:
        InputError: a file cannot be understood, or ids do not fit together and ``lenient`` is not set.
    """
    loaded = load_selections(result_files(args), args.ref, KeywordRules(args.normalize, args.char))
    if loaded.problems and not args.lenient:
        raise InputError(loaded.problems.refusal())
    systems = {name: score_selections(found) for name, found in loaded.selections.items()}
    if not any(result["utterances"] for result in systems.values()):
        raise InputError("nothing to score: the input has no utterance")
    report = {"systems": systems, "normalize": args.normalize, "char": args.char, "unparsed": loaded.unparsed}
    return report | {"problems": loaded.problems.ids}, loaded.problems


def run(args: argparse.Namespace) -> int:
    """Score and print the summary; 3 where something was left out."""
    if args.json:
        check_writable(args.json)
    report, problems = evaluate(args)
    print_report("\n".join(summary(report["systems"], args.ref is not None)), args.json)
    for name, ids in report["unparsed"].items():
        if ids:
            said = Problems({f"joint reply that does not parse ({name}), counted as no keyword": ids}).lines()[0]
            print_report(said, args.json)
    if problems:
        print_report("\n  ".join(["\nnot everything was scored as given:", *problems.lines()]), args.json)
    if args.json:
        with atomic_write(args.json) as stream:
            json.dump(report, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
    return NOT_ALL_SCORED if problems else 0
