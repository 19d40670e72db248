"""The model: upstream's weights and numbers where there is no context, and the same row whatever stands beside it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from sap2 import (
    SAP2Qwen2AudioConfig,
    SAP2Qwen2AudioForConditionalGeneration,
    SAP2Qwen2AudioModel,
    SAP2Qwen2AudioProcessor,
)
from sap2.errors import InputError
from sap2.prompts import AUDIO_BOS, AUDIO_EOS, AUDIO_TOKEN, CONTEXT_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT

AUDIO = f"{AUDIO_BOS}{AUDIO_TOKEN}{AUDIO_EOS}"
TEXT_PREFIX = r"model\.language_model\."


def context(keywords):
    return f"{START_OF_CONTEXT}{keywords}{END_OF_CONTEXT}"


# (text, indices of its audios): none, one and several audios, with and without contexts, of many lengths
ROWS = [
    (f"{AUDIO}{context('emily, wozniak, macintosh')} transcribe", [0]),
    ("no audio at all", []),
    (f"{AUDIO} no context", [1]),
    (f"{AUDIO} one {AUDIO}{context('delta')} two {AUDIO}{context('a, b')}", [2, 0, 1]),
    (f"{AUDIO}{context('')} an empty context", [2]),
    (f"{AUDIO}{context('x')}", [1]),
]
NEW_TOKENS = 4


@pytest.fixture(scope="module")
def upstream(tiny):
    return Qwen2AudioForConditionalGeneration.from_pretrained(tiny).eval()


@pytest.fixture(scope="module")
def shared_model(tiny):
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).eval()


@pytest.fixture
def model(shared_model):
    """The tiny model, as loaded, in evaluation mode."""
    yield shared_model
    shared_model.eval().zero_grad()


@pytest.fixture(scope="module")
def processor(tiny):
    return SAP2Qwen2AudioProcessor.from_pretrained(tiny)


@pytest.fixture
def encode(processor, speeches):
    """Inputs of a list of rows, as (text, indices of its audios)."""

    def encode(rows, side="right"):
        processor.tokenizer.padding_side = side
        audios = [speeches[index] for _, indices in rows for index in indices]
        return processor(text=[text for text, _ in rows], audio=audios or None, padding=True, return_tensors="pt")

    return encode


def labels_of(inputs, from_position=3):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :from_position] = -100
    return labels


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- weights


def test_every_tensor_of_a_hub_checkpoint_is_in_place(tiny, model, upstream):
    on_disk = load_file(tiny / "model.safetensors")
    assert "language_model.model.embed_tokens.weight" in on_disk and "language_model.lm_head.weight" in on_disk
    assert same_tensors(model.state_dict(), upstream.state_dict())
    assert len(on_disk) == len(model.state_dict())
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


def test_loading_report_is_clean(tiny):
    _, info = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, output_loading_info=True)
    assert not any(info.get(name) for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def changed_checkpoint(tiny, folder, change):
    shutil.copytree(tiny, folder)
    weights = load_file(tiny / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


LAYER = "language_model.model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(LAYER), r"1 missing \(model\.language_model\.layers\.1\.mlp\.up_proj\.weight\)"),
        (lambda w: w.pop("language_model.lm_head.weight"), r"1 missing \(lm_head\.weight\)"),
        (lambda w: w.pop("audio_tower.conv1.bias"), r"1 missing \(model\.audio_tower\.conv1\.bias\)"),
        (lambda w: w.pop("multi_modal_projector.linear.weight"), r"1 missing \(model\.multi_modal_projector\.linear"),
        (lambda w: w.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda w: w.update({LAYER + "s": w.pop(LAYER)}), r"1 missing \(.*\); 1 unexpected \(.*up_proj\.weights\)"),
        (lambda w: w.update({LAYER: torch.zeros(3, 5)}), r"1 of another shape \(model.*up_proj\.weight\)"),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("language_model.")],
            r"\d\d missing \(lm_head\.weight, .*, …\)",
        ),
    ],
    ids=["layer", "head", "tower", "projector", "extra", "renamed", "shape", "language-model"],
)
def test_a_checkpoint_with_other_tensors_is_refused(tiny, tmp_path, change, message):
    folder = changed_checkpoint(tiny, tmp_path / "changed", change)
    with pytest.raises(InputError, match=message) as caught:
        SAP2Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "allowed: every tensor" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_saved_under_the_names_of_the_hub(tiny, model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert same_tensors(load_file(tmp_path / "model.safetensors"), load_file(tiny / "model.safetensors"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "sap_qwen2_audio"
    assert config["architectures"] == ["SAP2Qwen2AudioForConditionalGeneration"]
    again = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert same_tensors(again.state_dict(), model.state_dict())
    assert again.config.sap_context_token_id == processor.context_token_id


def test_auto_classes(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is SAP2Qwen2AudioConfig
    for auto_class in (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForMultimodalLM):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is SAP2Qwen2AudioForConditionalGeneration
        assert same_tensors(loaded.state_dict(), model.state_dict())
    assert isinstance(AutoModel.from_config(model.config), SAP2Qwen2AudioModel)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is SAP2Qwen2AudioProcessor


def test_settings_of_the_checkpoint_reach_the_layer(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(
        tmp_path, sap_window_size=8, sap_pooling="mean", sap_num_heads=2
    )
    layer = loaded.model.context_pooling
    assert (layer.window_size, layer.pooling, layer.num_heads) == (8, "mean", 2)
    loaded.save_pretrained(tmp_path / "again")
    assert SAP2Qwen2AudioConfig.from_pretrained(tmp_path / "again").sap_window_size == 8


def test_tokens_that_do_not_fit_the_embedding_are_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "full")
    config = json.loads((folder / "config.json").read_text())
    tokens = len(Qwen2AudioProcessor.from_pretrained(tiny).tokenizer)
    config["text_config"]["vocab_size"] = tokens + 2
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        weights[name] = weights[name][: tokens + 2].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (SAP2Qwen2AudioProcessor.from_pretrained, SAP2Qwen2AudioForConditionalGeneration.from_pretrained):
        with pytest.raises(InputError, match=rf"need ids up to {tokens + 2}, but the token embedding has {tokens + 2}"):
            load(folder)


# --- numbers


@pytest.mark.parametrize("side", ["right", "left"])
def test_without_context_logits_are_upstreams(tiny, model, upstream, encode, speeches, side):
    """Upstream's model on the inputs of upstream's processor, bit for bit."""
    rows = [ROWS[2], (f"{AUDIO}{AUDIO} two", [0, 2]), ROWS[1]]
    theirs = Qwen2AudioProcessor.from_pretrained(tiny)
    theirs.tokenizer.padding_side = side
    audios = [speeches[index] for _, indices in rows for index in indices]
    their_inputs = theirs(text=[text for text, _ in rows], audio=audios, padding=True, return_tensors="pt")
    our_inputs = encode(rows, side)
    assert same_tensors(dict(our_inputs), dict(their_inputs))
    with torch.no_grad():
        ours, expected = model(**our_inputs).logits, upstream(**their_inputs).logits
    assert torch.equal(ours, expected)


def test_without_audio_logits_are_upstreams(model, upstream, encode):
    inputs = encode([ROWS[1]])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, upstream(**inputs).logits)


def test_generation_without_context_is_upstreams(model, upstream, encode):
    inputs = encode([ROWS[2]])
    arguments = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": -1}
    assert torch.equal(model.generate(**inputs, **arguments), upstream.generate(**inputs, **arguments))


def test_the_context_is_pooled_speech_and_context(model, encode, speeches):
    """What the language model gets: written out here, step by step, for one row."""
    text, audios = ROWS[0]
    inputs = encode([(text, audios)])
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
        hook.remove()
        embed = model.get_input_embeddings()
        speech, mask = model.model.get_speech_features(inputs["input_features"], inputs["feature_attention_mask"])
        pooled, _ = model.model.context_pooling(speech, embed(inputs["context_input_ids"]), mask)
    ids, embeds = inputs["input_ids"][0], seen["inputs_embeds"][0]
    is_audio, is_context = ids == model.config.audio_token_id, ids == model.config.sap_context_token_id
    assert torch.equal(embeds[is_audio], speech[0][mask[0]])
    assert torch.equal(embeds[is_context], pooled[0])
    assert torch.equal(embeds[~is_audio & ~is_context], embed(ids)[~is_audio & ~is_context])
    assert is_context.sum() == -(-inputs["context_input_ids"].shape[1] // 2)
    seconds = len(speeches[0]) / 16_000
    assert abs(is_audio.sum().item() - 25 * seconds) < 2


def test_context_and_speech_change_the_reply(model, encode):
    def last_logits(rows):
        with torch.no_grad():
            return model(**encode(rows)).logits[0, -1]

    reference = last_logits([(f"{AUDIO}{context('emily')} x", [0])])
    assert not torch.allclose(last_logits([(f"{AUDIO}{context('amily')} x", [0])]), reference)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_of_a_mixed_batch_equals_the_row_alone(model, encode, side):
    batch = encode(ROWS, side)
    with torch.no_grad():
        together = model(**batch).logits
        for index, row in enumerate(ROWS):
            valid = together[index][batch["attention_mask"][index] == 1]
            torch.testing.assert_close(valid, model(**encode([row])).logits[0], atol=2e-5, rtol=1e-4)


def test_what_padding_holds_does_not_matter(model, encode):
    batch = encode(ROWS)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["context_input_ids"][other["context_attention_mask"] == 0] = 65
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**other).logits)


def test_without_a_context_mask_all_is_valid(model, encode):
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        masked = model(**inputs).logits
        del inputs["context_attention_mask"]
        assert torch.equal(model(**inputs).logits, masked)


@pytest.mark.parametrize(("kind", "field"), [("audio", "audio_token_id"), ("context", "sap_context_token_id")])
def test_counts_are_checked(model, encode, kind, field):
    inputs = encode([ROWS[0], ROWS[2]])
    is_placeholder = inputs["input_ids"] == getattr(model.config, field)
    count = int(is_placeholder.sum())
    inputs["input_ids"][tuple(is_placeholder.nonzero()[0])] = 65
    message = f"input_ids has {count - 1} {kind} placeholders, but there are {count} {kind} embeddings"
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_one_context_row_for_each_audio(model, encode):
    inputs = encode([ROWS[0], ROWS[2]])
    for name in ("context_input_ids", "context_attention_mask"):
        inputs[name] = inputs[name][:1]
    with pytest.raises(ValueError, match="context_input_ids has 1 rows and there are 2 audios; allowed: one row"):
        model(**inputs)


def test_placeholders_without_anything_to_fill_them_are_refused(model, encode):
    """A batch whose context or audio got lost on the way must not run on placeholders."""
    inputs = encode([ROWS[0]])
    without_context = {name: tensor for name, tensor in inputs.items() if not name.startswith("context_")}
    with pytest.raises(ValueError, match=r"input_ids has \d+ context placeholders, but there are 0 context embeddings"):
        model(**without_context)


def test_a_context_needs_the_id_of_its_placeholder(model, encode, monkeypatch):
    monkeypatch.setattr(model.config, "sap_context_token_id", None)
    model(**encode([ROWS[2]]))
    with pytest.raises(ValueError, match=r"sap_context_token_id is None; allowed: the tokenizer's id of <\|context"):
        model(**encode([ROWS[0]]))


# --- loss


def test_loss_is_the_mean_over_the_labels(model, encode):
    inputs = encode(ROWS)
    labels = labels_of(inputs)
    output = model(**inputs, labels=labels)
    log_probs = output.logits[:, :-1].log_softmax(-1)
    wanted = labels[:, 1:] != -100
    expected = -log_probs[wanted].gather(-1, labels[:, 1:][wanted].unsqueeze(-1)).mean()
    torch.testing.assert_close(output.loss, expected)
    count = int(wanted.sum())
    torch.testing.assert_close(model(**inputs, labels=labels, num_items_in_batch=2 * count).loss, expected / 2)


def test_padding_side_does_not_change_the_loss(model, encode):
    losses = [model(**inputs, labels=labels_of_reply(inputs)).loss for inputs in (encode(ROWS), encode(ROWS, "left"))]
    torch.testing.assert_close(*losses)


def labels_of_reply(inputs):
    """The last valid three tokens of each row."""
    from_the_end = inputs["attention_mask"].flip(-1).cumsum(-1).flip(-1)
    wanted = (inputs["attention_mask"] == 1) & (from_the_end <= 3)
    return inputs["input_ids"].masked_fill(~wanted, -100)


def test_logits_to_keep(model, encode):
    inputs = encode(ROWS[:1])
    length = inputs["input_ids"].shape[1]
    mask = torch.zeros(length, dtype=torch.bool)
    mask[[2, 5, length - 1]] = True
    with torch.no_grad():
        everything = model(**inputs).logits
        for keep, expected in (
            (0, everything),
            (1, everything[:, -1:]),
            (4, everything[:, -4:]),
            (mask, everything[:, mask]),
            (mask.nonzero().flatten(), everything[:, mask]),
        ):
            torch.testing.assert_close(model(**inputs, logits_to_keep=keep).logits, expected)


def test_loss_with_logits_to_keep_is_the_loss_over_the_kept(model, encode):
    """As ms-swift calls it: the labels of the kept positions only."""
    inputs = encode(ROWS, "left")
    labels = labels_of_reply(inputs)
    full = model(**inputs, labels=labels).loss
    torch.testing.assert_close(model(**inputs, labels=labels[:, -4:], logits_to_keep=4).loss, full)


# --- training


def gradients(model, inputs, **kwargs):
    model.zero_grad()
    model(**inputs, labels=labels_of(inputs), **kwargs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny, encode, reentrant):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).train()
    inputs = encode(ROWS)
    plain = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys() - frozen(model)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_the_context_trains_through_the_speech(model, encode):
    """The loss of a reply reaches the projector through the pooling too: with the speech itself held out of it."""
    model.train()
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        speech, mask = model.model.get_speech_features(inputs["input_features"], inputs["feature_attention_mask"])
    guide = speech.clone().requires_grad_()
    pooled, _ = model.model.pool_contexts(guide, mask, inputs["context_input_ids"], inputs["context_attention_mask"])
    (gradient,) = torch.autograd.grad(pooled.square().sum(), guide)
    assert gradient[mask].abs().sum() > 0 and gradient[~mask].abs().sum() == 0


@pytest.mark.parametrize("rows", [[ROWS[1]], [ROWS[2]], [ROWS[0], ROWS[1]]], ids=["text", "audio", "mixed"])
def test_every_batch_uses_the_same_parameters(model, encode, rows):
    """Or the ranks of a distributed run wait for each other forever."""
    model.train()
    found = gradients(model, encode(rows))
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if rows == [ROWS[1]]:
        touched = [gradient for name, gradient in found.items() if not re.match(f"{TEXT_PREFIX}|lm_head", name)]
        assert len(touched) > 10 and all(gradient.abs().sum() == 0 for gradient in touched)


def test_silence_changes_no_number(model, encode):
    """The pass of a batch without audio through the tower is for the ranks alone."""
    inputs = encode([ROWS[1]])
    with torch.no_grad():
        assert torch.equal(model.train()(**inputs).logits, model.eval()(**inputs).logits)


@pytest.mark.parametrize("rows", [ROWS, [ROWS[1]]], ids=["mixed", "text"])
def test_bfloat16(tiny, encode, rows):
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, dtype=torch.bfloat16).train()
    inputs = encode(rows)
    output = model(**inputs, labels=labels_of(inputs))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    precise = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).train()
    torch.testing.assert_close(output.loss.float(), precise(**inputs, labels=labels_of(inputs)).loss, atol=0.1, rtol=0)


# --- generation


def replies(model, encode, rows, **kwargs):
    inputs = encode(rows, "left")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, **kwargs)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("arguments", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
def test_batched_generation_equals_one_by_one(model, encode, arguments):
    together = replies(model, encode, ROWS, **arguments)
    alone = [reply for row in ROWS for reply in replies(model, encode, [row], **arguments)]
    assert together == alone
    assert len({tuple(reply) for reply in together}) > 1


def test_generation_without_cache_is_the_same(model, encode):
    assert replies(model, encode, ROWS[2:5], use_cache=False) == replies(model, encode, ROWS[2:5])


def test_generation_equals_repeated_forward(model, encode, processor):
    inputs = dict(encode([ROWS[3]]))
    expected = []
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            token = model(**inputs).logits[:, -1:].argmax(-1)
            expected.append(token.item())
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert replies(model, encode, [ROWS[3]]) == [expected]


def test_speech_and_context_are_used_in_the_first_step_alone(model, encode):
    """They are in the cache then; masks handed on would be expanded and moved in each step for nothing."""
    names = ("input_features", "feature_attention_mask", "context_input_ids", "context_attention_mask")
    steps = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: steps.append([kwargs.get(name) is not None for name in names]), with_kwargs=True
    )
    try:
        replies(model, encode, ROWS)
    finally:
        hook.remove()
    assert steps == [[True] * 4] + [[False] * 4] * (NEW_TOKENS - 1)


# --- cost


class Counter(TorchDispatchMode):
    """Counts operations, and those that make the host wait for the device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.operations = self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        name = func.overloadpacket.__name__
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.waits += name in self.WAITING or by_mask
        return func(*args, **(kwargs or {}))


def count(model, inputs, monkeypatch):
    """Operations and waits of a forward pass; ``tolist`` and ``cpu`` do not pass the dispatcher as a wait."""
    copies = []
    with monkeypatch.context() as patch, torch.no_grad(), Counter() as counter:
        for name in ("tolist", "cpu", "numpy"):
            original = getattr(torch.Tensor, name)
            patch.setattr(torch.Tensor, name, lambda self, f=original: (copies.append(1), f(self))[1])
        model(**inputs)
    return counter.operations, counter.waits + len(copies)


def test_no_loop_over_samples_or_tokens(model, encode, monkeypatch):
    row = ROWS[3]
    few, _ = count(model, encode([row] * 2), monkeypatch)
    many, _ = count(model, encode([row] * 8), monkeypatch)
    longer, _ = count(model, encode([(row[0].replace("delta", "delta" * 21), row[1])] * 2), monkeypatch)
    assert few == many == longer


def test_no_more_waits_for_the_device_than_upstream(model, upstream, encode, monkeypatch):
    without, with_context = encode([ROWS[2]]), encode([ROWS[0], ROWS[2]])
    _, allowed = count(upstream, without, monkeypatch)
    assert allowed > 0, "the count can see upstream's"
    assert count(model, without, monkeypatch)[1] <= allowed
    assert count(model, with_context, monkeypatch)[1] <= allowed


# --- adapters


def test_peft_adapter_survives_saving(tiny, encode, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    targets = r"model\.(language_model\..*\.(q|v)_proj|multi_modal_projector\.linear)"
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)).eval()
    inputs = encode(ROWS)
    with torch.no_grad():
        expected = model(**inputs).logits
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny), tmp_path).eval()
        assert torch.equal(again(**inputs).logits, expected)
        merged = again.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
    loaded = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert same_tensors(loaded.state_dict(), merged.state_dict())
    assert Path(tmp_path, "adapter_model.safetensors").is_file()
    assert replies(loaded, encode, ROWS) == replies(merged, encode, ROWS)


def test_the_placeholder_is_no_word(model, processor):
    assert processor.tokenizer.convert_tokens_to_ids(CONTEXT_TOKEN) == model.config.sap_context_token_id
