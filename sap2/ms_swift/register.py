"""Registration with ms-swift: one function for each of its modules that has to be there first."""

from __future__ import annotations

import sys

from sap2.ms_swift.settings import MODEL_TYPE


def register_arguments() -> None:
    """Put our flags into the arguments of every command; the module has just been executed and nobody has it yet."""
    from sap2.errors import install_excepthook
    from sap2.ms_swift.arguments import make_arguments
    from sap2.ms_swift.cpu_distributed import patch_accelerate

    module = sys.modules["swift.arguments.base_args.base_args"]
    module.BaseArguments = make_arguments(module.BaseArguments)
    patch_accelerate()
    install_excepthook()


def register_model() -> None:
    """Architecture and model type."""
    from swift.model import ModelMeta, MultiModelKeys, register_model, register_model_arch

    from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
    from sap2.ms_swift.loader import SAP2ModelLoader

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
        SAP2ModelLoader,
        template=MODEL_TYPE,
        model_arch=MODEL_TYPE,
        architectures=[SAP2Qwen2AudioForConditionalGeneration.__name__],
        is_multimodal=True,
        tags=["audio"],
    )
    register_model(meta, exist_ok=True)


def register_template() -> None:
    """Chat template: ChatML with Qwen2-Audio's audio tokens."""
    from swift.template import register_template
    from swift.template.templates.qwen import QwenTemplateMeta

    from sap2.ms_swift.template import SAP2Qwen2AudioTemplate

    register_template(QwenTemplateMeta(MODEL_TYPE, template_cls=SAP2Qwen2AudioTemplate), exist_ok=True)


def register_plugin() -> None:
    """Everything for ``--external_plugins``, where ms-swift has read its command line already."""
    from sap2.errors import install_excepthook
    from sap2.ms_swift.arguments import patch_methods
    from sap2.ms_swift.cpu_distributed import patch_accelerate

    register_model()
    register_template()
    patch_methods(sys.modules["swift.arguments.base_args.base_args"].BaseArguments)
    patch_accelerate()
    install_excepthook()
