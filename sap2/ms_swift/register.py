"""Registration with ms-swift: one function for each of its modules that has to be there first."""

from __future__ import annotations

import functools
import sys
from typing import Any

from sap2.model.settings import MODEL_TYPE
from sap2.shipped import check_name, resolve_name


def register_names() -> None:
    """Let ``--model sap2-tiny`` and ``--adapters sap2-tiny-asr`` name the checkpoints of the package.

    Whoever asks ms-swift for the folder of a model or an adapter is answered; args.json keeps the name.
    """

    original = sys.modules["swift.utils.hub_utils"].safe_snapshot_download
    if getattr(original, "resolves_shipped", False):
        return

    @functools.wraps(original)
    def resolve_or_download(model_id_or_path, *args, **kwargs):
        check_name(model_id_or_path)
        return original(resolve_name(model_id_or_path), *args, **kwargs)

    resolve_or_download.resolves_shipped = True
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "swift" and vars(module).get("safe_snapshot_download") is original:
            module.safe_snapshot_download = resolve_or_download


def register_arguments() -> None:
    """Put our flags into the arguments of every command; the module has just been executed and nobody has it yet.

    Where commands have been made from it already (``import sap2`` after ms-swift), their settings are still checked.
    """
    from sap2.errors import install_excepthook
    from sap2.ms_swift.arguments import make_arguments, patch_methods

    module = sys.modules["swift.arguments.base_args.base_args"]
    if module.BaseArguments.__subclasses__():
        patch_methods(module.BaseArguments)
    else:
        module.BaseArguments = make_arguments(module.BaseArguments)
    install_excepthook()


def register_model() -> None:
    """Architecture and model type. The model's code is imported when one is loaded."""
    from swift.model import ModelMeta, MultiModelKeys, register_model, register_model_arch

    arch = MultiModelKeys(
        MODEL_TYPE,
        language_model=["model.language_model", "lm_head"],
        aligner=["model.multi_modal_projector"],
        vision_tower=["model.audio_tower"],
        mlp="model.language_model.layers.{}.mlp",
    )
    register_model_arch(arch, exist_ok=True)
    # ms-swift takes a type for multimodal only if its own list has it, or if told so
    meta = ModelMeta(
        MODEL_TYPE,
        [],
        _make_loader,
        template=MODEL_TYPE,
        model_arch=MODEL_TYPE,
        architectures=["SAP2Qwen2AudioForConditionalGeneration"],
        is_multimodal=True,
        tags=["audio"],
    )
    register_model(meta, exist_ok=True)


def _make_loader(*args: Any, **kwargs: Any) -> Any:
    # not at the registration: the loader's own import of ms-swift may be what it waits for
    from sap2.ms_swift.loader import SAP2ModelLoader

    return SAP2ModelLoader(*args, **kwargs)


_make_loader.default_trust_remote_code = False  # ms-swift asks the class


def register_template() -> None:
    """Chat template: ChatML with Qwen2-Audio's audio tokens. Its code is imported when one is made."""
    from swift.template import register_template
    from swift.template.templates.qwen import QwenTemplateMeta

    register_template(QwenTemplateMeta(MODEL_TYPE, template_cls=_make_template), exist_ok=True)


def _make_template(*args: Any, **kwargs: Any) -> Any:
    from sap2.ms_swift.template import SAP2Qwen2AudioTemplate

    return SAP2Qwen2AudioTemplate(*args, **kwargs)


_make_template.use_model = False  # ms-swift asks the class


def register_engine() -> None:
    """Settings of its adapters and switching among named ones for ms-swift's ``TransformersEngine``."""
    from sap2.ms_swift.engine import patch_engine

    patch_engine(sys.modules["swift.infer_engine.transformers_engine"].TransformersEngine)


def register_infer() -> None:
    """Let ``swift infer --strict false`` skip bad rows."""
    from sap2.ms_swift.skipping import make_infer_skip

    make_infer_skip(sys.modules["swift.pipelines.infer.infer"].SwiftInfer)


def register_training() -> None:
    """Let trainings with a spotter look for transcripts in their rows before they begin."""
    from sap2.ms_swift.transcripts import check_rows_before

    sft = sys.modules["swift.pipelines.train.sft"].SwiftSft
    sft.train = check_rows_before(sft.train)


def register_callback() -> None:
    """Let ``--sap_noise`` know the epoch."""
    from sap2.ms_swift.noise import register_epochs

    module = sys.modules["swift.callbacks.mapping"]
    register_epochs(module.callbacks_map, sys.modules["swift.callbacks.base"].TrainerCallback)


def register_rewards() -> None:
    """WER and B-WER as rewards of GRPO."""
    from sap2.ms_swift import measures

    module = sys.modules["swift.rewards.orm"]
    measures.register_rewards(module.orms, module.ORM)


def register_metric() -> None:
    """WER and B-WER as a metric while training."""
    from swift.metrics.base import EvalMetrics
    from swift.utils import Serializer

    from sap2.ms_swift import measures

    measures.register_metric(sys.modules["swift.metrics.mapping"].eval_metrics_map, EvalMetrics, Serializer)


def register_grpo() -> None:
    """Prompts in the log of GRPO."""
    from sap2.ms_swift.rollouts import log_prompts_as_text

    log_prompts_as_text(sys.modules["swift.rlhf_trainers.grpo_trainer"].GRPOTrainer)


def register_gkd() -> None:
    """Prompts in the log of GKD."""
    from sap2.ms_swift.rollouts import log_prompts_as_text

    log_prompts_as_text(sys.modules["swift.rlhf_trainers.gkd_trainer"].GKDTrainer)
