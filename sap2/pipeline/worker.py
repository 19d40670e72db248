"""The share of one process in a run over a test set: it loads the model, plans batches, decodes and writes rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from sap2.audio_urls import about_seconds, load_audio
from sap2.errors import EngineError, InputError
from sap2.pipeline.batching import plan_batches, read_ahead
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.choice import open_engine
from sap2.pipeline.fingerprints import row_fingerprint
from sap2.pipeline.items import BadRow, Item
from sap2.pipeline.ranks import Rank
from sap2.pipeline.report import PipelineReport
from sap2.pipeline.stages import ASR, stage_content
from sap2.pipeline.utterances import Job, Outcome
from sap2.progress import Progress
from sap2.rows import Row

if TYPE_CHECKING:
    from sap2.pipeline.run import PipelineOptions

_LOOKED_AT = 256
"""Rows whose lengths are asked for together."""


class Output(Protocol):
    """Where results and errors go: the result files of this process, or what is sent back to it."""

    def append(self, rows: Sequence[Row]) -> None:
        """Results."""

    def append_errors(self, rows: Sequence[Row]) -> None:
        """Errors of rows."""


class Worker:
    """The share of one rank."""

    def __init__(self, files: Output, report: PipelineReport):
        self.files = files
        self.report = report
        self.written = 0
        self._word_spelling: str | None = None

    def load(self, options: PipelineOptions, rank: Rank) -> None:
        """Load the model; each rank takes the GPU of its number on the machine."""
        device = options.device
        if device is None and rank.world > 1:
            device = _device_of(rank)
        plan = options.plan()
        given = (options.model, plan.adapters, device, options.torch_dtype, options.attn_impl)
        loaded, engine = open_engine(options.engine, *given, options.engine_args)
        self.decoder = Decoder(
            loaded,
            plan.stages,
            options.max_new_tokens,
            options.truncate_audio,
            engine=engine,
            case=options.case,
            prune=options.prune_options(),
            guard_leaks=options.guard_leaks,
            correct_keywords=options.correct_keywords,
        )
        if options.words:
            self.decoder.check_word_times("--words")
            self._word_spelling = "model"
        if self.decoder.bank is not None and rank.is_first:
            print(f"{options.term_bank}: {self.decoder.bank}", file=sys.stderr)

    def plan(
        self, items: Sequence[Item], options: PipelineOptions, report_errors: bool, show: bool = True
    ) -> list[list[Item]]:
        """Batches of the whole test set, the same in every rank, whatever is done already."""
        readable, lengths, bad = [], [], []
        encoder = self.decoder.encoder
        for item, seconds in zip(items, self._lengths(items, options.num_workers, show), strict=True):
            try:
                if isinstance(seconds, Exception):
                    raise seconds
                tokens = encoder.audio_tokens(seconds)
                first = (
                    item.content if self.decoder.asks_first else stage_content(ASR, item.keywords[: options.prune_top])
                )
                lengths.append(len(encoder.prompt(first, "", tokens).input_ids))
                readable.append(item)
            except (InputError, OSError) as error:
                bad.append(_bad(item, error))
        if report_errors:
            self.fail(bad)
        batches = plan_batches(lengths, options.batch_size, options.max_batch_tokens)
        return [[readable[index] for index in batch] for batch in batches]

    def _lengths(self, items: Sequence[Item], workers: int, show: bool) -> Iterator[float | Exception]:
        """Seconds of each audio, or the error in its place; many are asked for at a time, which may lie far away."""
        blocks = [items[start : start + _LOOKED_AT] for start in range(0, len(items), _LOOKED_AT)]
        with Progress("plan", len(items), shown=show) as shown:
            for block in read_ahead(blocks, lambda item: about_seconds(item.audio), workers):
                yield from block
                shown.update(len(block))

    def decode(self, batches: Sequence[Sequence[Item]], workers: int, show: bool) -> None:
        """Decode and write batch by batch."""
        start, heard = time.perf_counter(), 0.0
        with Progress("decode", sum(map(len, batches)), shown=show) as shown:
            for batch in self.decoder.stream(batches, self._job, workers, shown):
                results = [(item, outcome) for item, outcome in batch if isinstance(outcome, Outcome)]
                bad = [_bad(item, error) for item, error in batch if isinstance(error, Exception)]
                heard += sum(outcome.audio_seconds for _, outcome in results)
                rows = [result_row(item, outcome) for item, outcome in results]
                self.keep(rows, bad, heard, time.perf_counter() - start)

    def keep(self, rows: Sequence[Row], bad: Sequence[BadRow], audio_seconds: float, seconds: float) -> None:
        """Write results and errors; so much audio was decoded in so much time until now."""
        self.files.append(rows)
        self.written += len(rows)
        self.fail(bad)
        self.report.audio_seconds, self.report.seconds = audio_seconds, seconds

    def _job(self, item: Item) -> Job:
        rate = self.decoder.encoder.sampling_rate
        job = Job(item.audio, lambda: load_audio(item.audio, rate), item.keywords, item.content, item.system)
        return job._replace(word_spelling=self._word_spelling)

    def died(self, error: EngineError) -> EngineError:
        """That the engine has failed, and what is left to do."""
        return EngineError(f"{error}; {self.left()}")

    def left(self) -> str:
        """What is done, and how the rest is."""
        done = self.report.resumed + self.written
        return f"{done} of {self.report.rows} rows have a result, the same command goes on"

    def fail(self, rows: Sequence[BadRow]) -> None:
        """Write rows that have no result, with the reason."""
        self.report.failed += len(rows)
        self.files.append_errors([{"id": row.id, "row": row.number, "error": row.error} for row in rows])


def _device_of(rank: Rank) -> str:
    import torch

    return f"cuda:{rank.local}" if torch.cuda.is_available() else "cpu"


def _bad(item: Item, error: Exception) -> BadRow:
    from torch import OutOfMemoryError

    if not isinstance(error, (InputError, OSError, MemoryError, OutOfMemoryError)):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    return BadRow(item.number, item.id, reason)


def result_row(item: Item, outcome: Outcome) -> Row:
    """The row of the result file; the first fields are those of ``swift infer``."""
    messages = [{"role": "system", "content": item.system}] if item.system is not None else []
    messages.append({"role": "user", "content": item.content})
    return {
        "id": item.id,
        "fingerprint": row_fingerprint(item),
        "response": outcome.reading.text,
        "labels": item.labels,
        "messages": [*messages, {"role": "assistant", "content": outcome.reading.text}],
        **item.result_fields(),
        "keywords": item.keywords,
        "picked_keywords": outcome.reading.picked,
        "unlisted_keywords": outcome.reading.unlisted,
        "keyword_probabilities": outcome.probabilities,
        "replies": outcome.replies,
        "prune_labels": item.prune_labels,
        "cut_off": outcome.cut_off,
        "audio_seconds": round(outcome.audio_seconds, 3),
        "audio_tower_runs": outcome.audio_tower_runs,
        "seconds": outcome.seconds,
        **({} if outcome.words is None else {"words": [word.to_dict() for word in outcome.words]}),
        **({} if outcome.leak is None else {"leak": outcome.leak._asdict()}),
        **({"corrections": [one.to_dict() for one in outcome.corrections]} if outcome.corrections else {}),
    }
