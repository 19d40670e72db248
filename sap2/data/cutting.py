"""Cutting recordings into 16 kHz mono flac, in several processes, only what is missing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sap2.audio import audio_file, load_piece
from sap2.audio_urls import kept_audio
from sap2.errors import InputError
from sap2.files import atomic_write
from sap2.lengths import SAMPLING_RATE
from sap2.progress import Progress
from sap2.rows import is_url

if TYPE_CHECKING:
    import numpy as np

_BATCH = 32  # cuts of one task: enough to open a recording once, few enough for an even load


@dataclasses.dataclass(frozen=True)
class Cut:
    """One piece of a recording, ``start`` to ``end`` seconds, and the flac file that it becomes."""

    source: str
    start: float
    end: float
    target: str


@dataclasses.dataclass
class CutReport:
    """Files ``made``, files ``kept`` from an earlier run, and what went wrong by target."""

    made: int = 0
    kept: int = 0
    failures: dict[str, str] = dataclasses.field(default_factory=dict)


def cut_all(cuts: Iterable[Cut], workers: int = 1) -> CutReport:
    """Make the missing targets; a target that is there and was cut from the same place of the same recording stays.

    A recording is the same where its name, its size and its time of change are. A target of an earlier version, which
    knows the name alone, stays where it is not older than the recording. Where the recording is gone, its name is
    enough.

    Args:
        cuts: what to make. Targets must differ.
        workers: processes. One works in this process.
    """
    tasks = list(_tasks(cuts))
    report = CutReport()
    with Progress("cutting audio", sum(map(len, tasks)), "piece") as shown:
        for results in _run(tasks, workers):
            for target, made, problem in results:
                report.made += made and not problem
                report.kept += not made and not problem
                if problem:
                    report.failures[target] = problem
            shown.update(len(results))
    return report


def _tasks(cuts: Iterable[Cut]) -> Iterator[list[Cut]]:
    by_source: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_source.setdefault(cut.source, []).append(cut)
    for group in by_source.values():
        yield from (group[i : i + _BATCH] for i in range(0, len(group), _BATCH))


Result = tuple[str, bool, str]
"""Target, whether it was made now, and what went wrong (empty if nothing)."""


def _run(tasks: list[list[Cut]], workers: int) -> Iterator[list[Result]]:
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_cut_batch, tasks)
        return
    # spawn: the same on every platform, and no locks of threads inherited
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(tasks))
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        with _without_interrupts():
            futures = [pool.submit(_cut_batch, task) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start in the block never see Ctrl-C: the command ends them itself, without their tracebacks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Have this worker end when the command is killed; it would wait for tasks forever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cut_batch(cuts: list[Cut]) -> list[Result]:
    return [_cut(cut) for cut in cuts]


def _cut(cut: Cut) -> Result:
    try:
        if _is_made_from(cut):
            return cut.target, False, ""
        samples = load_piece(kept_audio(cut.source), SAMPLING_RATE, cut.start, cut.end, cut.source)
        if not len(samples):
            raise InputError(f"{cut.source}: no samples from {cut.start} to {cut.end} s")
        _write_flac(cut.target, samples, " ".join([_place(cut), *_state(cut)]))
    except (InputError, OSError) as error:
        return cut.target, False, str(error)
    return cut.target, True, ""


def _place(cut: Cut) -> str:
    return f"{Path(cut.source).name} {cut.start} {cut.end}"


def _state(cut: Cut) -> list[str]:
    """Size and time of change of the recording; they are kept in the target, so that what has changed is cut anew.

    Nobody asks for those of an address: each would be a request.
    """
    if is_url(cut.source):
        return []
    status = audio_file(cut.source).stat()
    return [str(status.st_size), str(status.st_mtime_ns)]


def _is_made_from(cut: Cut) -> bool:
    """Whether the target is there and was cut from this place of the recording as it is now."""
    note, place = _note(cut.target), _place(cut)
    if note is None or not (note == place or note.startswith(f"{place} ")):
        return False
    recording = audio_file(cut.source)
    if not recording.is_file():
        return True
    if note == place:
        return Path(cut.target).stat().st_mtime_ns >= recording.stat().st_mtime_ns
    return note == " ".join([place, *_state(cut)])


def _note(path: str) -> str | None:
    import soundfile as sf

    if not Path(path).is_file():
        return None
    try:
        with sf.SoundFile(path) as file:
            return file.comment
    except sf.LibsndfileError:
        return None


def _write_flac(path: str, samples: np.ndarray, note: str) -> None:
    import soundfile as sf

    content = io.BytesIO()  # where libsndfile writes itself, a full disk shows as a wrong count only
    with sf.SoundFile(content, "w", SAMPLING_RATE, 1, subtype="PCM_16", format="FLAC") as file:
        file.comment = note
        file.write(samples)
    with atomic_write(path, "wb") as stream:
        stream.write(content.getbuffer())
