"""The model: upstream's numbers where there is no context, and the same row whatever stands beside it."""

from __future__ import annotations

import pytest
import torch
from model_rows import AUDIO, NEW_TOKENS, ROWS, assert_rows_as_alone, context, labels_of, same_tensors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2AudioProcessor

from sap2.errors import InputError


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
    assert_rows_as_alone(model, encode, side)


def test_what_padding_holds_does_not_matter(model, encode):
    batch = encode(ROWS)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["context_input_ids"][other["context_keyword_numbers"] == 0] = 65
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**other).logits)


def test_without_a_context_mask_all_is_valid(model, encode):
    inputs = encode([ROWS[0]])
    with torch.no_grad():
        masked = model(**inputs).logits
        del inputs["context_keyword_numbers"]
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
    for name in ("context_input_ids", "context_keyword_numbers"):
        inputs[name] = inputs[name][:1]
    with pytest.raises(ValueError, match="context_input_ids has 1 rows and there are 2 audios; allowed: one row"):
        model(**inputs)


def test_placeholders_without_anything_to_fill_them_are_refused(model, encode):
    """A batch whose context or audio got lost on the way must not run on placeholders."""
    inputs = encode([ROWS[0]])
    without_context = {name: tensor for name, tensor in inputs.items() if not name.startswith("context_")}
    with pytest.raises(ValueError, match=r"input_ids has \d+ context placeholders, but there are 0 context embeddings"):
        model(**without_context)


@pytest.mark.parametrize("training", [False, True])
def test_audio_placeholders_without_audio_are_refused(model, encode, training):
    inputs = {name: tensor for name, tensor in encode([ROWS[2]]).items() if "feature" not in name}
    message = r"input_ids has \d+ audio placeholders, but there are 0 audio embeddings"
    with pytest.raises(ValueError, match=message):
        model.train(training)(**inputs)
    with pytest.raises(ValueError, match=message):
        model.eval().generate(**inputs, max_new_tokens=1)


def test_prompts_are_not_read_in_chunks(model, encode):
    with pytest.raises(InputError, match=r"prefill_chunk_size would part a prompt .*; allowed: None"):
        model.generate(**encode([ROWS[0]]), max_new_tokens=1, prefill_chunk_size=8)


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
