"""Train the spotter of sap2-tiny alone: the speech embeddings of all utterances once, and then only its three layers.

    python examples/sap2_tiny/spotter.py MODEL UTTERANCES FOLDER [--adapter DIR] [--noise]

FOLDER is a copy of the model with the trained spotter, or of the adapter, whose projector it then listens through.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from noisy_audio import Noise
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from sap2.commands.shared import Parser, run_parser
from sap2.files import atomic_folder
from sap2.model.spotter import KeywordSpotter, pad_transcripts, spotting_loss
from sap2.pipeline.asking import Hearing
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.rowfiles import read_rows
from sap2.shipped import resolve_name
from sap2.tiny.checkpoint import write_weights

STAGE = "asr"
SPOTTER_LAYERS = [f"context_pooling.spotter.{layer}" for layer, _ in KeywordSpotter(1).named_children()]
BATCH = 32
LEARNING_RATE = 1.5e-3
NOISE = 0.1
"""What is added to the speech embeddings in training, of their standard deviation."""


class Example:
    """One utterance: ``speech`` (T, D) in half precision, and what is ``said``."""

    def __init__(self, speech: Tensor, said: str):
        self.speech, self.said = speech.half(), said


@torch.inference_mode()
def hear(loaded: LoadedModel, utterances: str, noisy: bool) -> list[Example]:
    """The speech embeddings of all utterances, as they are and, if so asked, with noise; the shortest first."""
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    rows = [row for _, row in read_rows(utterances)]
    noise = Noise([row["audio"] for row in rows], encoder.sampling_rate)
    loads: list[Callable[[str], np.ndarray]] = [noise.clean, *([lambda audio: noise(audio, 0)] if noisy else [])]
    examples = []
    for first, load in itertools.product(tqdm(range(0, len(rows), BATCH), desc="hear", disable=None), loads):
        batch = rows[first : first + BATCH]
        heard = [encoder.hear(load(row["audio"]), row["id"]) for row in batch]
        speech, mask = Hearing(loaded, heard).speech(STAGE)
        examples += [Example(s[m].clone(), row["text"]) for s, m, row in zip(speech, mask, batch, strict=True)]
    return sorted(examples, key=lambda example: len(example.speech))


def train(spotter: KeywordSpotter, examples: Sequence[Example], steps: int) -> None:
    """Batches of utterances of like length, in an order of chance."""
    draw = random.Random(0)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(spotter.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    for step in tqdm(range(steps), desc="train", disable=None):
        first = draw.randrange(max(1, len(examples) - BATCH))
        batch = examples[first : first + BATCH]
        speech = torch.nn.utils.rnn.pad_sequence([example.speech.float() for example in batch], True)
        lengths = torch.tensor([len(example.speech) for example in batch])
        mask = torch.arange(speech.shape[1])[None] < lengths[:, None]
        said = pad_transcripts([example.said for example in batch], [1] * len(batch))
        speech = speech + NOISE * speech.std() * torch.randn_like(speech)
        loss = spotting_loss(spotter(speech, mask), mask, said)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


class Source:
    """The checkpoint that the spotter is in: a model's folder, or an adapter's."""

    def __init__(self, folder: Path):
        self.folder = folder
        adapter = (folder / "adapter_config.json").is_file()
        self.name, self.marker = ("adapter_model", "adapter_config.json") if adapter else ("model", "config.json")
        self.weights = load_file(folder / f"{self.name}.safetensors")
        self._prefix = f"{'base_model.model.' if adapter else ''}model.context_pooling.spotter."

    def spotter(self, width: int) -> KeywordSpotter:
        """The spotter in it; layers that it lacks are untrained."""
        spotter = KeywordSpotter(width)
        known = {key.removeprefix(self._prefix): value.float() for key, value in self.weights.items()}
        spotter.load_state_dict({key: known.get(key, value) for key, value in spotter.state_dict().items()})
        return spotter

    def save(self, folder: Path, spotter: KeywordSpotter) -> None:
        """A copy of the checkpoint with these layers."""
        layers = {self._prefix + key: value.to(torch.bfloat16) for key, value in spotter.state_dict().items()}
        with atomic_folder(folder, self.marker, overwrite=True) as new:
            shutil.copytree(self.folder, new, dirs_exist_ok=True)
            write_weights(new / f"{self.name}.safetensors", {**self.weights, **layers})
            config = json.loads((new / self.marker).read_text(encoding="utf-8"))
            if "modules_to_save" in config:  # of an adapter: what is not named there is not loaded
                config["modules_to_save"] = SPOTTER_LAYERS
                (new / self.marker).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    loaded = LoadedModel(args.model, {STAGE: args.adapter}, dtype="float32")
    examples = hear(loaded, args.utterances, args.noise)
    source = Source(Path(resolve_name(args.adapter or args.model)))
    spotter = source.spotter(loaded.model.config.text_config.hidden_size)
    train(spotter, examples, args.steps)
    source.save(args.folder, spotter)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="spotter.py", description=__doc__)
    parser.add_argument("model", help="folder or shipped name")
    parser.add_argument("utterances", help="with transcripts")
    parser.add_argument("folder", type=Path, help="is replaced")
    parser.add_argument("--adapter", help="folder or shipped name")
    parser.add_argument("--steps", type=int, default=6000, help="default: %(default)s")
    parser.add_argument("--noise", action="store_true", help="hear each utterance with noise as well")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
