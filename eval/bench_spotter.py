"""Utterances per second of training: the spotter alone (``--sap_train spotter``) against everything.

    python eval/bench_spotter.py                                    # a small model on the CPU
    python eval/bench_spotter.py --device cuda --size 7b --batch 8  # the sizes of Qwen2-Audio-7B

A step is a forward and a backward pass. Full training is LoRA on the language model, with a list of keywords; the
spotter alone hears the same audio and reads nothing. The sizes are those of bench_context.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from bench_context import MEL_FRAMES, Variant, make_inputs, make_model

SECONDS = MEL_FRAMES / 100
LETTERS = 12
"""Of a transcript, a second of speech."""


def make_steps(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """One step of each kind of training."""
    inputs = make_inputs(args, Variant(args.length, args.window))
    shape = (args.batch, int(SECONDS * LETTERS))
    letters = torch.randint(98, 124, shape, generator=torch.Generator().manual_seed(2))
    inputs["transcripts"] = letters.to(args.device)
    model = make_model(args)
    base = model.get_base_model()
    base.model.context_pooling.window_size = args.window
    base.model.spotter.requires_grad_(True)
    model.train()

    def step(alone: bool) -> None:
        base.train_alone = "spotter" if alone else None
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()

    return {"everything": lambda: step(False), "spotter alone": lambda: step(True)}


def measure(step: Callable[[], None], repeats: int) -> float:
    """Seconds of a step: the fastest of so many, after one to warm up."""
    step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("7b", "small"), default="small")
    parser.add_argument("--device", default="cpu", help="device to run on, for example cuda:0")
    parser.add_argument("--batch", type=int, default=2, help="utterances of a step")
    parser.add_argument("--length", type=int, default=250, help="context tokens of full training")
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    args.pooling, args.spotter = "attention", True
    speeds = {name: args.batch / measure(step, args.repeats) for name, step in make_steps(args).items()}
    print(f"{SECONDS:.0f} s an utterance, {args.size} model, batches of {args.batch}")
    for name, speed in speeds.items():
        print(f"{name:14}  {speed:8.2f} utterances/s  {speed / speeds['everything']:6.2f}")


if __name__ == "__main__":
    main()
