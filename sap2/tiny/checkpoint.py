"""A complete Qwen2-Audio checkpoint with about 1.3 million random weights, of the unchanged upstream architecture.

Everything but the sizes is as in ``Qwen/Qwen2-Audio-7B-Instruct``: files, names of the tensors, names of the special
tokens, chat template, spare rows in the embedding. Two things are made for learning on a CPU:

- the tokenizer is byte-level without merges, so that any text encodes and a letter is one token (what is heard is
  spelled), but each fixed phrase of the prompts (:mod:`sap2.prompts`) is one token instead of a hundred letters;
- the model hears 8 s instead of 30 s, which costs a quarter.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sap2 import prompts
from sap2.errors import InputError
from sap2.files import atomic_folder

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, Qwen2Tokenizer

WIDTH = 128
TEXT_LAYERS = 4
AUDIO_LAYERS = 3
MEL_BINS = 128
AUDIO_SECONDS = 8
"""The longest audio the tiny model hears."""
MEL_FRAMES_PER_POSITION = 2  # the second convolution of the encoder halves the 100 mel frames of a second
AUDIO_POSITIONS = AUDIO_SECONDS * 100 // MEL_FRAMES_PER_POSITION
VOCABULARY_ROWS = 384
"""Rows of the embedding. More than the tokenizer's tokens, as in the real model, so that added tokens fit."""

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    prompts.IM_START,
    prompts.IM_END,
    prompts.AUDIO_TOKEN,
    prompts.AUDIO_BOS,
    prompts.AUDIO_EOS,
)
MARKER = "config.json"


def make_tiny(folder: str | os.PathLike[str], seed: int = 0, overwrite: bool = False) -> Path:
    """Write a tiny Qwen2-Audio checkpoint to ``folder``; the same seed gives the same bytes.

    Returns:
        The folder: config, generation config, ``model.safetensors`` with the names of the hub's checkpoint, tokenizer,
        feature extractor, processor and chat template.

    Raises:
        InputError: the folder holds something, and is not a checkpoint or ``overwrite`` is off; or the seed is
            out of range.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; allowed: 0 to 2**63 - 1")
    with atomic_folder(folder, MARKER, overwrite) as new:
        processor = build_processor()
        model = build_model(processor.tokenizer, seed)
        write_checkpoint(new, processor, model, hub_names(model.state_dict()))
    return Path(folder)


def write_checkpoint(
    folder: Path,
    processor: Qwen2AudioProcessor,
    model: Qwen2AudioForConditionalGeneration,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """The files of a published checkpoint: what ``processor`` and ``model`` are, and these weights by their names."""
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_weights(folder / "model.safetensors", weights)


def write_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """A safetensors file, the same bytes for the same weights."""
    from safetensors.torch import save

    content = {name: tensor.contiguous() for name, tensor in sorted(weights.items())}
    path.write_bytes(save(content, metadata={"format": "pt"}))  # save_file would make it readable to its owner only


def build_processor() -> Qwen2AudioProcessor:
    """Tokenizer, feature extractor and upstream's chat template."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BINS, chunk_length=AUDIO_SECONDS, return_attention_mask=True, padding_side="right"
    )
    return Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=build_tokenizer())


def build_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's byte-level tokenizer with an empty list of merges: 256 bytes, special tokens, phrases of the prompts."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={character: index for index, character in enumerate(alphabet)},
        merges=[],
        unk_token=END_OF_TEXT,
        eos_token=prompts.IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=8192,
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in prompt_phrases()])
    return tokenizer


def prompt_phrases() -> list[str]:
    """The fixed phrases of prompts and replies, without the spaces around them."""
    templates = (prompts.PRUNE_PROMPT, prompts.ASR_PROMPT, prompts.PLAIN_ASR_PROMPT, prompts.JOINT_PROMPT)
    reply_parts = prompts.JOINT_REPLY.format(keywords="\0", transcript="\0").split("\0")
    phrases = [prompts.DEFAULT_SYSTEM, *(template.replace("{context}", "") for template in templates), *reply_parts]
    return list(dict.fromkeys(phrase.strip(" .\n") for phrase in phrases if phrase.strip(" .\n")))


def build_config(tokenizer: Qwen2Tokenizer) -> Qwen2AudioConfig:
    """The sizes. Dropout is 0: a model this small underfits."""
    from transformers import Qwen2AudioConfig

    end_of_text, im_end = tokenizer.convert_tokens_to_ids([END_OF_TEXT, prompts.IM_END])
    text = {
        "model_type": "qwen2",
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.05,
        "bos_token_id": end_of_text,
        "eos_token_id": im_end,
        "pad_token_id": end_of_text,
        "tie_word_embeddings": False,
    }
    audio = {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": MEL_BINS,
        "d_model": WIDTH,
        "encoder_layers": AUDIO_LAYERS,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 3 * WIDTH,
        "max_source_positions": AUDIO_POSITIONS,
        "initializer_range": 0.05,
    }
    return Qwen2AudioConfig(
        text_config=text,
        audio_config=audio,
        audio_token_index=tokenizer.convert_tokens_to_ids(prompts.AUDIO_TOKEN),
        architectures=["Qwen2AudioForConditionalGeneration"],
        dtype="float32",
    )


def build_model(tokenizer: Qwen2Tokenizer, seed: int = 0) -> Qwen2AudioForConditionalGeneration:
    """Upstream's model with random float32 weights drawn from ``seed``; the caller's random state is untouched."""
    import torch
    from transformers import GenerationConfig, Qwen2AudioForConditionalGeneration
    from transformers.models.whisper.modeling_whisper import sinusoids

    config = build_config(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config)
    positions = model.model.audio_tower.embed_positions.weight
    positions.data.copy_(sinusoids(*positions.shape))  # fixed, as in Whisper
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=256,
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=[config.text_config.eos_token_id, config.text_config.bos_token_id],
        pad_token_id=config.text_config.pad_token_id,
    )
    return model.eval()


def hub_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a model in memory to the names that the published checkpoints have on disk.

    transformers' own ``save_pretrained`` writes ``language_model.model.model.…`` for this class instead.
    """
    from sap2.model.weights import HUB_NAMES

    renames = {f"{model}.": f"{hub}." for hub, model in HUB_NAMES.items()}
    renamed = {}
    for name, tensor in state.items():
        prefix = next((prefix for prefix in renames if name.startswith(prefix)), None)
        if prefix is None:
            raise InputError(f"weight {name!r} has no name in the published checkpoints; known: {', '.join(renames)}")
        renamed[renames[prefix] + name.removeprefix(prefix)] = tensor
    return renamed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sap2 make-tiny``."""
    parser.add_argument("folder", metavar="DIR", help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it holds a checkpoint")


def run(args: argparse.Namespace) -> None:
    """``sap2 make-tiny``."""
    folder = make_tiny(args.folder, args.seed, args.overwrite)
    print(f"{folder}: a tiny Qwen2-Audio with random weights (seed {args.seed}), hears {AUDIO_SECONDS} s")
