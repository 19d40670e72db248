"""Flags: ms-swift's ``BaseArguments``, from which the arguments of every command are made, with those of SAP²."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sap2.augment.options import DEFAULT_SHARE, KINDS
from sap2.errors import InputError
from sap2.lengths import SALIENCE_MIN_POSITIONS
from sap2.model.configuration import SAP2Qwen2AudioConfig
from sap2.model.pooling import DEFAULT_POOLING, POOLINGS
from sap2.model.settings import FLAGS, MODEL_TYPE, apply_settings, flag_value, resolve_settings
from sap2.ms_swift.cpu_distributed import patch_accelerate
from sap2.ms_swift.measures import add_solution, choose_metric
from sap2.ms_swift.noise import FLAGS as NOISE_FLAGS
from sap2.ms_swift.noise import check_noise, training_noise
from sap2.ms_swift.parts import train_parts, trained_alone
from sap2.ms_swift.paths import check_checkpoints, check_datasets, write_elsewhere
from sap2.ms_swift.refusals import check_supported
from sap2.shipped import is_here
from sap2.trained import dataset_files, describe_rows

OWN = (*FLAGS, *NOISE_FLAGS, "sap_truncate_audio", "sap_train", "train_type")
"""The arguments that ms-swift does not have."""
PROMPT_TRAINERS = {"grpo", "gkd", "ppo"}
"""Types of ``swift rlhf`` that need no reply in a row."""


class _NotGiven(int):
    """False where a flag was not given: the parser takes it for False and shows it so."""

    def __repr__(self) -> str:
        return "False"


def _setting(default_text: str, alias: str | None = None) -> Any:
    """A field for a setting of ours; not in the log of the arguments, where other models would show it too."""
    metadata: dict[str, Any] = {"help": default_text}
    if alias:
        metadata["aliases"] = [alias]
    return field(default=None, metadata=metadata, repr=False)


def make_arguments(base: type) -> type:
    """A subclass of ms-swift's ``BaseArguments`` that takes its place and name.

    For other models nothing changes: what is added leaves no trace in their arguments, and giving it is an error.
    """

    @dataclass
    class BaseArguments(base):
        # true for sap_qwen2_audio, so that no row is dropped in silence, and ms-swift's false for others
        strict: bool = _NotGiven(0)
        train_type: str | None = _setting("of sap_qwen2_audio: --tuner_type, as ms-swift 3 called it")
        # text too, so that what is no number gets one line and not the parser's pages of usage
        sap_window_size: int | str | None = _setting("context tokens that become one embedding (default: 2)")
        sap_min_positions: int | str | None = _setting(
            f"with salience: embeddings that a context is compressed to at least (default: {SALIENCE_MIN_POSITIONS})"
        )
        sap_pooling: str | None = _setting(
            f"how a context is compressed: {', '.join(POOLINGS)} (default: {DEFAULT_POOLING})"
        )
        sap_num_heads: int | str | None = _setting("heads of the pooling layer (default: 4)", "--num_attention_heads")
        sap_hidden_size: int | str | None = _setting(
            "the language model's width, or left out", "--compressor_hidden_size"
        )
        sap_spotter: str | None = _setting(
            "have a keyword spotter and train it on the transcripts (default: only with salience)"
        )
        sap_retriever: str | None = _setting(
            "have a retriever of terms and train it on the spoken keywords (default: false)"
        )
        sap_train: str | None = _setting(
            "what is trained: all (default; --freeze_… choose), or the spotter or the retriever alone, without the "
            "language model"
        )
        sap_truncate_audio: bool | None = _setting(
            "hear the beginning of an audio longer than the model's window instead of refusing it"
        )
        sap_noise: str | None = _setting("add noise to the rows of the training, LOW:HIGH dB below the speech, as 0:20")
        sap_noise_dir: str | None = _setting("recordings of noise, in the layout of MUSAN or any other")
        sap_noise_kinds: str | None = _setting(f"of {','.join(KINDS)} (default: all but speed)")
        sap_noise_share: str | None = _setting(f"part of the rows that get noise (default: {DEFAULT_SHARE})")
        sap_noise_fresh: bool | None = _setting("other noise in every epoch (default: true)")

        def __post_init__(self):
            given = {name: getattr(self, name) for name in OWN if getattr(self, name) is not None}
            flags = {name: flag_value(name, getattr(self, name)) for name in FLAGS}
            strict_is_given = not isinstance(self.strict, _NotGiven)
            if not strict_is_given:
                self.strict = False
            if self.train_type is not None:
                self.tuner_type = _tuner_type(self.train_type, self.tuner_type, base.tuner_type)
            if self.model_type == MODEL_TYPE or given:
                check_checkpoints(self)
            super().__post_init__()
            vars(self).pop("train_type", None)
            if self.model_type == MODEL_TYPE:
                self.strict = self.strict if strict_is_given else True
                finish_arguments(self, flags)
            else:
                refuse_settings(self, given)
                for name in OWN:
                    vars(self).pop(name, None)

    _wrap_methods(BaseArguments)
    BaseArguments.__module__ = base.__module__
    BaseArguments.__qualname__ = base.__qualname__
    BaseArguments.__doc__ = base.__doc__
    return BaseArguments


def _tuner_type(train_type: str, tuner_type: str, default: str) -> str:
    if tuner_type not in {default, train_type}:
        raise InputError(f"--train_type {train_type} and --tuner_type {tuner_type} are one flag; allowed: one of them")
    return train_type


def refuse_settings(args: Any, given: Mapping[str, Any]) -> None:
    """Refuse settings of SAP² for a model that has none: somebody would train for hours what nobody wanted.

    Raises:
        InputError: names the first flag.
    """
    for name, value in given.items():
        raise InputError(
            f"{FLAGS.get(name, f'--{name}')} {value} is a setting of {MODEL_TYPE}, and the model type is "
            f"{args.model_type}; allowed: --model_type {MODEL_TYPE}, or no such flag"
        )


def patch_methods(base: type) -> None:
    """Without our flags (``--external_plugins``): the same checks and settings on ms-swift's own class.

    Does nothing where the class has our flags or was patched before.
    """
    if hasattr(base, "sap_window_size"):
        return
    for name in FLAGS:
        setattr(base, name, None)
    _wrap_methods(base)
    init_model_info = base._init_model_info

    @functools.wraps(init_model_info)
    def checked_model_info(self):
        from sap2.ms_swift.loader import environment_settings

        dtype = init_model_info(self)
        if self.model_type == MODEL_TYPE:
            finish_arguments(self, environment_settings())
        return dtype

    base._init_model_info = checked_model_info


def _wrap_methods(cls: type) -> None:
    """Extend the methods of a ``BaseArguments`` for our model type."""
    get_model_kwargs, init_mixed_precision = cls.get_model_kwargs, cls._init_mixed_precision
    get_template, load_dataset = cls.get_template, cls.load_dataset

    @functools.wraps(get_model_kwargs)
    def kwargs_with_settings(self):
        return {**get_model_kwargs(self), **model_kwargs(self)}

    @functools.wraps(init_mixed_precision)
    def chosen_precision(self):
        if self.model_type == MODEL_TYPE:
            choose_precision(self)
        init_mixed_precision(self)

    @functools.wraps(get_template)
    def counting_template(self, *args, **kwargs):
        if self.model_type == MODEL_TYPE and self.use_chat_template is None:
            self.use_chat_template = True  # an args.json that does not say so; the engine takes None for false
        template = get_template(self, *args, **kwargs)
        if self.model_type == MODEL_TYPE:
            template.accumulated_steps = getattr(self, "gradient_accumulation_steps", None) or 1
            template.train_alone = trained_alone(self)
            template.noise = training_noise(self)
            template.prompts_only = getattr(self, "rlhf_type", None) in PROMPT_TRAINERS
            template.opens_addresses = not hasattr(self, "served_model_name")  # of swift deploy, rollout and app
            if self.strict is False:
                template.count_skipped_rows()
        return template

    @functools.wraps(load_dataset)
    def own_dataset(self):
        datasets = load_dataset(self)
        noise = training_noise(self) if self.model_type == MODEL_TYPE else None
        if noise is not None:
            train, *others = datasets
            datasets = (train if train is None else noise.mark(train), *others)
        if self.model_type != MODEL_TYPE or getattr(self, "rlhf_type", None) != "grpo":
            return datasets
        return tuple(dataset if dataset is None else dataset.map(add_solution) for dataset in datasets)

    cls.load_dataset = own_dataset
    cls.get_model_kwargs = kwargs_with_settings
    cls._init_mixed_precision = chosen_precision
    cls.get_template = counting_template


def finish_arguments(args: Any, flags: dict[str, Any]) -> None:
    """Resolve and check everything of a run with ``sap_qwen2_audio``; the resolved values go to args.json.

    Raises:
        InputError: contradicting or impossible settings, or a backend that would bypass the context.
    """
    patch_accelerate()
    check_supported(args)
    check_noise(args)
    check_datasets(args)
    write_elsewhere(args)
    named = getattr(args, "adapter_mapping", None) or {}  # of swift deploy --adapters name=path
    checkpoints = [
        *(args.adapters or []),
        *named.values(),
        getattr(args, "resume_from_checkpoint", None),
        args.model_dir,
    ]
    alone = trained_alone(args)
    needed = {} if alone is None else {f"sap_{alone}": True}
    settings = resolve_settings({**flags, **needed}, [folder for folder in checkpoints if folder])
    config = apply_settings(SAP2Qwen2AudioConfig.from_pretrained(args.model_dir), settings)
    for name in FLAGS:
        setattr(args, name, getattr(config, name))
    if hasattr(args, "num_train_epochs"):
        record_rows(args)
    _keep_columns("id" if hasattr(args, "result_path") else "transcript")
    train_parts(args)
    choose_metric(args)
    if getattr(args, "check_model", False) and is_here(args.model):
        args.check_model = False  # ms-swift would ask its hub whether a folder of this machine is the latest version


def record_rows(args: Any) -> None:
    """What the rows of a training are goes to args.json, for those who decode with the checkpoint."""
    trained = describe_rows(dataset_files(args.dataset or []))
    if trained is not None:
        args.sap_case, args.sap_stages, args.sap_punctuation = trained


def choose_precision(args: Any) -> None:
    """Train a float32 checkpoint in float32 where there is no accelerator: ms-swift would choose fp16, which DeepSpeed
    refuses on a CPU."""
    if args.torch_dtype == torch.float32 and not torch.accelerator.is_available():
        args.fp16 = bool(args.fp16)
        args.bf16 = bool(args.bf16)


def model_kwargs(args: Any) -> dict[str, Any]:
    """What the loader of ``sap_qwen2_audio`` gets beyond ms-swift's own keyword arguments."""
    if args.model_type != MODEL_TYPE:
        return {}
    settings = {name: getattr(args, name) for name in FLAGS}
    if getattr(args, "sap_truncate_audio", None) is not None:
        settings["sap_truncate_audio"] = args.sap_truncate_audio
    return {"sap_settings": settings}


def _keep_columns(*names: str) -> None:
    """Let columns of the rows through that ms-swift would drop: a row's ``id`` to its result, the ``transcript`` of a
    row whose reply does not hold it to the training of the spotter."""
    from swift.dataset import RowPreprocessor

    new = [name for name in names if name not in RowPreprocessor.standard_keys]
    RowPreprocessor.standard_keys = [*RowPreprocessor.standard_keys, *new]
