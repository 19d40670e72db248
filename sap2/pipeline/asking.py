"""What the stages ask the model: a batch's audio, heard once, and a stage's question about each of its utterances."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Sequence

import numpy as np
import torch
from torch import Tensor

from sap2.model.audios import Audios
from sap2.model.encoder import trim_features
from sap2.model.retriever import TokenQueries
from sap2.pipeline.engines.base import EmbeddedPrompt, Engine, Reply
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder, Heard, Prompt
from sap2.pipeline.stages import stage_content
from sap2.pipeline.utterances import Job, Utterance
from sap2.spelling import Writing, rewrite_contexts


class Hearing:
    """What the audio tower makes of the audio of a batch: once, or for each stage where an adapter changes the tower.

    Args:
        loaded: model and adapters.
        heard: A audios.

    Attributes:
        mask: (A, frames), 1 for a valid mel frame.
        seconds: time spent in the tower.
    """

    def __init__(self, loaded: LoadedModel, heard: Sequence[Heard]):
        self._loaded = loaded
        features, mask = trim_features(torch.stack([h.features for h in heard]), torch.stack([h.mask for h in heard]))
        self._features, self.mask = features.to(loaded.device), mask.to(loaded.device)
        self._states: dict[str, Tensor] = {}
        self.seconds = 0.0

    @property
    def tower_runs(self) -> int:
        """How often the audio tower heard the batch."""
        return len(self._states)

    def states(self, stage: str) -> Tensor:
        """The tower's output (A, T, tower width) with that stage's adapter."""
        key = "" if self._loaded.tower_shared else stage
        if key not in self._states:
            start = time.perf_counter()
            with self._loaded.use(stage) as model:
                states = self._states[key] = model.model.encode_audio(self._features, self.mask)
            if states.is_cuda:
                torch.cuda.synchronize(states.device)  # for the time of the stage
            self.seconds += time.perf_counter() - start
        return self._states[key]

    def take(self, rows: Sequence[int]) -> Hearing:
        """Some of the audios, with what the tower has made of them already; its time and runs count from 0 there."""
        taken = copy.copy(self)
        taken._features, taken.mask = self._features[rows], self.mask[rows]
        taken._states = {key: states[rows] for key, states in self._states.items()}
        taken.seconds = 0.0
        return taken

    def speech(self, stage: str) -> tuple[Tensor, Tensor]:
        """Speech embeddings (A, T, D) as the language model sees them with that stage's adapter, and mask (A, T)."""
        states = self.states(stage)
        with self._loaded.use(stage) as model:
            return model.model.get_speech_features(None, self.mask, states)

    def letters(self, stage: str) -> tuple[Tensor, Tensor]:
        """What the spotter hears with that stage's adapter: log probabilities (A, T, symbols) and mask (A, T)."""
        speech, mask = self.speech(stage)
        with self._loaded.use(stage) as model:
            return model.model.spotter(speech, mask), mask

    def queries(self, stage: str, tokens: np.ndarray) -> TokenQueries:
        """Token ids (U,) as the retriever of that stage's adapter looks for them."""
        with self._loaded.use(stage) as model:
            ids = torch.from_numpy(tokens).to(self._loaded.device)
            return model.model.retriever.prepare(model.model.get_input_embeddings()(ids))

    def token_odds(self, stage: str, tokens: TokenQueries) -> np.ndarray:
        """What the retriever finds with that stage's adapter: log odds (A, U) that each token is spoken."""
        speech, mask = self.speech(stage)
        with self._loaded.use(stage) as model:
            logits = model.model.retriever.find(tokens, speech, mask)
        return (logits[..., 1] - logits[..., 0]).cpu().numpy()

    def embed(self, stage: str, encoder: Encoder, prompts: Sequence[Prompt]) -> list[EmbeddedPrompt]:
        """The prompts of a stage, one for each audio, with speech and pooled context in the place of their tokens."""
        inputs = encoder.collate(prompts, self._loaded.device)
        ids = inputs["input_ids"]
        inputs |= {"audio_hidden_states": self.states(stage), "feature_attention_mask": self.mask}
        with self._loaded.use(stage) as model:
            embeddings = model.model.embed(ids, Audios.take_from(inputs))
        return [
            EmbeddedPrompt(prompt.input_ids, row[-len(prompt.input_ids) :])
            for prompt, row in zip(prompts, embeddings, strict=True)
        ]


class Asker:
    """Writes prompts, embeds them and has an engine reply.

    Args:
        encoder: makes token ids.
        engine: generates.
        systems: the system prompt of each stage.
        writings: how each stage is told the keywords.
        max_new_tokens: longest reply.
    """

    def __init__(
        self,
        encoder: Encoder,
        engine: Engine,
        systems: dict[str, str],
        writings: dict[str, Writing],
        max_new_tokens: int,
    ):
        self.encoder = encoder
        self.engine = engine
        self.systems = systems
        self.writings = writings
        self.max_new_tokens = max_new_tokens

    def first_prompt(self, stage: str, job: Job, audio_tokens: int) -> Prompt:
        """The prompt of the first stage, which a row may have written itself.

        Raises:
            InputError: what is wrong with it.
        """
        content = self._content(stage, job.keywords, job.content)
        system = job.system if job.system is not None else self.systems[stage]
        return self.encoder.prompt(content, system, audio_tokens)

    def ask(self, stage: str, hearing: Hearing, utterances: Sequence[Utterance]) -> list[Reply]:
        """Put the stage's question about each utterance of the batch; note and return the replies.

        Raises:
            InputError: a keyword list is too long for the model.
        """
        embedded = hearing.embed(stage, self.encoder, [self.prompt(stage, utterance) for utterance in utterances])
        replies = self.engine.generate(stage, embedded, min(map(self.room, embedded)))
        for utterance, reply in zip(utterances, replies, strict=True):
            utterance.note(stage, reply)
        return replies

    def stream(self, stage: str, hearing: Hearing, utterance: Utterance) -> Generator[str, None, Reply]:
        """Put the stage's question about the one utterance; the reply's text in pieces, then the noted reply.

        Raises:
            InputError: the keyword list is too long for the model.
        """
        (embedded,) = hearing.embed(stage, self.encoder, [self.prompt(stage, utterance)])
        reply = yield from self.engine.stream(stage, embedded, self.room(embedded))
        utterance.note(stage, reply)
        return reply

    def room(self, prompt: EmbeddedPrompt) -> int:
        """The longest reply to that prompt."""
        return min(self.max_new_tokens, self.encoder.max_length - len(prompt.input_ids))

    def prompt(self, stage: str, utterance: Utterance) -> Prompt:
        """The stage's question. That of the first is encoded already; the next one's depends on what stage one picked.

        Raises:
            InputError: the keyword list is too long for the model.
        """
        prompt, utterance.prompt = utterance.prompt, None
        if prompt is None:
            content = self._content(stage, utterance.keywords, None)
            prompt = self.encoder.prompt(content, self.systems[stage], utterance.heard.tokens)
        utterance.content = prompt.content
        return prompt

    def _content(self, stage: str, keywords: Sequence[str], given: str | None) -> str:
        content = given if given is not None else stage_content(stage, keywords)
        return rewrite_contexts(content, self.writings[stage])
