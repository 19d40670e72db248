"""The result file of a long run: rows are appended as they come, a killed run goes on where it was.

A run writes to ``result.jsonl``, or each rank to ``result.rank0.jsonl``, …; rows are whole lines, keyed by id. What is
there when a run starts (also of runs with other numbers of ranks) is gathered into ``result.jsonl`` first, a line that
a kill cut off is dropped, and at the end the rows are put in the order of the test set.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sap2.errors import InputError
from sap2.files import atomic_write, naming_errors
from sap2.rows import Row


class ResultFiles:
    """The files of one run.

    Args:
        path: of the results, ending with .jsonl.
        rank, world: of this process, and how many there are.

    Raises:
        InputError: the name does not end with .jsonl.
    """

    def __init__(self, path: str | os.PathLike[str], rank: int = 0, world: int = 1):
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise InputError(f"--result_path {path}: allowed: a name that ends with .jsonl")
        self.rank, self.world = rank, world
        self.errors = self._beside("errors")
        self.prune = self._beside("prune")
        self.settings = self.path.with_suffix(".settings.json")
        self._own = self.path if world == 1 else self._beside(f"rank{rank}")
        self._own_errors = self.errors if world == 1 else self._beside(f"rank{rank}.errors")
        self._streams: dict[Path, IO[bytes]] = {}
        self._lock: IO[str] | None = None

    def _beside(self, name: str) -> Path:
        return self.path.with_suffix(f".{name}.jsonl")

    def start(
        self,
        settings: Mapping[str, Any],
        overwrite: bool,
        find_stale: Callable[[Mapping[str, Row]], Collection[str]] = lambda results: (),
    ) -> int:
        """Begin or go on (rank 0 only): take the lock, compare the settings, gather what is there.

        Args:
            find_stale: ids of the results that are to be dropped and made again.

        Returns:
            How many were dropped.

        Raises:
            InputError: another run is writing, the rows there were made with other settings, or are not rows.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if overwrite:
            for path in [self.path, self.errors, self.prune, *self._rank_files()]:
                path.unlink(missing_ok=True)
        self._check_settings(settings, overwrite)
        for path in [*self.path.parent.glob(f".{self.path.name}.*"), *self._rank_files("errors.jsonl")]:
            path.unlink(missing_ok=True)  # half-written by a killed run, or errors of rows that are tried again
        self.errors.unlink(missing_ok=True)
        rows = self._gather()
        stale = find_stale({id: json.loads(line) for id, line in rows.items()})
        if self._rank_files() or stale:
            self._replace(line for id, line in rows.items() if id not in stale)
        return len(stale)

    def _take_lock(self) -> None:
        self._lock = self.settings.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run is writing {self.path}; allowed: one at a time") from None

    def _check_settings(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._lock.seek(0)
        content = self._lock.read()
        if not overwrite and self._has_results():
            try:
                before = json.loads(content)
            except ValueError:
                raise InputError(f"{self.path} was not written by sap2 pipeline; --overwrite replaces it") from None
            # weights that an earlier version did not record are taken for the same
            old = {name: settings[name] for name in settings if name.endswith("_weights")}
            # and there was one engine
            old = {**old, **({"engine": "transformers"} if "engine" in settings else {}), **before}
            names = sorted(name for name in {*old, *settings} if old.get(name) != settings.get(name))
            if names:
                said = ", ".join(f"{name} {old.get(name)!r} (now {settings.get(name)!r})" for name in names)
                raise InputError(f"{self.path} was written with other settings: {said}; --overwrite starts afresh")
        self.record(settings)

    def record(self, settings: Mapping[str, Any]) -> None:
        """Write what the results are made with (rank 0 only)."""
        assert self._lock is not None
        self._lock.truncate(0)
        self._lock.write(json.dumps(settings, indent=2) + "\n")
        self._lock.flush()

    def _has_results(self) -> bool:
        files = [self.path, *self._rank_files()]
        return any(path.exists() and path.stat().st_size for path in files)

    def done(self, known: Iterable[str]) -> set[str]:
        """Ids that have a result.

        Raises:
            InputError: one of them is not among the ``known`` ids of the test set.
        """
        ids = set(_read_lines(self.path))
        self.check_known(ids, known)
        return ids

    def check_known(self, ids: Iterable[str], known: Iterable[str]) -> None:
        """Refuse results of ids that the test set lacks.

        Raises:
            InputError: there are some.
        """
        strange = sorted(set(ids) - set(known))
        if strange:
            raise InputError(
                f"{self.path} has {len(strange)} ids that the test set lacks ({', '.join(strange[:3])}); "
                f"allowed: the test set that it was begun with, or --overwrite"
            )

    def append(self, rows: Sequence[Row]) -> None:
        """Add results of this rank, in one write."""
        self._append(self._own, rows)

    def append_errors(self, rows: Sequence[Row]) -> None:
        """Add errors of this rank."""
        self._append(self._own_errors, rows)

    def _append(self, path: Path, rows: Sequence[Row]) -> None:
        if rows:
            if path not in self._streams:
                self._streams[path] = path.open("ab")
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            with naming_errors(path):
                self._streams[path].write(text.encode("utf-8", "replace"))
                self._streams[path].flush()

    def finish(self, order: Sequence[str]) -> dict[str, Row]:
        """Put everything in the test set's order (rank 0 only, when all ranks are done); the results by id."""
        rows = self._gather()
        lines = {id: rows[id] for id in order if id in rows}
        if self._rank_files() or list(lines) != list(rows) or not self.path.exists():
            self._replace(lines.values())
        results = {id: json.loads(line) for id, line in lines.items()}
        picks = [_stage_one_row(row) for row in results.values() if set(row["replies"]) > {"prune"}]
        if picks:
            _write(self.prune, picks)
        self._gather_errors()
        return results

    def _gather_errors(self) -> None:
        rows = [row for path in self._rank_files("errors.jsonl") for row in map(json.loads, _lines(path))]
        if rows:
            rows += map(json.loads, _lines(self.errors)) if self.errors.exists() else []
            _write(self.errors, sorted(rows, key=lambda row: row["row"]))
            for path in self._rank_files("errors.jsonl"):
                path.unlink()

    def close(self) -> None:
        """Close the files and give the lock back; a run that ended before it wrote anything leaves nothing."""
        if self._lock and not self.path.exists() and not self._has_results():
            self.settings.unlink(missing_ok=True)
        for stream in self._streams.values():
            stream.close()
        if self._lock:
            self._lock.close()

    def _rank_files(self, suffix: str = "jsonl") -> list[Path]:
        pattern = re.compile(rf"{re.escape(self.path.stem)}\.rank\d+\.{re.escape(suffix)}")
        return sorted(path for path in self.path.parent.iterdir() if pattern.fullmatch(path.name))

    def _gather(self) -> dict[str, bytes]:
        """Lines by id of all files of results; the first one stands where a kill left two."""
        rows: dict[str, bytes] = {}
        for path in [self.path, *self._rank_files()]:
            for id, line in _read_lines(path, repair=True).items():
                rows.setdefault(id, line)
        return rows

    def _replace(self, lines: Iterable[bytes]) -> None:
        with atomic_write(self.path, "wb") as stream:
            stream.writelines(lines)
        for path in self._rank_files():
            path.unlink()


def read_results(path: Path) -> dict[str, Row]:
    """The whole lines of a result file, by id; a line that is being written is left out.

    Raises:
        InputError: a whole line is not a result.
    """
    return {id: json.loads(line) for id, line in _read_lines(path).items()}


def read_settings_file(path: Path) -> dict[str, Any]:
    """What the results of a file were made with.

    Raises:
        InputError: it was not written by this pipeline.
    """
    file = path.with_suffix(".settings.json")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        raise InputError(f"{path} was not written by sap2 pipeline: {file} is missing or no JSON") from None


def _read_lines(path: Path, repair: bool = False) -> dict[str, bytes]:
    """Whole lines by id; with ``repair``, what follows the last line end is cut off from the file.

    Raises:
        InputError: a whole line is not a result.
    """
    rows: dict[str, bytes] = {}
    if not path.exists():
        return rows
    size = 0
    for number, line in enumerate(_lines(path), 1):
        size += len(line)
        try:
            rows.setdefault(json.loads(line)["id"], line)
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}:{number}: not a result of this pipeline; --overwrite starts afresh") from None
    if repair and size < path.stat().st_size:
        os.truncate(path, size)
    return rows


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        return [line for line in stream if line.endswith(b"\n")]


def _write(path: Path, rows: Iterable[Row]) -> None:
    with atomic_write(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _stage_one_row(row: Row) -> Row:
    """The result as ``swift infer`` would have written it for stage one."""
    prompt = [message for message in row["messages"] if message["role"] != "assistant"]
    reply = row["replies"]["prune"]
    return {
        "id": row["id"],
        "response": reply,
        "labels": row["prune_labels"],
        "messages": [*prompt, {"role": "assistant", "content": reply}],
        "audios": row["audios"],
        # a result of an earlier version has no probabilities
        **{name: row[name] for name in ("picked_keywords", "keyword_probabilities") if name in row},
    }
