"""The names of other packages that no documentation promises and that this package is built on.

A new release may move or change any of them, and the result may be wrong text instead of an error. The tests and
``sap2 doctor`` look each of them up: that it exists, and takes the arguments that are handed to it. Whoever adds
such a use adds its line here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple


class Name(NamedTuple):
    """A name ``module:attribute``, the arguments that it must take, and what it is used for."""

    path: str
    arguments: tuple[str, ...]
    why: str


_QWEN2_AUDIO = "transformers.models.qwen2_audio.modeling_qwen2_audio"
_BASE = "swift.arguments.base_args.base_args:BaseArguments"
_ENGINE = "swift.infer_engine.transformers_engine:TransformersEngine"

TRANSFORMERS = (
    Name(
        "transformers.conversion_mapping:register_checkpoint_conversion_mapping",
        ("model_type_or_class_name", "mapping", "overwrite"),
        "checkpoints have the hub's names of the tensors",
    ),
    Name(
        "transformers.core_model_loading:WeightRenaming",
        ("source_patterns", "target_patterns"),
        "one of those renamings",
    ),
    Name(
        "transformers.models.auto.modeling_auto:MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        (),
        "trainers look up there whether smoothed labels are shifted",
    ),
    Name(
        "transformers:PreTrainedModel._adjust_missing_and_unexpected_keys",
        ("loading_info",),
        "a spotter that a plain Qwen2-Audio lacks is no news",
    ),
    Name(
        "transformers:PreTrainedConfig._attn_implementation", (), "what computed the attention before sap2 explain did"
    ),
    Name(f"{_QWEN2_AUDIO}:Qwen2AudioModel", ("config",), "our inner model is one"),
    Name(f"{_QWEN2_AUDIO}:Qwen2AudioPreTrainedModel._init_weights", ("module",), "the spotter has a start of its own"),
    Name(
        f"{_QWEN2_AUDIO}:Qwen2AudioEncoder._get_feat_extract_output_lengths",
        ("input_lengths",),
        "how many embeddings an audio has",
    ),
    Name(
        f"{_QWEN2_AUDIO}:Qwen2AudioEncoder.forward",
        ("input_features", "attention_mask"),
        "short audios run through its parts one by one",
    ),
    Name(
        f"{_QWEN2_AUDIO}:Qwen2AudioEncoderLayer.forward",
        ("hidden_states", "attention_mask"),
        "one of those parts",
    ),
    Name(
        "transformers.masking_utils:create_bidirectional_mask",
        ("config", "inputs_embeds", "attention_mask"),
        "the mask of the audio tower",
    ),
    Name(
        "transformers.generation:GenerationMixin.prepare_inputs_for_generation",
        ("input_ids", "is_first_iteration", "kwargs"),
        "audio and context are used in the first step alone",
    ),
    Name(
        "transformers.generation:GenerationMixin._expand_inputs_for_generation",
        ("expand_size", "is_encoder_decoder", "input_ids"),
        "audios are repeated with the sample that they belong to",
    ),
)
MS_SWIFT = (
    Name("swift.utils.hub_utils:safe_snapshot_download", ("model_id_or_path",), "names of the shipped checkpoints"),
    Name(f"{_BASE}.__post_init__", (), "settings are resolved after it"),
    Name(f"{_BASE}._init_model_info", (), "settings are resolved after it, with --external_plugins"),
    Name(f"{_BASE}._init_mixed_precision", (), "a CPU trains in float32"),
    Name(f"{_BASE}.get_model_kwargs", (), "settings on their way to the loader"),
    Name(f"{_BASE}.get_template", ("processor",), "skipped rows are counted"),
    Name("swift.dataset:RowPreprocessor.standard_keys", (), "columns of a row that are kept"),
    Name("swift.model:ModelMeta", ("model_arch", "architectures", "is_multimodal", "tags"), "the model type"),
    Name("swift.model:register_model", ("exist_ok",), "the model type"),
    Name("swift.model:register_model_arch", ("exist_ok",), "the parts that can be frozen"),
    Name("swift.model:MultiModelKeys", ("language_model", "aligner", "vision_tower"), "the parts that can be frozen"),
    Name("swift.model:ModelLoader.get_config", ("model_dir",), "our configuration"),
    Name("swift.model:ModelLoader.get_processor", ("model_dir", "config"), "our processor"),
    Name("swift.model:ModelLoader.get_model", ("model_dir", "config", "processor", "model_kwargs"), "our model"),
    Name("swift.template:register_template", ("exist_ok",), "the chat template"),
    Name("swift.template.templates.qwen:QwenTemplateMeta", ("template_type", "template_cls"), "the chat template"),
    Name("swift.template:MaxLengthError", (), "a row that is too long"),
    Name("swift.template:Template.init_processor", ("processor",), "placeholders that truncation keeps"),
    Name("swift.template:Template.replace_tag", ("media_type", "index", "inputs"), "where the audio stands"),
    Name("swift.template:Template.encode", ("inputs",), "skipped rows are counted"),
    Name("swift.template:Template._encode_truncated", ("inputs",), "errors name the row"),
    Name("swift.template:Template._truncate", ("input_ids", "labels", "encoded"), "truncation leaves a label"),
    Name("swift.template:Template._preprocess_inputs", ("inputs",), "contexts and audio are read"),
    Name("swift.template:Template._encode", ("inputs",), "placeholders get their lengths"),
    Name(
        "swift.template:Template._extend_tokens",
        ("input_ids", "labels", "loss_scale", "replace_idx_list", "get_new_tokens"),
        "placeholders get their lengths",
    ),
    Name("swift.template:Template._data_collator_mm_data", ("batch",), "audios and contexts of a batch"),
    Name("swift.dataset:LazyLLMDataset", ("dataset", "encode_func"), "looking for transcripts in the rows"),
    Name("swift.template.vision_utils:load_file", ("path",), "audio behind a URL or in base64"),
    Name(f"{_ENGINE}._get_model_processor", ("model_id_or_path",), "settings of an engine's adapters"),
    Name(f"{_ENGINE}._get_adapter_names", ("adapter_request",), "named adapters"),
    Name(f"{_BASE}.load_dataset", (), "GRPO's rows keep their reply, and rows that hear noise have numbers"),
    Name(
        "swift.template:Template.register_post_encode_hook", ("models",), "the spotter's loss in every kind of training"
    ),
    Name("swift.template:Template._rlhf_encode", ("inputs",), "a rejected reply is not what was said"),
    Name("swift.template:Template._kto_encode", ("inputs",), "a rejected reply is not what was said"),
    Name("swift.pipelines.train.sft:SwiftSft.train", ("trainer",), "the spotter needs rows that tell what is said"),
    Name("swift.callbacks.mapping:callbacks_map", (), "noise that is new in every epoch"),
    Name("swift.callbacks.base:TrainerCallback", ("args", "trainer"), "noise that is new in every epoch"),
    Name("swift.rewards.orm:orms", (), "rewards of GRPO"),
    Name("swift.rewards.orm:ORM", ("args",), "rewards of GRPO"),
    Name("swift.metrics.mapping:eval_metrics_map", (), "the metric while training"),
    Name("swift.metrics.base:EvalMetrics", ("args", "trainer"), "the metric while training"),
    Name("swift.utils:Serializer.from_tensor", ("obj",), "the metric while training"),
    Name("swift.pipelines.infer.infer:SwiftInfer._batch_infer", ("val_dataset", "request_config"), "skipping rows"),
)
TRAINERS_THAT_WRITE = (
    Name(
        "swift.rlhf_trainers.grpo_trainer:GRPOTrainer._apply_chat_template_to_messages_list",
        ("messages_list",),
        "prompts in the log of GRPO",
    ),
    Name(
        "swift.rlhf_trainers.gkd_trainer:GKDTrainer._apply_chat_template_to_messages_list",
        ("messages_list",),
        "prompts in the log of GKD",
    ),
)
"""They need the packages of the extra ``rlhf``, so that they are looked up by the tests alone."""
OTHERS = (
    Name("accelerate.state:PartialState._prepare_backend", (), "several processes on a CPU"),
    Name("deepspeed.comm.torch:build_shm_op", (), "several processes on a CPU"),
    Name("peft.tuners.tuners_utils:BaseTuner.inject_adapter", ("model", "adapter_name"), "settings of adapters"),
    Name("peft.config:PeftConfigMixin.save_pretrained", ("save_directory",), "settings of adapters"),
    Name("peft.utils.constants:DUMMY_TARGET_MODULES", (), "an adapter of the spotter alone"),
    Name(
        "peft.utils.other:set_additional_trainable_modules",
        ("model", "peft_config", "model_config", "adapter_name"),
        "an adapter that gets a spotter or a retriever",
    ),
    Name("peft.tuners.tuners_utils:BaseTuner.set_adapter", ("inference_mode",), "one model and several adapters"),
)
EVERYTHING = (*TRANSFORMERS, *MS_SWIFT, *OTHERS)


def complaints(names: Sequence[Name] = EVERYTHING) -> list[str]:
    """What is missing or changed, one line each."""
    return [complaint for name in names if (complaint := _complaint(name))]


def _complaint(name: Name) -> str | None:
    module, _, attributes = name.path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        return f"{name.path} is gone ({error}); it was there for: {name.why}"
    if not name.arguments:
        return None
    taken = inspect.signature(found).parameters
    lost = [argument for argument in name.arguments if argument not in taken]
    return f"{name.path} takes no {', '.join(lost)} any more; needed for: {name.why}" if lost else None
