#!/usr/bin/env python
"""What a context costs: a training step and a prefill without one, with all its tokens, and pooled.

    python eval/bench_context.py                          # a small model on the CPU
    python eval/bench_context.py --device cuda --size 7b  # the real dimensions, random weights, bfloat16

One utterance of 30 s (750 positions), a prompt and a reply of fixed lengths, and 250, 1000 and 3000 context tokens. The
gain over the uncompressed context is set against what the number of positions allows,
(audio + text + L) / (audio + text + L/w); attention, which grows with the square, allows more, and the audio tower,
which does not shrink, less. All variants run in turns in one process; a variant's time is its median. Weights are
random, LoRA is on the language model and the projector, the tower is frozen, as in the recipe. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from tqdm import tqdm

from sap2 import SAP2Qwen2AudioConfig, SAP2Qwen2AudioForConditionalGeneration

AUDIO_TOKENS = 750
MEL_FRAMES = 3000
PROMPT_TOKENS = 40
REPLY_TOKENS = 40
KEYWORD_TOKENS, KEYWORD_LETTERS = 4, 9
"""Of a keyword and its separator, and of its spelling."""
CONTEXT_ID = 2
AUDIO_ID = 1
LORA_TARGETS = r".*(language_model.*(q|k|v|o|gate|up|down)_proj|multi_modal_projector\.linear)$"
SIZES = {
    "small": {
        "text": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4},
        "audio": {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 512},
        "vocabulary": 2048,
    },
    "7b": {
        "text": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        "audio": {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120},
        "vocabulary": 156_032,
    },
}


class Variant(NamedTuple):
    """A context of ``length`` tokens (0: none) in windows of ``window`` (1: uncompressed)."""

    length: int
    window: int

    @property
    def name(self) -> str:
        if not self.length:
            return "none"
        return "uncompressed" if self.window == 1 else f"w = {self.window}"

    @property
    def positions(self) -> int:
        return AUDIO_TOKENS + PROMPT_TOKENS + REPLY_TOKENS + -(-self.length // self.window)


def make_model(args: argparse.Namespace) -> torch.nn.Module:
    size = SIZES[args.size]
    heads = size["text"]["num_attention_heads"]
    config = SAP2Qwen2AudioConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": size["vocabulary"],
            "max_position_embeddings": 8192,
            "num_key_value_heads": heads,
            **size["text"],
        },
        audio_config={"max_source_positions": MEL_FRAMES // 2, **size["audio"]},
        audio_token_index=AUDIO_ID,
        sap_context_token_id=CONTEXT_ID,
        sap_pooling=args.pooling,
        sap_spotter=getattr(args, "spotter", False),
        sap_min_positions=0,
    )
    dtype = torch.bfloat16 if args.device.startswith("cuda") else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(args.device):
        model = SAP2Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    if args.pooling == "salience":  # an untrained spotter is refused outside of training
        torch.nn.init.normal_(model.model.spotter.symbols.weight)
    return get_peft_model(model, LoraConfig(r=8, target_modules=LORA_TARGETS))


def make_inputs(args: argparse.Namespace, variant: Variant) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    vocabulary = SIZES[args.size]["vocabulary"]
    pooled = -(-variant.length // variant.window)
    text = torch.randint(3, vocabulary, (PROMPT_TOKENS + REPLY_TOKENS,), generator=generator)
    ids = [torch.full((AUDIO_TOKENS,), AUDIO_ID), torch.full((pooled,), CONTEXT_ID), text]
    row = torch.cat(ids).repeat(args.batch, 1)
    inputs = {
        "input_ids": row,
        "input_features": torch.randn((args.batch, 128, MEL_FRAMES), generator=generator),
        "feature_attention_mask": torch.ones((args.batch, MEL_FRAMES), dtype=torch.long),
    }
    if variant.length:
        shape = (args.batch, variant.length)
        inputs["context_input_ids"] = torch.randint(3, vocabulary, shape, generator=generator)
        inputs["context_keyword_numbers"] = (torch.arange(variant.length) // KEYWORD_TOKENS + 1).expand(shape)
        letters = (args.batch, -(-variant.length // KEYWORD_TOKENS), KEYWORD_LETTERS)
        inputs["context_spellings"] = torch.randint(98, 124, letters, generator=generator)
    return {name: value.to(args.device) for name, value in inputs.items()}


def make_steps(args: argparse.Namespace, model: torch.nn.Module, variant: Variant) -> dict[str, Callable[[], None]]:
    inputs = make_inputs(args, variant)
    labels = inputs["input_ids"][:, -REPLY_TOKENS:]
    pooling = model.get_base_model().model.context_pooling

    def finish() -> None:
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()

    def train() -> None:
        pooling.window_size = variant.window
        model.train()
        model(**inputs, labels=labels, logits_to_keep=REPLY_TOKENS, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)
        finish()

    def prefill() -> None:
        pooling.window_size = variant.window
        model.eval()
        with torch.inference_mode():
            model(**inputs, logits_to_keep=1, use_cache=True)
        finish()

    return {"train": train, "prefill": prefill}


def measure(args: argparse.Namespace) -> list[dict]:
    model = make_model(args)
    variants = [Variant(0, 1)] + [Variant(length, w) for length in args.lengths for w in (1, *args.windows)]
    steps = {variant: make_steps(args, model, variant) for variant in variants}
    seconds: dict[tuple[Variant, str], list[float]] = {}
    with tqdm(total=(args.repeats + 1) * len(variants) * 2, unit="step", disable=None) as bar:
        for turn in range(args.repeats + 1):
            for variant, kinds in steps.items():
                for kind, step in kinds.items():
                    start = time.perf_counter()
                    step()
                    if turn:  # the first turn warms up
                        seconds.setdefault((variant, kind), []).append(time.perf_counter() - start)
                    bar.update()
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    return [make_row(variant, medians) for variant in variants]


def make_row(variant: Variant, medians: dict[tuple[Variant, str], float]) -> dict:
    row = {"length": variant.length, "variant": variant.name, "positions": variant.positions}
    whole = Variant(variant.length, 1)
    row["allowed"] = whole.positions / variant.positions
    for kind in ("train", "prefill"):
        row[f"{kind}_seconds"] = medians[variant, kind]
        row[f"{kind}_gain"] = medians[whole, kind] / medians[variant, kind]
    return row


def print_table(rows: list[dict]) -> None:
    print(
        f"{'L':>5} {'context':13}{'positions':>10}{'allowed':>9}  {'train s':>8}{'gain':>6}{'of allowed':>11}", end=""
    )
    print(f"  {'prefill s':>9}{'gain':>6}{'of allowed':>11}")
    for row in rows:
        print(f"{row['length']:5} {row['variant']:13}{row['positions']:10}{row['allowed']:9.2f}", end="")
        for kind, width in (("train", 8), ("prefill", 9)):
            gain = row[f"{kind}_gain"]
            print(f"  {row[f'{kind}_seconds']:{width}.3f}{gain:6.2f}{gain / row['allowed']:11.2f}", end="")
        print()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[250, 1000, 3000], help="context tokens")
    parser.add_argument("--windows", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--pooling", default="attention")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    rows = measure(args)
    print_table(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
