"""The arms of :mod:`eval.bench_engine`: one engine on the same utterances as the others, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from process_tree import Watch, cpu_seconds

PLAIN = "plain"
"""The arm that has Qwen2-Audio served by vLLM alone, with the list of keywords as plain tokens of the prompt."""
LATENCY_ROWS = 8


class Arm(NamedTuple):
    """One of the columns: ``engine`` as in ``--engine``, or :data:`PLAIN`."""

    name: str
    engine: str
    torch_dtype: str | None
    batch_size: int


class Setup(NamedTuple):
    """What all arms work on: ``count`` utterances, those of the file again and again."""

    model: str
    prune_adapter: str | None
    asr_adapter: str | None
    utterances: str
    count: int
    max_new_tokens: int
    device: str | None
    engine_args: dict[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        """With adapters both, else the recogniser's alone."""
        return ("prune", "asr") if self.prune_adapter else ("asr",)

    def rows(self) -> list[dict[str, Any]]:
        """The utterances, those with like lists together."""
        rows = [json.loads(line) for line in Path(self.utterances).read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: len(row["keywords"]))
        return [rows[number % len(rows)] for number in range(self.count)]


class Result(NamedTuple):
    """One round of one arm: times in seconds, memory in MiB; ``replies`` by utterance and stage."""

    start: float
    seconds: float
    cpu: float
    tokens: int
    waited: float | None
    latency: float
    first: float
    mib: float
    gpu_mib: float
    replies: dict[str, dict[str, str]]


class PeakMemory(Watch):
    """Of this process, those below it and the GPU, at its highest."""

    def __init__(self) -> None:
        super().__init__(os.getpid())
        self.gpu_mib = 0.0

    def look(self) -> None:
        """Take a look now."""
        super().look()
        self.gpu_mib = max(self.gpu_mib, _gpu_mib())


def _gpu_mib() -> float:
    """Of the whole GPU, once this process uses it; looking must not be what first takes memory there."""
    import torch

    if not torch.cuda.is_initialized():
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


class Counted:
    """An engine, and how many tokens it has generated."""

    def __init__(self, engine: Any):
        self._engine = engine
        self.tokens = 0
        self._lock = threading.Lock()
        self.max_length, self.stream, self.close = engine.max_length, engine.stream, engine.close
        if hasattr(engine, "submit"):
            self.submit = self._submit

    def generate(self, *given: Any) -> list[Any]:
        replies = self._engine.generate(*given)
        for reply in replies:
            self._count(reply)
        return replies

    def _submit(self, *given: Any) -> Any:
        future = self._engine.submit(*given)
        future.add_done_callback(lambda done: self._count(done.result()))
        return future

    def _count(self, reply: Any) -> None:
        with self._lock:
            self.tokens += len(reply.pieces)


def run_arm(arm: Arm, setup: Setup) -> Result:
    """One round, in the process that calls it."""
    with PeakMemory() as memory, contextlib.ExitStack() as stack:
        start = time.perf_counter()
        opened = _open_plain(arm, setup) if arm.engine == PLAIN else _open(arm, setup, stack)
        started = time.perf_counter() - start
        rows = [dict(row, id=f"{row['audio']} {number}") for number, row in enumerate(setup.rows())]
        opened.decode(rows[: arm.batch_size], setup.max_new_tokens)
        tokens, start, cpu = opened.tokens(), time.perf_counter(), cpu_seconds(os.getpid())
        replies = opened.decode(rows, setup.max_new_tokens)
        seconds, cpu = time.perf_counter() - start, cpu_seconds(os.getpid()) - cpu
        tokens, idle = opened.tokens() - tokens, opened.idle()
        waited = None if idle is None else idle / seconds
        latency = _alone(opened, rows, setup.max_new_tokens)
        first = _alone(opened, rows, 1)
    return Result(started, seconds, cpu, tokens, waited, latency, first, memory.mib, memory.gpu_mib, replies)


class Opened(NamedTuple):
    """An engine that is ready: ``decode`` rows with a limit of tokens, its generated tokens, its time without work."""

    decode: Callable[[Sequence[dict[str, Any]], int], dict[str, dict[str, str]]]
    tokens: Callable[[], int]
    idle: Callable[[], float | None]


def _alone(opened: Opened, rows: Sequence[dict[str, Any]], max_new_tokens: int) -> float:
    """Seconds that one utterance takes when there is no other."""

    def times() -> Iterator[float]:
        for row in rows[:LATENCY_ROWS]:
            start = time.perf_counter()
            opened.decode([row], max_new_tokens)
            yield time.perf_counter() - start

    return statistics.median(times())


def _open(arm: Arm, setup: Setup, stack: contextlib.ExitStack) -> Opened:
    """The pipeline with one of its engines."""
    from sap2.audio import load_samples
    from sap2.pipeline.decoder import Decoder
    from sap2.pipeline.engines.choice import open_engine
    from sap2.pipeline.utterances import Job
    from sap2.progress import Progress

    adapters = {stage: setup.prune_adapter if stage == "prune" else setup.asr_adapter for stage in setup.stages}
    arguments = setup.engine_args if arm.engine == "vllm" else None
    given = (arm.engine, setup.model, adapters, setup.device, arm.torch_dtype)
    loaded, engine = open_engine(*given, arguments=arguments)
    stack.callback(engine.close)
    counted, idle = Counted(engine), [0.0]

    def decode(rows: Sequence[dict[str, Any]], max_new_tokens: int) -> dict[str, dict[str, str]]:
        decoder = Decoder(loaded, setup.stages, max_new_tokens, engine=counted)
        jobs = [Job(row["id"], lambda row=row: load_samples(row["audio"], 16_000), row["keywords"]) for row in rows]
        batches = [jobs[start : start + arm.batch_size] for start in range(0, len(jobs), arm.batch_size)]
        stream = decoder.stream(batches, lambda job: job, 2, Progress("decode", shown=False))
        replies = {job.id: outcome.replies for done in stream for job, outcome in done}
        idle[0] = decoder.engine_idle_seconds
        return replies

    return Opened(decode, lambda: counted.tokens, lambda: idle[0] if arm.engine == "vllm" else None)


def _open_plain(arm: Arm, setup: Setup) -> Opened:
    """Upstream's model in vLLM, and the same question with the list uncompressed."""
    from sap2.audio import load_samples
    from sap2.pipeline.engines.choice import ENVIRONMENT
    from sap2.pipeline.stages import stage_content
    from sap2.prompts import (
        AUDIO_BOS,
        AUDIO_EOS,
        AUDIO_TAG,
        AUDIO_TOKEN,
        DEFAULT_SYSTEM,
        END_OF_CONTEXT,
        START_OF_CONTEXT,
        chat_text,
    )  # fmt: skip

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    # no cache: the same utterances come again and again
    settings = {"enable_prefix_caching": False, "mm_processor_cache_gb": 0, "limit_mm_per_prompt": {"audio": 1}}
    llm = LLM(model=setup.model, dtype=arm.torch_dtype or "auto", **settings | setup.engine_args)
    tokens = [0]

    def prompt(row: dict[str, Any]) -> dict[str, Any]:
        content = stage_content("asr", row["keywords"]).replace(START_OF_CONTEXT, "").replace(END_OF_CONTEXT, "")
        audio = f"Audio 1: {AUDIO_BOS}{AUDIO_TOKEN}{AUDIO_EOS}\n"
        text = chat_text(DEFAULT_SYSTEM, content.replace(AUDIO_TAG, audio))
        return {"prompt": text, "multi_modal_data": {"audio": (load_samples(row["audio"], 16_000), 16_000)}}

    def decode(rows: Sequence[dict[str, Any]], max_new_tokens: int) -> dict[str, dict[str, str]]:
        sampling = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        outputs = llm.generate([prompt(row) for row in rows], sampling, use_tqdm=False)
        tokens[0] += sum(len(output.outputs[0].token_ids) for output in outputs)
        return {row["id"]: {"asr": output.outputs[0].text} for row, output in zip(rows, outputs, strict=True)}

    return Opened(decode, lambda: tokens[0], lambda: None)
