#!/usr/bin/env python
"""Time and peak memory of the pooling layer, forward and backward, against the formula as one einsum.

    python eval/bench_pooling.py            # the comparison, then a table of lengths from 100 to 50,000 tokens
    python eval/bench_pooling.py --json out.json

The two run in turns in one process for the time ratio, and each in a process of its own for the peak memory, which
is what the operating system counted (resident set). "Peak extra" is that beyond the inputs and beyond what any way of
computing it must hand back: the pooled embeddings and the gradients of both inputs. "With results" counts those too.
Nothing is asserted: machines differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from sap2.model.pooling import SpeechDrivenPooling

FRAMES_30S = 750
LENGTHS = (100, 300, 1000, 3000, 10_000, 30_000, 50_000)


def einsum_pooling(speech: torch.Tensor, context: torch.Tensor, heads: int, window: int) -> torch.Tensor:
    """The layer's formula with all of (B, H, T, L) in memory; L must be a multiple of the window."""
    q, k = (x.unflatten(-1, (heads, -1)) for x in (speech, context))
    scores = torch.einsum("bthd,blhd->bhtl", q, k) * q.shape[-1] ** -0.5
    log_salience = scores.log_softmax(-1).logsumexp(-2)
    weights = log_salience.unflatten(-1, (-1, window)).softmax(-1)
    return torch.einsum("bhnw,bnwhd->bnhd", weights, k.unflatten(1, (-1, window))).flatten(-2)


def make_inputs(args: argparse.Namespace, length: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, FRAMES_30S, args.width), (batch, length, args.width))
    speech, context = (torch.randn(shape, generator=generator).to(args.device) for shape in shapes)
    return speech.requires_grad_(), context.requires_grad_()


def make_step(args: argparse.Namespace, kind: str, length: int, batch: int):
    speech, context = make_inputs(args, length, batch)
    layer = SpeechDrivenPooling(args.width, args.heads, args.window)

    def step() -> None:
        speech.grad = context.grad = None
        if kind == "layer":
            pooled = layer(speech, context)[0]
        else:
            pooled = einsum_pooling(speech, context, args.heads, args.window)
        pooled.sum().backward()
        if speech.is_cuda:
            torch.cuda.synchronize()

    return step


def measure_time(args: argparse.Namespace, kinds: list[str], length: int, batch: int) -> dict[str, float]:
    """Median seconds of a step of each kind, taken in turns."""
    steps = {kind: make_step(args, kind, length, batch) for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(args.repeats + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:  # the first one warms up
                seconds[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def measure_memory(args: argparse.Namespace, kind: str, length: int, batch: int) -> float:
    """Peak extra MiB of one step, from a process of its own (or the CUDA allocator)."""
    if args.device.startswith("cuda"):
        step = make_step(args, kind, length, batch)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [sys.executable, __file__, "--child", kind, "--child-length", str(length), "--child-batch", str(batch)]
    command += ["--width", str(args.width), "--heads", str(args.heads), "--window", str(args.window)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def child(args: argparse.Namespace) -> None:
    """One measured step; prints the peak MiB beyond what was resident before it (Linux)."""
    step = make_step(args, args.child, args.child_length, args.child_batch)
    warm_up = make_step(args, args.child, args.window, 1)
    warm_up()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak := what is resident now
    before = _peak_kib()
    step()
    print((_peak_kib() - before) / 1024)


def results_mib(args: argparse.Namespace, length: int, batch: int) -> float:
    """MiB of the pooled embeddings and of the two gradients."""
    vectors = FRAMES_30S + length + -(-length // args.window)
    return batch * vectors * args.width * 4 / 2**20


def compare(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    kinds = ["layer", "einsum"]
    seconds = measure_time(args, kinds, args.length, args.batch)
    whole = {kind: measure_memory(args, kind, args.length, args.batch) for kind in kinds}
    memory = {kind: whole[kind] - results_mib(args, args.length, args.batch) for kind in kinds}
    print(f"B {args.batch}, T {FRAMES_30S}, L {args.length}, D {args.width}, {args.heads} heads, w {args.window}")
    print(f"{'':8}{'seconds':>9}{'peak extra MiB':>16}{'with results':>14}")
    for kind in kinds:
        print(f"{kind:8}{seconds[kind]:9.3f}{memory[kind]:16.0f}{whole[kind]:14.0f}")
    time_ratio, memory_ratio = (values["layer"] / values["einsum"] for values in (seconds, memory))
    print(f"layer / einsum: time {time_ratio:.2f}, peak extra memory 1/{1 / memory_ratio:.0f}\n")
    return {
        "seconds": seconds,
        "peak_mib": memory,
        "peak_with_results_mib": whole,
        "ratio": {"time": time_ratio, "memory": memory_ratio},
    }


def sweep(args: argparse.Namespace) -> list[dict[str, float]]:
    rows = []
    print(f"one utterance of 30 s, D {args.width}, {args.heads} heads, w {args.window}")
    print(f"{'L':>7}{'seconds':>9}{'peak extra MiB':>16}{'with results':>14}{'inputs MiB':>12}")
    for length in LENGTHS:
        seconds = measure_time(args, ["layer"], length, 1)["layer"]
        whole = measure_memory(args, "layer", length, 1)
        memory = whole - results_mib(args, length, 1)
        inputs = (FRAMES_30S + length) * args.width * 4 / 2**20
        rows.append(
            {
                "length": length,
                "seconds": seconds,
                "peak_mib": memory,
                "peak_with_results_mib": whole,
                "inputs_mib": inputs,
            }
        )
        print(f"{length:7}{seconds:9.3f}{memory:16.0f}{whole:14.0f}{inputs:12.0f}", flush=True)
    return rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=3000, help="context tokens of the comparison")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--child", choices=["layer", "einsum"], help=argparse.SUPPRESS)
    parser.add_argument("--child-length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child-batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.length % args.window:
        parser.error(f"--length {args.length} must be a multiple of --window {args.window}")
    return args


def main() -> None:
    args = parse_args()
    if args.child:
        child(args)
        return
    result = {"comparison": compare(args), "sweep": sweep(args)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
