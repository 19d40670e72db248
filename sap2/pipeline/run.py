"""A test set through the stages: planned, resumed, shared among ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sap2.errors import EngineError, InputError, print_note
from sap2.pipeline.engines.base import Engine
from sap2.pipeline.engines.choice import likely_engine
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.fingerprints import is_made_from, weights_fingerprint
from sap2.pipeline.items import BadRow, Item, read_items
from sap2.pipeline.loading import read_settings, settled_dtype
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.ranks import Rank, join_ranks
from sap2.pipeline.ray_run import check_ray, decode_with_ray
from sap2.pipeline.report import PipelineReport
from sap2.pipeline.results import ResultFiles, read_results, read_settings_file
from sap2.pipeline.shards import Shard, read_shards, write_merged
from sap2.pipeline.stages import StagePlan, plan_stages
from sap2.pipeline.worker import Worker
from sap2.prompts import PRUNE
from sap2.rows import Row

_PRUNING = tuple(field.name for field in dataclasses.fields(PruneOptions))


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """Options of :func:`run_pipeline`.

    Attributes:
        val_dataset: rows of ms-swift or utterances; .jsonl, .json or .parquet.
        result_path: .jsonl.
        model: folder or hub name of the base model.
        prune_adapter, asr_adapter: LoRA checkpoints; without an ASR adapter the model alone transcribes.
        stages: of :data:`sap2.pipeline.stages.STAGES`; None: ``prune,asr`` with a prune adapter, else ``asr``.
        batch_size: utterances decoded together at most.
        max_batch_tokens: limit of a batch's size times its longest prompt.
        max_new_tokens: longest reply of a stage.
        torch_dtype, attn_impl, device: see :class:`sap2.pipeline.loading.LoadedModel`.
        pruner, prune_top, prune_threshold, term_bank: see :class:`sap2.pipeline.pruners.PruneOptions`.
        truncate_audio: hear the beginning of too long an audio instead of refusing it.
        case: of the keywords as the model is told them, one of :data:`sap2.spelling.CASES`; None: that of its training.
        guard_leaks: decode replies that look like the list again without it (:mod:`sap2.pipeline.leaks`).
        correct_keywords: put right what stage two wrote where the spotter is sure of a keyword
            (:mod:`sap2.pipeline.correcting`).
        words: results have the words with their times in the audio, and how sure they are.
        num_workers: threads that read audio ahead.
        overwrite: start afresh instead of going on with what ``result_path`` holds.
        engine: what generates, of :data:`sap2.pipeline.engines.choice.ENGINES`.
        engine_args: arguments of vLLM.
        ray: address of the Ray cluster that decodes, ``local`` for one of this machine; None: this process does.
        ray_actors: workers of the cluster; None: one for each GPU.
        shard: the part of the test set that is decoded (:mod:`sap2.pipeline.shards`); None: all of it.
    """

    val_dataset: str
    result_path: str
    model: str
    prune_adapter: str | None = None
    asr_adapter: str | None = None
    stages: str | None = None
    batch_size: int = 16
    max_batch_tokens: int | None = None
    max_new_tokens: int = 512
    torch_dtype: str | None = None
    attn_impl: str | None = None
    device: str | None = None
    pruner: str | None = None
    prune_top: int = PruneOptions.prune_top
    prune_threshold: float = PruneOptions.prune_threshold
    term_bank: str | None = None
    truncate_audio: bool = False
    case: str | None = None
    guard_leaks: bool = True
    correct_keywords: bool = True
    words: bool = False
    num_workers: int = 4
    overwrite: bool = False
    engine: str = "transformers"
    engine_args: dict[str, Any] | None = None
    shard: Shard | None = None
    ray: str | None = None
    ray_actors: int | None = None

    def plan(self) -> StagePlan:
        """The stages and their adapters.

        Raises:
            InputError: they do not fit.
        """
        plan = plan_stages(self.stages, self.prune_adapter, self.asr_adapter, self.prune_options().names())
        if self.words and plan.stages == (PRUNE,):
            raise InputError("--words needs a transcript; allowed: the stages asr, prune,asr, joint")
        return plan

    def prune_options(self) -> PruneOptions:
        """How stage one is done."""
        return PruneOptions(self.pruner, self.prune_top, self.prune_threshold, self.term_bank)

    def result_settings(self) -> dict[str, Any]:
        """What results of one file must have in common.

        In float32 every engine replies the same; in other number types their last bits differ, and so may a reply.
        """
        names = ("model", "prune_adapter", "asr_adapter", "max_new_tokens", "torch_dtype", "truncate_audio", "case")
        return {
            "stages": ",".join(self.plan().stages),
            **{name: getattr(self, name) for name in names},
            **({name: getattr(self, name) for name in _PRUNING} if self.prune_options().names() else {}),
            **{f"{name}_weights": weights_fingerprint(getattr(self, name)) for name in names[:3]},
            **({} if self.guard_leaks else {"guard_leaks": False}),
            **({"correct_keywords": True} if self._corrects() else {}),
            **({"words": True} if self.words else {}),
            **({} if self._is_exact() else {"engine": likely_engine(self.engine)}),
        }

    def _corrects(self) -> bool:
        return self.correct_keywords and self.prune_options().corrects(self.plan().stages)

    def _is_exact(self) -> bool:
        import torch

        return settled_dtype(self.model, self.plan().adapters, self.torch_dtype) == torch.float32


def run_pipeline(options: PipelineOptions) -> PipelineReport:
    """Decode a test set; see :class:`ResultFiles` for what it leaves and how it goes on.

    Every rank returns the report of all.

    Raises:
        InputError: options, adapters or an earlier result that do not fit. A bad row is reported instead.
    """
    plan = options.plan()
    if not Path(options.val_dataset).is_file():
        raise InputError(
            f"--val_dataset {options.val_dataset}: no such file; allowed: rows or utterances, .jsonl, .json or .parquet"
        )
    read_settings(options.model, plan.adapters)
    if options.ray is not None:
        check_ray(options)
    elif options.ray_actors is not None:
        raise InputError("--ray-actors says how many workers Ray starts; allowed: with --ray")
    found = list(read_items(options.val_dataset, plan.stages[0]))
    if not found:
        raise InputError(f"{options.val_dataset} has no rows")
    if options.shard is not None:
        found = options.shard.take(found)
        options = dataclasses.replace(options, result_path=options.shard.path(options.result_path))
    options = _go_on_with_engine(options)
    with join_ranks() as rank:
        files = ResultFiles(options.result_path, rank.index, rank.world)
        try:
            changed = 0
            if rank.is_first:  # what could be wrong with the input was looked at before anything is overwritten
                changed = _start(options, found, files)
            changed = rank.gather(changed)[0]
            return _run(options, found, files, rank, changed)
        finally:
            files.close()


def _start(options: PipelineOptions, found: Sequence[Item | BadRow], files: ResultFiles) -> int:
    """Begin or go on; how many results are of rows that have changed since, and are made again."""
    items = {item.id: item for item in found if isinstance(item, Item)}

    def find_stale(results: Mapping[str, Row]) -> list[str]:
        files.check_known(results, items)
        return [id for id, result in results.items() if not is_made_from(result, items[id])]

    return files.start(options.result_settings(), options.overwrite, find_stale)


def _run(
    options: PipelineOptions, found: Sequence[Item | BadRow], files: ResultFiles, rank: Rank, changed: int
) -> PipelineReport:
    items = [item for item in found if isinstance(item, Item)]
    bad = [row for row in found if isinstance(row, BadRow)]
    done = files.done(item.id for item in items)
    rank.gather(None)  # all have read what is done before the first adds to it
    worker = Worker(
        files, PipelineReport(rows=len(found), resumed=len(done), changed=changed, errors=str(files.errors))
    )
    if rank.is_first:
        worker.fail(bad)
    left = [item for item in items if item.id not in done]
    if left and options.ray is not None:
        with _saying_what_is_left(worker, rank):
            decode_with_ray(options, left, worker)
    elif left:
        worker.load(options, rank)
        if options.engine == "auto" and rank.is_first:
            _settle_engine(options, worker.decoder.engine, files, begun=bool(done))
        batches = worker.plan(items, options, report_errors=rank.is_first)
        share = [[item for item in batch if item.id not in done] for batch in batches[rank.index :: rank.world]]
        try:
            with _saying_what_is_left(worker, rank):
                worker.decode([batch for batch in share if batch], options.num_workers, show=rank.is_first)
        finally:
            worker.decoder.engine.close()
    return _finish(worker.report, [item.id for item in items], files, rank)


@contextlib.contextmanager
def _saying_what_is_left(worker: Worker, rank: Rank) -> Iterator[None]:
    """Where the block ends before its time (the engine has died; Ctrl-C or SIGTERM), say in one line what is done."""
    try:
        yield
    except EngineError as error:
        raise worker.died(error) from None
    except (KeyboardInterrupt, SystemExit):
        if rank.is_first:
            print_note(f"interrupted; {worker.left()}")
        raise


def _go_on_with_engine(options: PipelineOptions) -> PipelineOptions:
    """``auto`` stays with transformers where that began the results, and vLLM may reply otherwise."""
    path = Path(options.result_path)
    if options.engine != "auto" or options.overwrite or not path.exists():
        return options
    begun = read_settings_file(path).get("engine", "transformers")
    if begun != "transformers" or options.result_settings().get("engine", begun) == begun:
        return options
    print(
        f"sap2: transformers generates, which {path} was begun with; --engine vllm --overwrite starts afresh",
        file=sys.stderr,
    )
    return dataclasses.replace(options, engine=begun, engine_args=None)


def _settle_engine(options: PipelineOptions, engine: Engine, files: ResultFiles, begun: bool) -> None:
    """Record the engine that ``auto`` took in the end, where it is another than was to be expected.

    Raises:
        InputError: there are results of the one that did not start, and the engines' replies may differ.
    """
    settings = options.result_settings()
    if "engine" not in settings or settings["engine"] == "transformers" or not isinstance(engine, TransformersEngine):
        return
    if begun:
        raise InputError(
            f"{files.path} was begun with vLLM, which does not start now, and in this number type transformers may "
            f"reply otherwise; --engine transformers --overwrite starts afresh"
        )
    files.record({**settings, "engine": "transformers"})


def merge_shards(val_dataset: str, result_path: str) -> PipelineReport:
    """Put the results of all parts together, as the files of one run.

    Raises:
        InputError: no part is there, they do not fit each other or the test set.
    """
    merged = read_shards(val_dataset, result_path)
    files = write_merged(result_path, merged)
    results = read_results(files.path)
    rows = len(results) + sum(row["id"] not in results for row in merged.errors)
    report = PipelineReport(rows=rows, failed=rows - len(results), changed=merged.stale, errors=str(files.errors))
    report.audio_seconds = sum(row["audio_seconds"] for row in results.values())
    report.seconds = sum(sum(row["seconds"].values()) for row in results.values())
    report.count(results.values())
    return report


def _finish(report: PipelineReport, order: Sequence[str], files: ResultFiles, rank: Rank) -> PipelineReport:
    reports = rank.gather(report)
    report.failed = sum(other.failed for other in reports)
    report.audio_seconds = sum(other.audio_seconds for other in reports)
    report.seconds = max(other.seconds for other in reports)
    if rank.is_first:
        report.count(files.finish(order).values())
    return rank.gather(report)[0]
