"""From the files of the command line to one test set: joins by id, and the report of everything that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sap2.scoring.inputs import (
    Problems,
    ResultRow,
    TestSet,
    Utterance,
    match_ids,
    read_biasing_list,
    read_hyps,
    read_kaldi,
    read_keyword_file,
    read_results,
    read_tsv_hyps,
)
from sap2.scoring.transcripts import load_transcripts

DEFAULT_NAME = "hyp"


@dataclass
class Sources:
    """The input files: ``input_files`` and ``hyps`` map the name of a system to its file; ``transcripts`` are of whole
    talks, and belong to ``references`` (:func:`sap2.scoring.transcripts.load_transcripts`)."""

    input_files: dict[str, Path] | None = None
    ref: Path | None = None
    biasing_tsv: Path | None = None
    hyps: dict[str, Path] | None = None
    keywords: Path | None = None
    utt2session: Path | None = None
    reply: str = "auto"
    transcripts: list[Path] = field(default_factory=list)
    references: list[Path] = field(default_factory=list)


def load_test_set(sources: Sources) -> TestSet:
    """Read and join all files. What does not fit is in ``problems``; only utterances that every system has are kept.

    Raises:
        InputError: a file cannot be understood; the message names it and the line.
    """
    if sources.transcripts:
        return load_transcripts(
            sources.transcripts, sources.references, str(sources.keywords) if sources.keywords else None
        )
    test_set = _from_results(sources.input_files, sources.reply) if sources.input_files else _from_texts(sources)
    if sources.keywords:
        test_set.notes.clear()  # so far about the lists of the rows, which give way
        _set_keywords(test_set, sources.keywords)
    if sources.utt2session:
        _set_sessions(test_set, sources.utt2session)
    _keep_complete(test_set)
    return test_set


def _from_texts(sources: Sources) -> TestSet:
    """References in Kaldi style or as a biasing list, and hypotheses in the same style or as rows."""
    problems = Problems()
    read_text: Callable[..., dict[str, str]]
    if sources.biasing_tsv:
        utterances, read_text = read_biasing_list(sources.biasing_tsv, problems), read_tsv_hyps
    else:
        refs, read_text = read_kaldi(sources.ref, problems), read_kaldi
        utterances = [Utterance(key, text) for key, text in refs.items()]
    test_set = TestSet(utterances, {}, problems)
    for name, path in sources.hyps.items():
        found, unparsed = read_hyps(path, problems, read_text, sources.reply)
        _add_system(test_set, name, found, unparsed)
    return test_set


def _from_results(files: dict[str, Path], reply: str) -> TestSet:
    """Result rows of one or more systems; the first gives the references, and all must agree with it."""
    problems = Problems()
    tables = {name: read_results(path, problems, reply) for name, path in files.items()}
    first_name, first = next(iter(tables.items()))
    problems.add(f"no labels ({first_name})", (key for key, row in first.items() if row.ref is None))
    utterances = [
        Utterance(row.id, row.ref, row.keywords, session=row.session, audio=row.audio)
        for row in first.values()
        if row.ref is not None
    ]
    test_set = TestSet(utterances, {}, problems)
    for name, rows in tables.items():
        hyps = {key: row.hyp for key, row in rows.items() if row.hyp is not None}
        unlabelled = {key for key, row in rows.items() if row.ref is None}
        # an extra row without labels was reported as such
        pool = hyps if name != first_name else {key: hyp for key, hyp in hyps.items() if key not in unlabelled}
        _add_system(test_set, name, pool, [key for key, row in rows.items() if not row.parsed])
        if name != first_name:
            _join_rows(test_set, name, rows)
        matched = {key: rows[row] for key, row in match_ids((utterance.id for utterance in utterances), rows).items()}
        test_set.picks[name] = {key: row.picked for key, row in matched.items() if row.picked is not None}
        test_set.sure[name] = {key: row.sure for key, row in matched.items() if row.sure is not None}
    return test_set


def _join_rows(test_set: TestSet, name: str, rows: dict[str, ResultRow]) -> None:
    """The references of a further system must be the same; its keywords join those of the others."""
    matches = match_ids((utterance.id for utterance in test_set.utterances), rows)
    different, widened = [], 0
    for utterance in test_set.utterances:
        row = rows.get(matches.get(utterance.id, ""))
        if row is None:
            continue
        if row.ref is not None and row.ref.split() != utterance.ref.split():
            different.append(utterance.id)
        if row.keywords != utterance.keywords:
            widened += 1
            utterance.keywords = list(dict.fromkeys([*utterance.keywords, *row.keywords]))
        utterance.session = utterance.session or row.session
        utterance.audio = utterance.audio or row.audio
    test_set.problems.add(f"reference of {name} differs from the first system's", different)
    if widened:
        test_set.notes.append(
            f"{widened} utterances have another keyword list in {name}: all systems are scored on the lists of all "
            "together (--keywords FILE sets them)"
        )


def _add_system(test_set: TestSet, name: str, found: dict[str, str], unparsed: Iterable[str]) -> None:
    ids = [utterance.id for utterance in test_set.utterances]
    matches = match_ids(ids, found)
    test_set.problems.add(f"missing hypothesis ({name})", (key for key in ids if key not in matches))
    used = set(matches.values())
    test_set.problems.add(f"extra hypothesis ({name})", (key for key in found if key not in used))
    test_set.hyps[name] = {key: found[matches[key]] for key in matches}
    unparsed = set(unparsed)
    test_set.unparsed[name] = [key for key in matches if matches[key] in unparsed]


def _set_keywords(test_set: TestSet, path: Path) -> None:
    lists = read_keyword_file(path, test_set.problems)
    matches = match_ids((utterance.id for utterance in test_set.utterances), lists)
    test_set.problems.add(
        f"no keyword list in {path}",
        (utterance.id for utterance in test_set.utterances if utterance.id not in matches),
    )
    for utterance in test_set.utterances:
        utterance.keywords = lists[matches[utterance.id]] if utterance.id in matches else []
        utterance.rare = None


def _set_sessions(test_set: TestSet, path: Path) -> None:
    sessions = read_kaldi(path, test_set.problems)
    matches = match_ids((utterance.id for utterance in test_set.utterances), sessions)
    missing = []
    for utterance in test_set.utterances:
        session = sessions[matches[utterance.id]].strip() if utterance.id in matches else ""
        utterance.session = session or None
        if not session:
            missing.append(utterance.id)
    test_set.problems.add(f"no session in {path}", missing)


def _keep_complete(test_set: TestSet) -> None:
    """Leave out utterances that a system lacks, for all systems: they are compared on the same words."""
    test_set.utterances = [
        utterance for utterance in test_set.utterances if all(utterance.id in hyps for hyps in test_set.hyps.values())
    ]
