"""Greedy decoding by vLLM, which holds the language model in processes of its own and batches requests as they come.

Importing this needs vLLM; :func:`sap2.pipeline.engines.choice.make_engine` sets its environment first.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import tempfile
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import embeds_input
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from sap2.errors import EngineError, InputError
from sap2.pipeline.adapters import AdapterHalves, shared_adapter
from sap2.pipeline.engines.base import EmbeddedPrompt, Reply
from sap2.pipeline.engines.merging import can_merge
from sap2.pipeline.engines.replies import TokenQueue, read_reply, read_stream
from sap2.pipeline.engines.transformers import greedy_config
from sap2.pipeline.engines.vllm_plugin import DRIVER, REASON, language_model_config
from sap2.pipeline.threads import is_chosen, listening_threads

SETTLED = {
    "model": "--model",
    "dtype": "--torch_dtype",
    "max_loras": "the adapters",
    "max_lora_rank": "the adapters",
    **dict.fromkeys(("hf_overrides", "generation_config"), "the model"),
    **dict.fromkeys(("skip_tokenizer_init", "enable_prompt_embeds", "logprobs_mode"), "this engine"),
    "speculative_config": "vLLM, which cannot guess ahead of embedded prompts",
}
"""Arguments of vLLM that are not open to the user, and what settles them."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM allows for its ``max_lora_rank``."""
CPU_CACHE_BYTES = 1 << 30
"""Of the cache of keys and values on a CPU, where ``kv_cache_memory_bytes`` does not say otherwise."""
GPU_SHARE = 0.8
"""Of a GPU's memory for vLLM, the language model included; tower, projector and embedding table live in the rest."""
NEUTRAL = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "min_length": 0}
"""What settings of a generation are where they change nothing, beside None."""
REFUSED = (
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "min_length",
    "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "exponential_decay_length_penalty", "guidance_scale", "watermarking_config", "stop_strings",
)  # fmt: skip
"""Settings of a generation that change what a greedy reply is, and that this engine does not follow."""
SHUTDOWN_SECONDS = 1.0
"""What its processes have to end by themselves; they hold nothing that would be lost."""


class VllmEngine:
    """See :class:`sap2.pipeline.engines.base.ConcurrentEngine`; safe to use from several threads.

    Args:
        model: folder of a checkpoint; vLLM reads the language model from it.
        adapters: the halves of the adapter of each stage; stages without one are left out.
        stages: all stages that may ask. One adapter of all is merged into the weights where they are float32.
        dtype: of the language model.
        tokenizer: reads the replies.
        generation: the model's own settings of a generation.
        positions: of the language model.
        arguments: of vLLM's ``AsyncEngineArgs``, beside those that are settled (:data:`SETTLED`).

    Attributes:
        max_length: positions of a prompt and its reply.

    Raises:
        InputError: an argument that vLLM does not have or that is not open, an adapter or a setting of the generation
            that vLLM cannot follow.
        EngineError: vLLM did not start.
    """

    def __init__(
        self,
        model: str,
        adapters: Mapping[str, AdapterHalves],
        stages: Iterable[str],
        dtype: torch.dtype,
        tokenizer: PreTrainedTokenizerBase,
        generation: GenerationConfig,
        positions: int,
        arguments: Mapping[str, Any],
    ):
        self._tokenizer = tokenizer
        self._generation = greedy_config(generation, tokenizer, 1)
        _check_generation(self._generation)
        merged = shared_adapter({stage: halves.language for stage, halves in adapters.items()}, stages)
        if merged is not None and (dtype != torch.float32 or not can_merge(merged)):
            merged = None
        loras = {stage: halves for stage, halves in adapters.items() if halves.language not in (None, merged)}
        self._loras = {
            stage: LoRARequest(stage, number, halves.language)
            for number, (stage, halves) in enumerate(loras.items(), 1)
        }
        rank = max((halves.rank for halves in loras.values()), default=0)
        settings = _settings(model, dtype, positions, rank, len(loras), arguments)
        settings["hf_overrides"] = functools.partial(language_model_config, merged=merged)
        _share_cores()
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        self._engine: AsyncLLM = self._wait(_start(settings))
        self._close: Callable[[], Any] = weakref.finalize(self, _shutdown, self._engine, self._loop)
        self.max_length: int = self._engine.model_config.max_model_len
        for lora in self._loras.values():
            self._wait(self._load(lora))

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _load(self, lora: LoRARequest) -> None:
        try:
            await self._engine.add_lora(lora)
        except EngineDeadError:
            raise EngineError(DIED) from None
        except Exception as error:  # vLLM hands on what its worker said as a plain Exception
            raise InputError(f"vLLM cannot load the adapter of stage {lora.lora_name}: {_line(error)}") from None

    def generate(self, stage: str, prompts: Sequence[EmbeddedPrompt], max_new_tokens: int) -> list[Reply]:
        """Replies in the order of the prompts."""
        return [future.result() for future in [self.submit(stage, prompt, max_new_tokens) for prompt in prompts]]

    def submit(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Future[Reply]:
        """Ask for a reply, which comes when it comes.

        The future raises :class:`EngineError` where vLLM has died.
        """
        return asyncio.run_coroutine_threadsafe(self._reply(stage, prompt, max_new_tokens), self._loop)

    def stream(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Generator[str, None, Reply]:
        """The text of one reply in pieces, as they come; returns the reply."""
        tokens = TokenQueue()
        task = asyncio.run_coroutine_threadsafe(self._put_tokens(stage, prompt, max_new_tokens, tokens), self._loop)
        try:
            return (yield from read_stream(tokens, self._tokenizer))
        finally:
            task.cancel()  # of a reader that goes away; vLLM then stops generating

    def close(self) -> None:
        """End vLLM's processes."""
        self._close()

    async def _reply(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int) -> Reply:
        kind = RequestOutputKind.FINAL_ONLY
        async with contextlib.aclosing(self._outputs(stage, prompt, max_new_tokens, kind)) as outputs:
            return self._read(await anext(outputs))

    async def _put_tokens(self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int, tokens: TokenQueue) -> None:
        kind = RequestOutputKind.DELTA
        try:
            async with contextlib.aclosing(self._outputs(stage, prompt, max_new_tokens, kind)) as outputs:
                async for output in outputs:
                    tokens.put(output.token_ids, _log_probs(output))
            tokens.end()
        except BaseException as error:
            tokens.end(error)
            raise

    def _read(self, output: CompletionOutput) -> Reply:
        return read_reply(list(output.token_ids), _log_probs(output), self._tokenizer)

    async def _outputs(
        self, stage: str, prompt: EmbeddedPrompt, max_new_tokens: int, kind: RequestOutputKind
    ) -> AsyncGenerator[CompletionOutput, None]:
        embedded = embeds_input(
            prompt.embeddings.detach().cpu(),
            # a repetition penalty looks at them; that none is read in place of its embedding says the mask
            prompt_token_ids=prompt.input_ids,
            is_token_ids=[False] * len(prompt.input_ids),
        )
        sampling = self._sampling(max_new_tokens, kind)
        name, lora = f"{stage} {next(self._numbers)}", self._loras.get(stage)
        try:
            async for output in self._engine.generate(embedded, sampling, name, lora_request=lora):
                yield output.outputs[0]
        except EngineDeadError:
            raise EngineError(DIED) from None

    def _sampling(self, max_new_tokens: int, kind: RequestOutputKind) -> SamplingParams:
        generation = self._generation
        return SamplingParams(
            temperature=0.0,
            max_tokens=max_new_tokens,
            min_tokens=min(generation.min_new_tokens or 0, max_new_tokens),
            repetition_penalty=generation.repetition_penalty or 1.0,
            stop_token_ids=generation.eos_token_id,
            logprobs=0,
            detokenize=False,
            output_kind=kind,
        )


def _log_probs(output: CompletionOutput) -> list[float]:
    chosen = zip(output.token_ids, output.logprobs or [], strict=True)
    return [candidates[token].logprob for token, candidates in chosen]


DIED = "vLLM's engine process has died; what it said is above"


async def _start(settings: Mapping[str, Any]) -> AsyncLLM:
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", prefix="sap2-vllm-") as reason:
        os.environ |= {DRIVER: str(os.getpid()), REASON: reason.name}
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**settings))
        except Exception as error:
            kind = InputError if isinstance(error, (ValueError, TypeError)) else EngineError
            said = reason.read().strip()[:500] or _line(error)
            raise kind(f"vLLM did not start: {said}{_about_memory(said, settings)}") from None
        finally:
            del os.environ[DRIVER], os.environ[REASON]


def _about_memory(said: str, settings: Mapping[str, Any]) -> str:
    """What settles how much memory vLLM takes, where that is what it misses."""
    if "memory" not in said.lower():
        return ""
    names = ("kv_cache_memory_bytes", "gpu_memory_utilization", "max_model_len", "max_num_seqs")
    now = ", ".join(f"{name} {settings[name]}" for name in names if settings.get(name) is not None)
    return f"; its memory is settled by --engine-args, now: {now}"


def _settings(
    model: str, dtype: torch.dtype, positions: int, rank: int, loras: int, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that ``AsyncEngineArgs`` is made with.

    Raises:
        InputError: an argument that it lacks, or that is not open.
    """
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in arguments:
        if name in SETTLED:
            raise InputError(f"--engine-args: {name} is settled by {SETTLED[name]}; allowed: the others of vLLM")
        if name not in known:
            raise InputError(f"--engine-args: vLLM has no argument {name}; allowed: those of its AsyncEngineArgs")
    by_platform: dict[str, Any]
    if current_platform.is_cpu():
        by_platform = {"kv_cache_memory_bytes": CPU_CACHE_BYTES, "enforce_eager": True}
        if not any(arguments.get(f"{kind}_parallel_size", 1) > 1 for kind in ("tensor", "pipeline", "data")):
            from sap2.pipeline.engines.vllm_cpu import SameProcessExecutor

            by_platform["distributed_executor_backend"] = SameProcessExecutor
    else:
        by_platform = {"gpu_memory_utilization": GPU_SHARE}
    if rank > LORA_RANKS[-1]:
        raise InputError(f"an adapter has rank {rank}, and vLLM allows up to {LORA_RANKS[-1]}; merge it into the model")
    lora = {"enable_lora": True, "max_loras": loras, "max_lora_rank": min(r for r in LORA_RANKS if r >= rank)}
    return {
        "model": model,
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": positions,
        "skip_tokenizer_init": True,
        "enable_prompt_embeds": True,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "enable_prefix_caching": False,  # two utterances share little more than the system prompt
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **by_platform,
        **(lora if loras else {}),
        **arguments,
    }


def _share_cores() -> None:
    """On a CPU, leave the engine's cores to it: threads of both on one core wait for each other."""
    if current_platform.is_cpu() and not is_chosen():
        torch.set_num_threads(min(torch.get_num_threads(), listening_threads()))


def _check_generation(config: GenerationConfig) -> None:
    for name in REFUSED:
        value = getattr(config, name, None)
        if value is not None and value != NEUTRAL.get(name) and value != []:
            raise InputError(
                f"generation_config.json has {name} {value!r}, which --engine vllm does not follow; "
                f"allowed: without it, or --engine transformers"
            )


def _shutdown(engine: AsyncLLM, loop: asyncio.AbstractEventLoop) -> None:
    logging.getLogger("vllm").setLevel(logging.CRITICAL)  # it reports the end that is asked for as a failure
    if engine.output_handler is not None:
        loop.call_soon_threadsafe(engine.output_handler.cancel)
    engine.shutdown(timeout=SHUTDOWN_SECONDS)
    engine.shutdown = lambda *_, **__: None  # vLLM calls it again when the interpreter ends, too late for it to work
    loop.call_soon_threadsafe(loop.stop)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
