"""Teach the audio tower of sap2-tiny to hear through noise what it hears without it.

    python examples/sap2_tiny/tower.py MODEL CLEAN FOLDER --adapter DIR [--unknown UTTERANCES] [--steps N]

CLEAN are utterances without noise. What the tower as it was makes of one, the new tower shall make of it with noise
added: the language model and all adapters need not change then. The spotter has to read the transcript in it as well
(CTC). Of voices that it does not know the old tower is no good teacher, and the transcript counts for more. FOLDER is a
copy of the model with the new tower. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from noisy_audio import Noise
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sap2.commands.shared import Parser, run_parser
from sap2.files import atomic_folder
from sap2.model.encoder import encode_audio, trim_features
from sap2.model.spotter import pad_transcripts, spotting_loss
from sap2.pipeline.asking import Hearing
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder, Heard
from sap2.rowfiles import read_rows
from sap2.shipped import resolve_name
from sap2.tiny.checkpoint import write_weights

STAGE = "asr"
BATCH = 32
LEARNING_RATE = 1.5e-3
SPELLING = 0.3
"""Weight of the spotter's loss beside the distance from the old tower."""
UNKNOWN = 0.25
"""How much the distance counts for an utterance of an unknown voice."""
SAVE_STEPS = 250


class Example(NamedTuple):
    """An utterance: where it is, what is said, the old tower's output (T, width) in half precision and its weight."""

    audio: str
    said: str
    states: Tensor
    weight: float


class Noisy(Dataset):
    """Step → the first of the examples of its batch, and what the extractor makes of them with noise."""

    def __init__(self, examples: Sequence[Example], order: Sequence[int], encoder: Encoder, done: int, loud: bool):
        self._examples, self._order, self._encoder, self._done = examples, order, encoder, done
        self._noise = Noise([example.audio for example in examples], encoder.sampling_rate, loud)

    def __len__(self) -> int:
        return len(self._order) - self._done

    def __getitem__(self, index: int) -> tuple[int, list[Heard]]:
        torch.set_num_threads(1)
        step = index + self._done
        first = self._order[step]
        audios = [example.audio for example in self._examples[first : first + BATCH]]
        return first, [self._encoder.hear(self._noise(audio, step), audio) for audio in audios]


@torch.inference_mode()
def hear(loaded: LoadedModel, encoder: Encoder, utterances: str, weight: float) -> list[Example]:
    """What the tower makes of all utterances."""
    rows = [row for _, row in read_rows(utterances)]
    noise = Noise([row["audio"] for row in rows], encoder.sampling_rate)
    examples = []
    for first in tqdm(range(0, len(rows), BATCH), desc="hear", disable=None):
        batch = rows[first : first + BATCH]
        heard = [encoder.hear(noise.clean(row["audio"]), row["id"]) for row in batch]
        states = Hearing(loaded, heard).states(STAGE)
        examples += [
            Example(row["audio"], row["text"], state[: one.tokens].half(), weight)
            for state, one, row in zip(states, heard, batch, strict=True)
        ]
    return examples


class Listener(nn.Module):
    """The new tower, and the old ears behind it: projector and spotter, which do not learn."""

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        self._loaded = [loaded]
        self.tower = copy.deepcopy(loaded.model.model.audio_tower).float().requires_grad_(True)
        self.tower.embed_positions.requires_grad_(False)

    def losses(self, heard: Sequence[Heard], examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Mean square of the distance from the old tower's output, of its variance; and the spotter's loss."""
        features, mask = trim_features(torch.stack([h.features for h in heard]), torch.stack([h.mask for h in heard]))
        states = encode_audio(self.tower, features, mask)
        wanted = nn.utils.rnn.pad_sequence([example.states.float() for example in examples], True)
        valid = torch.arange(wanted.shape[1])[None] < torch.tensor([len(e.states) for e in examples])[:, None]
        weights = torch.tensor([example.weight for example in examples])[:, None].expand_as(valid)[valid]
        squares = (states[:, : wanted.shape[1]] - wanted)[valid].square().mean(-1)
        distance = (weights * squares).sum() / weights.sum() / wanted[valid].var()
        with self._loaded[0].use(STAGE) as model:
            speech, speech_mask = model.model.get_speech_features(None, mask, states)
            letters = model.model.spotter(speech, speech_mask)
        said = pad_transcripts([example.said for example in examples], [1] * len(examples))
        return distance, spotting_loss(letters, speech_mask, said)


@dataclasses.dataclass
class Training:
    """The state of a training, as it is saved."""

    listener: Listener
    steps: int
    file: Path
    done: int = 0

    def __post_init__(self) -> None:
        learning = [weight for weight in self.listener.tower.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, LEARNING_RATE, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        if self.file.is_file():
            saved = torch.load(self.file, weights_only=True)
            self.listener.tower.load_state_dict(saved["tower"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.done = saved["done"]

    def _rate(self, step: int) -> float:
        return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def step(self, loss: Tensor) -> None:
        """Learn from one batch."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.listener.tower.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        if self.done % SAVE_STEPS == 0:
            self.save()

    def save(self) -> None:
        """Write what a run that is stopped goes on with."""
        parts = {"tower": self.listener.tower, "optimizer": self.optimizer, "schedule": self.schedule}
        part = self.file.with_suffix(".part")
        torch.save({**{name: one.state_dict() for name, one in parts.items()}, "done": self.done}, part)
        part.replace(self.file)


def train(training: Training, examples: Sequence[Example], encoder: Encoder, workers: int, loud: bool) -> None:
    """Batches of utterances of like length, in an order of chance."""
    draw = random.Random(int(loud))
    order = [draw.randrange(max(1, len(examples) - BATCH)) for _ in range(training.steps)]
    noisy = Noisy(examples, order, encoder, training.done, loud)
    for first, heard in tqdm(DataLoader(noisy, None, num_workers=workers), desc="train", disable=None):
        distance, spelled = training.listener.losses(heard, examples[first : first + BATCH])
        training.step(distance + SPELLING * spelled)
        if training.done % 50 == 0:
            print(f"step {training.done}: distance {distance.item():.3f}, spotter {spelled.item():.3f}", flush=True)


def save(folder: Path, model: Path, tower: nn.Module) -> None:
    """A copy of the model with this tower."""
    weights = load_file(model / "model.safetensors")
    prefix = next(name for name in weights if "audio_tower." in name).split("audio_tower.")[0] + "audio_tower."
    new = {prefix + name: tensor.to(torch.bfloat16) for name, tensor in tower.state_dict().items()}
    unknown = set(new) - set(weights)
    assert not unknown, unknown
    with atomic_folder(folder, "config.json", overwrite=True) as part:
        shutil.copytree(model, part, dirs_exist_ok=True)
        write_weights(part / "model.safetensors", {**weights, **new})


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    loaded = LoadedModel(args.model, {STAGE: args.adapter}, dtype="float32")
    loaded.model.requires_grad_(False)
    encoder = Encoder(loaded.processor, loaded.model.config.text_config.max_position_embeddings)
    examples = hear(loaded, encoder, args.utterances, 1.0)
    if args.unknown:
        examples += hear(loaded, encoder, args.unknown, UNKNOWN)
    examples.sort(key=lambda example: len(example.states))
    training = Training(Listener(loaded), args.steps, args.folder.with_suffix(".state"))
    train(training, examples, encoder, args.workers, args.loud)
    save(args.folder, Path(resolve_name(args.model)), training.listener.tower)
    training.file.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="tower.py", description=__doc__)
    parser.add_argument("model", help="folder or shipped name")
    parser.add_argument("utterances", help="without noise, with transcripts")
    parser.add_argument("folder", type=Path, help="is replaced")
    parser.add_argument("--adapter", required=True, help="with a spotter; folder or shipped name")
    parser.add_argument("--unknown", metavar="UTTERANCES", help="as well, of voices that the model does not know")
    parser.add_argument("--steps", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--loud", action="store_true", help="with louder noise, for a tower that knows noise already")
    parser.add_argument("--workers", type=int, default=1, help="processes that add noise; default: %(default)s")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
