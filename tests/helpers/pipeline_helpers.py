"""For the tests of the pipeline: rows, and LoRA adapters on the tiny model made by PEFT in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from sap2.audio import load_samples
from sap2.model.configuration import SAP_FIELDS
from sap2.model.encoder import trim_features
from sap2.model.modeling import SAP2Qwen2AudioForConditionalGeneration
from sap2.model.processing import SAP2Qwen2AudioProcessor
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.stages import stage_content
from sap2.prompts import DEFAULT_SYSTEM as SYSTEM

LLM_AND_PROJECTOR = (
    r"^(model\.language_model.*\.(q_proj|k_proj|v_proj|o_proj|up_proj|gate_proj|down_proj)"
    r"|model\.multi_modal_projector\.linear)$"
)
TOWER_TOO = LLM_AND_PROJECTOR[:-2] + r"|model\.audio_tower.*\.(q_proj|v_proj|fc1))$"


def make_adapter(
    tiny: Path, folder: Path, seed: int = 0, targets: str = LLM_AND_PROJECTOR, learn=None, wavs=(), steps=40, **args
) -> Path:
    """A LoRA checkpoint as ms-swift leaves it (weights, adapter_config.json, args.json).

    ``learn`` is a stage, a keyword list for each of the ``wavs``, and the reply to all; without it the weights are
    random. ``args`` go to args.json.
    """
    torch.manual_seed(seed)
    settings = {name: value for name, value in args.items() if name in SAP_FIELDS}
    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, **settings)
    config = LoraConfig(
        r=8, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=bool(learn)
    )
    model = get_peft_model(base, config)
    if learn:
        compression = {name: value for name, value in settings.items() if name != "sap_num_heads"}
        _train(model.train(), SAP2Qwen2AudioProcessor.from_pretrained(tiny, **compression), *learn, wavs, steps)
    model.save_pretrained(folder)
    recorded = {"swift_version": "4.6.0", "tuner_type": "lora", "model": str(tiny), "template": "sap_qwen2_audio"}
    defaults = {
        "model_type": "sap_qwen2_audio",
        "sap_window_size": 2,
        "sap_pooling": "attention",
        "sap_num_heads": 4,
        "sap_hidden_size": 128,
    }
    content = recorded | defaults | {"torch_dtype": "float32", "use_chat_template": True, "system": None} | args
    (folder / "args.json").write_text(json.dumps(content))
    return folder


def _train(model, processor, stage, lists, reply, wavs, steps):
    encoder = Encoder(processor, 8192)
    heard = [encoder.hear(load_samples(wav, encoder.sampling_rate), wav) for wav in wavs]
    contents = [stage_content(stage, keywords) for keywords in lists]
    prompts = [encoder.prompt(content, SYSTEM, item.tokens) for content, item in zip(contents, heard, strict=True)]
    answer = processor.tokenizer(reply + "<|im_end|>", add_special_tokens=False)["input_ids"]
    full = [prompt._replace(input_ids=prompt.input_ids + answer) for prompt in prompts]
    inputs = encoder.collate(full, torch.device("cpu"))
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -len(answer) :] = inputs["input_ids"][:, -len(answer) :]
    features, mask = torch.stack([item.features for item in heard]), torch.stack([item.mask for item in heard])
    inputs["input_features"], inputs["feature_attention_mask"] = trim_features(features, mask)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3, betas=(0.9, 0.98))
    for _ in range(steps):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    # the random output layer is small: no token gets more than about 0.6
    assert loss.item() < 0.8, loss.item()
