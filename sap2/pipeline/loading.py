"""One base model in memory and an adapter for each stage on it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict

from sap2.errors import InputError
from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.listening import SAP2Qwen2AudioListener
from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
from sap2.model.processing import SAP2Qwen2AudioProcessor
from sap2.model.settings import MODEL_TYPE, apply_settings, resolve_settings
from sap2.pipeline.adapters import shared_adapter, split_adapter
from sap2.pipeline.confidence import WordCalibration
from sap2.pipeline.threads import is_chosen, is_small
from sap2.prompts import DEFAULT_SYSTEM
from sap2.pruning.calibration import Calibration
from sap2.shipped import find_checkpoint, is_adapter
from sap2.spelling import Writing

DTYPES = ("bfloat16", "float16", "float32")
_TOWER = ".audio_tower."


class LoadedModel:
    """A base model and its adapters; :meth:`use` switches between them.

    One adapter of all stages is merged into the weights where they are float32 (in others that would round them).
    A small model on a CPU has torch use one thread (:mod:`sap2.pipeline.threads`), in all of the process.

    Args:
        model: folder or hub name of a Qwen2-Audio or SAP² model.
        adapters: folder of the adapter of each stage; None: the base model alone.
        device: of torch; None: the GPU if there is one.
        dtype: one of :data:`DTYPES`; None: what the adapters were trained with, else the checkpoint's.
        attn_impl: attention implementation of transformers; None: its choice.
        language_model: False leaves it out, with its part of the adapters: the model then hears, pools and embeds, and
            an engine that holds the language model itself generates.

    Attributes:
        model: the base model, in evaluation mode, with the adapters' layers in it, or with the one adapter merged.
        processor: with the tokenizer and the feature extractor.
        systems: the system prompt of each stage.
        tower_shared: whether no adapter changes the audio tower, so that its output serves all stages.
        halves: the two halves of the adapter of each stage, where the language model was left out.
        path: folder or hub name of the model.

    Raises:
        InputError: a folder is not an adapter, the adapters do not fit each other or the model.
    """

    def __init__(
        self,
        model: str,
        adapters: Mapping[str, str | None],
        device: str | None = None,
        dtype: str | None = None,
        attn_impl: str | None = None,
        language_model: bool = True,
    ):
        config, recorded = read_settings(model, adapters)
        model, folders = find_checkpoint(model), _folders(adapters)
        self.path = model
        self.systems = {stage: _system(recorded.get(stage, {})) for stage in adapters}
        whole = {} if folders else _read_json(Path(model) / "args.json")
        self._trained = {stage: recorded.get(stage, whole) for stage in adapters}
        self.processor = SAP2Qwen2AudioProcessor.from_pretrained(
            model,
            sap_window_size=config.sap_window_size,
            sap_min_positions=config.sap_min_positions,
            sap_pooling=config.sap_pooling,
        )
        config.sap_context_token_id = self.processor.context_token_id
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = _choose_dtype(dtype, folders, recorded, config)
        self.halves = {} if language_model else {stage: split_adapter(folder) for stage, folder in folders.items()}
        hearing = {stage: halves.hearing for stage, halves in self.halves.items() if halves.hearing is not None}
        applied = folders if language_model else hearing
        base = (SAP2Qwen2AudioForConditionalGeneration if language_model else SAP2Qwen2AudioListener).from_pretrained(
            model,
            config=config,
            dtype=dtype,
            attn_implementation=attn_impl,
            # straight to the accelerator: the memory of the host need not hold the model
            device_map=None if self.device.type == "cpu" else {"": self.device},
        )
        self._peft: PeftModel | None = None
        self._active: str | None = None
        self._lock = threading.RLock()
        shared = shared_adapter(applied, adapters) if dtype == torch.float32 else None
        for stage, folder in applied.items() if shared is None else [(next(iter(applied)), shared)]:
            self._load_adapter(base, folder, stage)
        self._folders, self._applied = folders, set(applied)
        self.tower_shared = shared is not None or not any(self._changes_tower(stage) for stage in applied)
        if shared is not None:
            base = self._merged()
        self.model = base.to(self.device).eval()
        if self.device.type == "cpu" and not is_chosen() and is_small(config.text_config.hidden_size):
            torch.set_num_threads(1)

    def _load_adapter(self, base: SAP2Qwen2AudioForConditionalGeneration, folder: str, stage: str) -> None:
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(base, folder, adapter_name=stage)
            else:
                self._peft.load_adapter(folder, adapter_name=stage)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"adapter {folder} does not fit the model {base.name_or_path}: {reason}") from None

    def _merged(self) -> SAP2Qwen2AudioForConditionalGeneration:
        assert self._peft is not None
        merged, self._peft = self._peft.merge_and_unload(), None
        return merged

    def _changes_tower(self, stage: str) -> bool:
        return any(
            _TOWER in name
            for name in get_peft_model_state_dict(self._peft, adapter_name=stage, save_embedding_layers=False)
        )

    def writing(self, stage: str, case: str | None = None) -> Writing:
        """How the stage is told its keywords: as the rows of its training had them (:mod:`sap2.trained`), where known.

        Args:
            case: another case, of :data:`sap2.spelling.CASES`; ``keep`` leaves the punctuation too.
        """
        if case == "keep":
            return Writing()
        trained = self._trained.get(stage, {})
        return Writing(case or trained.get("sap_case") or "keep", trained.get("sap_punctuation") == "none")

    def has_adapter(self, stage: str) -> bool:
        """Whether the stage has an adapter of its own."""
        return stage in self._folders

    def has_spotter(self, stage: str) -> bool:
        """Whether the model has a spotter with that stage's adapter, and one that has learnt something."""
        with self.use(stage) as model:
            spotter = model.model.spotter
            return spotter is not None and spotter.is_trained()

    def check_spotter(self, stage: str, what: str) -> None:
        """Refuse what needs the spotter where the model has none, or one that has learnt nothing.

        Raises:
            InputError: says what to train; ``what`` needs it.
        """
        if not self.has_spotter(stage):
            trained = "" if self.model.model.spotter is None else " that is trained"
            raise InputError(
                f"{what} needs a spotter, and {self._folders.get(stage) or self.model.name_or_path} has none{trained}; "
                f"allowed: a checkpoint trained with --sap_spotter true (or --sap_pooling salience)"
            )

    def check_retriever(self, stage: str, what: str) -> None:
        """Refuse what needs the retriever where the model has none, or one that has learnt nothing.

        Raises:
            InputError: says what to train; ``what`` needs it.
        """
        with self.use(stage) as model:
            retriever = model.model.retriever
            if retriever is not None and retriever.is_trained():
                return
        folder = self._folders.get(stage)
        raise InputError(
            f"{what} needs a retriever, and {folder or self.model.name_or_path} has none that is trained; allowed: one "
            f"trained with --sap_train retriever{f' --adapters {folder}' if folder else ''}, or --sap_retriever true"
        )

    def calibration(self, stage: str) -> Calibration:
        """What makes probabilities of the spotter's findings with that stage's adapter: its own, or the general one."""
        folder = self._folders.get(stage)
        return (Calibration.load(folder) if folder else None) or Calibration()

    def word_calibration(self, stage: str) -> WordCalibration:
        """What makes probabilities of what speaks for a word: the adapter's own, or the general one."""
        folder = self._folders.get(stage)
        return (WordCalibration.load(folder) if folder else None) or WordCalibration()

    @contextlib.contextmanager
    def use(self, stage: str) -> Iterator[SAP2Qwen2AudioForConditionalGeneration]:
        """The model as it is for that stage: with its adapter, or the base model where it has none.

        The adapter is a state of the one model, so that other threads wait until the block ends.
        """
        with self._lock:
            if self._peft is None:
                yield self.model
            elif stage in self._applied:
                if self._active != stage:  # peft goes through all modules
                    self._peft.set_adapter(stage, inference_mode=True)
                    self._active = stage
                yield self.model
            else:
                with self._peft.disable_adapter():
                    yield self.model


def read_settings(
    model: str, adapters: Mapping[str, str | None]
) -> tuple[SAP2Qwen2AudioConfig, dict[str, dict[str, Any]]]:
    """The model's configuration with the adapters' settings, and what each adapter's args.json says, by stage.

    Raises:
        InputError: there is no such model or adapter, or they contradict each other.
    """
    if is_adapter(model):
        raise InputError(
            f"--model {model} is an adapter; allowed: a model, and this as --asr-adapter or --prune-adapter"
        )
    model, folders = find_checkpoint(model), _folders(adapters)
    recorded = {stage: _read_args(folder) for stage, folder in folders.items()}
    for stage, args in recorded.items():
        _check_stage(stage, folders[stage], args)
    try:
        config = SAP2Qwen2AudioConfig.from_pretrained(model)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model {model}: not a folder, nor a name of the hub that can be loaded ({reason})") from None
    return apply_settings(config, resolve_settings({}, [*folders.values(), model])), recorded


def settled_dtype(model: str, adapters: Mapping[str, str | None], name: str | None) -> torch.dtype:
    """The number type that a :class:`LoadedModel` of the same arguments will have.

    Raises:
        InputError: as :class:`LoadedModel`.
    """
    config, recorded = read_settings(model, adapters)
    return _choose_dtype(name, _folders(adapters), recorded, config)


def _folders(adapters: Mapping[str, str | None]) -> dict[str, str]:
    return {stage: find_checkpoint(folder) for stage, folder in adapters.items() if folder is not None}


def _read_args(folder: str) -> dict[str, Any]:
    """The args.json that ms-swift wrote beside an adapter ({} without one: made by PEFT alone).

    Raises:
        InputError: not an adapter, or trained with another prompt format than this pipeline writes.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"adapter {folder} does not exist; allowed: the folder of a LoRA checkpoint")
    if not (path / "adapter_config.json").is_file():
        raise InputError(
            f"adapter {folder} has no adapter_config.json; allowed: the folder of a LoRA checkpoint (a merged or fully "
            f"trained model goes to --model)"
        )
    args_path = path / "args.json"
    args = _read_json(args_path)
    expected = {"model_type": (MODEL_TYPE,), "template": (MODEL_TYPE, None), "use_chat_template": (True, None)}
    expected["response_prefix"] = ("", None)
    for name, allowed in expected.items():
        if name in args and args[name] not in allowed:
            raise InputError(f"{args_path}: {name} is {args[name]!r}; allowed: {allowed[0]!r}")
    return args


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def _check_stage(stage: str, folder: str, args: Mapping[str, Any]) -> None:
    """Refuse an adapter for a stage that its training had no rows of, where the checkpoint says which it had."""
    trained = args.get("sap_stages") or []
    if trained and stage not in trained:
        raise InputError(
            f"adapter {folder} was trained on rows of the stage {' and '.join(trained)}, and is given for the stage "
            f"{stage}; allowed: an adapter of that stage (are the two swapped?)"
        )


def _system(args: Mapping[str, Any]) -> str:
    system = args.get("system")
    return DEFAULT_SYSTEM if system is None else system


def _choose_dtype(
    name: str | None, folders: Mapping[str, str], recorded: Mapping[str, Mapping[str, Any]], config: Any
) -> torch.dtype:
    """The flag, or what the adapters were trained with, or the checkpoint's, or the device's."""
    if name is None:
        trained = {folders[stage]: args["torch_dtype"] for stage, args in recorded.items() if args.get("torch_dtype")}
        if len(set(trained.values())) > 1:
            said = ", ".join(f"{value} ({folder})" for folder, value in trained.items())
            raise InputError(f"the adapters were trained in different types: {said}; choose one with --torch_dtype")
        name = next(iter(trained.values()), None)
    if name is not None:
        if name not in DTYPES:
            raise InputError(f"torch_dtype {name!r} is unknown; allowed: {', '.join(DTYPES)}")
        return getattr(torch, name)
    if config.dtype is not None:
        return config.dtype if isinstance(config.dtype, torch.dtype) else getattr(torch, config.dtype)
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32
