"""Two ranks whose batches hold different things, in each way, under ZeRO-3 on a CPU: ``torchrun … ranks.py MODEL``.

A rank that skips a module waits for the other forever, or takes part in the wrong exchange.
Torch limits the time.
"""

from __future__ import annotations

import datetime
import itertools
import sys

import deepspeed
import torch
from model_rows import AUDIO, context, labels_of
from transformers.integrations import HfDeepSpeedConfig

from sap2 import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor
from sap2.model.spotter import pad_transcripts
from sap2.tiny.speech import speak

KINDS = {
    "text": ("no audio at all", 0),
    "audio": (f"{AUDIO} no context", 1),
    "context": (f"{AUDIO}{context('emily, wozniak')} x", 1),
    "two": (f"{AUDIO} one {AUDIO}{context('delta')} two", 2),
}
CONFIG = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "train_micro_batch_size_per_gpu": 1,
    "optimizer": {"type": "SGD", "params": {"lr": 1e-3}},
    "zero_allow_untested_optimizer": True,
}


def make_batch(processor, kind: str, transcript: bool) -> dict[str, torch.Tensor]:
    text, count = KINDS[kind]
    audios = [speak("hi emily")] * count
    inputs = dict(processor(text=[text], audio=audios or None, return_tensors="pt"))
    inputs["labels"] = labels_of(inputs, 1)
    if transcript and count:
        inputs["transcripts"] = pad_transcripts(["hi emily"], [count])
    return inputs


def main() -> None:
    """Train and evaluate on every pair of kinds."""
    model_dir, pooling = sys.argv[1:]
    deepspeed.init_distributed("gloo", timeout=datetime.timedelta(seconds=60))
    rank = torch.distributed.get_rank()
    kept = HfDeepSpeedConfig(CONFIG)  # weights are divided as they are loaded
    processor = SAP2Qwen2AudioProcessor.from_pretrained(model_dir)
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(
        model_dir, sap_pooling=pooling, sap_spotter=True, sap_min_positions=0
    )
    engine, *_ = deepspeed.initialize(model=model, config=CONFIG, model_parameters=model.parameters())
    for step, kinds in enumerate(itertools.product(KINDS, repeat=2)):
        batch = make_batch(processor, kinds[rank], transcript=step % 2 == rank)
        engine.train()
        loss = engine(**batch).loss
        engine.backward(loss)
        engine.step()
        assert loss.isfinite()
    engine.eval()
    for kinds in itertools.product(KINDS, repeat=2):
        with torch.no_grad():
            engine(**make_batch(processor, kinds[rank], transcript=False))
    print(f"rank {rank} done", flush=True)
    del kept


if __name__ == "__main__":
    main()
