"""The core: a batch of utterances through the stages, with one pass of the audio tower."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sap2.model.encoder import trim_features
from sap2.pipeline.decoding import decode_replies, greedy_config
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder, Heard, Prompt
from sap2.pipeline.stages import Reading, read_reply, stage_content


class Job(NamedTuple):
    """One utterance.

    Attributes:
        id: for messages and results.
        load: gives (samples,) at the model's rate; called when the utterance's turn comes.
        keywords: clean, to pick from.
        content: the user's turn of the first stage, where it is not to be written from the keywords.
        system: the system prompt of the first stage, where it is not the checkpoint's.
        about_tokens: about how long the first prompt is, to put utterances of like length together.
    """

    id: str
    load: Callable[[], np.ndarray]
    keywords: Sequence[str]
    content: str | None = None
    system: str | None = None
    about_tokens: int = 0


class Prepared(NamedTuple):
    """A job whose audio was heard and whose first prompt is encoded."""

    job: Job
    heard: Heard
    prompt: Prompt


class Outcome(NamedTuple):
    """What came out for one job.

    Attributes:
        replies: what the model said, by stage.
        reading: the last stage's reply, understood; picked and unlisted keywords are of the stage that picks.
        content: the user's turn of the last stage.
        seconds: computing time by stage (``audio``, ``prune``, …), the batch's divided by its size.
        audio_tower_runs: how often the audio tower heard the utterance.
        cut_off: stages whose reply reached the limit of tokens.
        audio_seconds: length of the audio.
    """

    replies: dict[str, str]
    reading: Reading
    content: str
    seconds: dict[str, float]
    audio_tower_runs: int
    cut_off: list[str]
    audio_seconds: float


class _Batch:
    """What the stages of one batch share."""

    def __init__(self, prepared: Sequence[Prepared], device: torch.device):
        self.prepared = prepared
        features, mask = trim_features(
            torch.stack([item.heard.features for item in prepared]), torch.stack([item.heard.mask for item in prepared])
        )
        self.features, self.mask = features.to(device), mask.to(device)
        self.hidden: Tensor | None = None
        self.tower_runs = 0
        self.seconds: dict[str, float] = {"audio": 0.0}
        self.replies: list[dict[str, str]] = [{} for _ in prepared]
        self.cut_off: list[list[str]] = [[] for _ in prepared]
        self.keywords = [list(item.job.keywords) for item in prepared]
        self.unlisted: list[list[str]] = [[] for _ in prepared]
        self.contents = [""] * len(prepared)
        self.texts = [""] * len(prepared)


class Decoder:
    """Runs the stages.

    Args:
        loaded: model and adapters.
        stages: of :data:`sap2.pipeline.stages.STAGES`.
        max_new_tokens: longest reply of a stage.
    """

    def __init__(self, loaded: LoadedModel, stages: Sequence[str], max_new_tokens: int, truncate_audio: bool = False):
        self.loaded = loaded
        self.stages = tuple(stages)
        self.max_new_tokens = max_new_tokens
        positions = loaded.model.config.text_config.max_position_embeddings
        self.encoder = Encoder(loaded.processor, positions, truncate_audio)

    def prepare(self, job: Job) -> Prepared:
        """Hear the audio and encode the first prompt; safe to call from several threads.

        Raises:
            InputError: what is wrong with the audio or the prompt.
        """
        heard = self.encoder.hear(job.load(), job.id)
        stage = self.stages[0]
        content = job.content if job.content is not None else stage_content(stage, job.keywords)
        system = job.system if job.system is not None else self.loaded.systems[stage]
        return Prepared(job, heard, self.encoder.prompt(content, system, heard.tokens))

    @torch.inference_mode()
    def decode(self, prepared: Sequence[Prepared]) -> list[Outcome]:
        """Run all stages on a batch; outcomes in its order."""
        batch = _Batch(prepared, self.loaded.device)
        for stage in self.stages:
            self._run_stage(stage, batch)
        share = 1 / len(prepared)
        return [
            Outcome(
                replies=batch.replies[i],
                reading=Reading(batch.texts[i], batch.keywords[i], batch.unlisted[i]),
                content=batch.contents[i],
                seconds={stage: round(seconds * share, 4) for stage, seconds in batch.seconds.items()},
                audio_tower_runs=batch.tower_runs,
                cut_off=batch.cut_off[i],
                audio_seconds=item.heard.seconds,
            )
            for i, item in enumerate(prepared)
        ]

    def _run_stage(self, stage: str, batch: _Batch) -> None:
        prompts = self._prompts(stage, batch)
        with self.loaded.use(stage):
            start = time.perf_counter()
            hidden = self._hear(batch)
            heard = time.perf_counter()
            replies, complete = self._generate(prompts, batch.mask, hidden)
        batch.seconds["audio"] += heard - start
        batch.seconds[stage] = time.perf_counter() - heard
        for i, (reply, ended) in enumerate(zip(replies, complete, strict=True)):
            reading = read_reply(stage, reply, batch.keywords[i])
            batch.replies[i][stage] = reply
            batch.texts[i], batch.keywords[i] = reading.text, reading.picked
            batch.unlisted[i] += reading.unlisted
            if not ended:
                batch.cut_off[i].append(stage)

    def _prompts(self, stage: str, batch: _Batch) -> list[Prompt]:
        """The prompts of a stage: those of the first are encoded already, the next one's depend on its replies."""
        first = stage == self.stages[0]
        prompts = []
        for i, item in enumerate(batch.prepared):
            given = item.job.content if first else None
            batch.contents[i] = given if given is not None else stage_content(stage, batch.keywords[i])
            if first:
                prompts.append(item.prompt)
            else:
                prompts.append(self.encoder.prompt(batch.contents[i], self.loaded.systems[stage], item.heard.tokens))
        return prompts

    def _hear(self, batch: _Batch) -> Tensor:
        """The audio tower's output, kept for the next stage where that one has the same tower."""
        if batch.hidden is None or not self.loaded.tower_shared:
            batch.hidden = self.loaded.model.model.encode_audio(batch.features, batch.mask)
            batch.tower_runs += 1
            if batch.hidden.is_cuda:
                torch.cuda.synchronize(batch.hidden.device)  # for the time of the stage
        return batch.hidden

    def _generate(self, prompts: Sequence[Prompt], mask: Tensor, hidden: Tensor) -> tuple[list[str], list[bool]]:
        inputs = self.encoder.collate(prompts, self.loaded.device)
        length = inputs["input_ids"].shape[1]
        room = min(self.max_new_tokens, self.encoder.max_length - length)
        model, tokenizer = self.loaded.model, self.encoder.tokenizer
        output = model.generate(
            **inputs,
            feature_attention_mask=mask,
            audio_hidden_states=hidden,
            generation_config=greedy_config(model.generation_config, tokenizer, room),
        )
        return decode_replies(output[:, length:], tokenizer)
