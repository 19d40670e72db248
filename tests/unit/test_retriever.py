"""The retriever of terms: against torch's own attention, without padding, and on its way through PEFT and files."""

from __future__ import annotations

import copy

import pytest
import torch
from model_rows import ROWS
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.errors import InputError
from sap2.model.adapters import LAYERS
from sap2.model.audios import Audios
from sap2.model.context import tokenize_terms
from sap2.model.retriever import NO_TERM, NO_TOKEN, TermRetriever, retrieval_loss, term_logits
from sap2.ms_swift.parts import train_alone

WIDTH, HEADS = 16, 4


@pytest.fixture
def retriever():
    made = TermRetriever(WIDTH, HEADS).eval()
    torch.manual_seed(0)
    nn.init.normal_(made.presence.weight)
    nn.init.normal_(made.presence.bias)
    return made


def published(retriever, term, speech):
    """Logits of one term (n, D) in one speech (T, D): attention by torch, then the mean over the term's tokens."""
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    layers = (retriever.query, retriever.key, retriever.value)
    attention.in_proj_weight.data = torch.cat([layer.weight for layer in layers])
    attention.in_proj_bias.data = torch.cat([layer.bias for layer in layers])
    attention.out_proj.weight.data, attention.out_proj.bias.data = retriever.output.weight, retriever.output.bias
    queries = retriever.terms(term)
    found = attention(queries[None], speech[None], speech[None])[0][0]
    return retriever.presence(found.mean(0, keepdim=True) + queries).mean(0)


@torch.no_grad()
def test_it_is_the_attention_that_was_published(retriever):
    torch.manual_seed(1)
    table, speech = torch.randn(5, WIDTH), torch.randn(2, 9, WIDTH)
    lengths, terms = (9, 6), ([0, 1, 2], [3], [2, 2, 4, 0])
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    places = nn.utils.rnn.pad_sequence([torch.tensor(term) for term in terms], True, NO_TOKEN).expand(2, -1, -1)
    found = retriever.find(retriever.prepare(table), speech, mask)
    logits = term_logits(found, places.clamp(min=0), places != NO_TOKEN)
    assert found.shape == (2, 5, 2) and logits.shape == (2, 3, 2)
    for audio, length in enumerate(lengths):
        for number, term in enumerate(terms):
            expected = published(retriever, table[term], speech[audio, :length])
            torch.testing.assert_close(logits[audio, number], expected)


@torch.no_grad()
def test_padding_changes_nothing(retriever, monkeypatch):
    torch.manual_seed(2)
    tokens = retriever.prepare(torch.randn(7, WIDTH))
    speech = torch.randn(1, 6, WIDTH)
    alone = retriever.find(tokens, speech, torch.ones(1, 6, dtype=torch.bool))
    padded = torch.cat([speech, 100 * torch.randn(1, 5, WIDTH)], 1)
    mask = torch.arange(11)[None] < 6
    torch.testing.assert_close(retriever.find(tokens, padded, mask), alone)
    monkeypatch.setattr("sap2.model.retriever._CHUNK", 1)
    torch.testing.assert_close(retriever.find(tokens, padded, mask), alone)  # one token at a time


def test_the_loss_is_that_of_all_pairs_whose_answer_is_known():
    torch.manual_seed(3)
    logits = torch.randn(2, 3, 2)
    labels = torch.tensor([[1, 0, NO_TERM], [0, NO_TERM, 1]])
    smooth = {1: (0.05, 0.95), 0: (0.95, 0.05)}
    pairs = [(a, k) for a in range(2) for k in range(3) if labels[a, k] != NO_TERM]
    log_probs = logits.log_softmax(-1)
    expected = sum(-(log_probs[pair] * torch.tensor(smooth[int(labels[pair])])).sum() for pair in pairs) / len(pairs)
    torch.testing.assert_close(retrieval_loss(logits, labels), expected)
    assert retrieval_loss(logits, torch.full((2, 3), NO_TERM)) == 0


@pytest.fixture(scope="module")
def untrained(tiny):
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True)


@pytest.fixture
def batch(encode, processor):
    inputs = dict(encode([ROWS[0], ROWS[2]]))
    ids = [torch.tensor(term) for term in tokenize_terms(processor.tokenizer, ["wozniak", "emily", "machine"])]
    terms = nn.utils.rnn.pad_sequence(ids, True, NO_TOKEN)
    labels = torch.tensor([[1, 1, 0], [1, 0, 1]])
    return {**inputs, "term_input_ids": terms.expand(2, -1, -1), "term_targets": labels}


@pytest.fixture
def model(untrained):
    model = copy.deepcopy(untrained).eval()
    torch.manual_seed(0)
    nn.init.normal_(model.model.retriever.presence.weight)
    return model


def test_it_is_trained_alone_without_the_language_model(model, batch, monkeypatch):
    model.train_alone = "retriever"
    train_alone(model.train(), "retriever")
    monkeypatch.setattr(model.model.language_model, "forward", lambda *a, **k: pytest.fail("ran the language model"))
    output = model(**batch)
    assert output.logits is None and torch.equal(output.loss, output.aux_loss) and output.loss > 0
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (".retriever." in name), name
    # what every key shares changes no softmax
    assert all(p.grad.any() for n, p in model.model.retriever.named_parameters() if n != "key.bias")
    silent = model(**{name: value for name, value in batch.items() if not name.startswith("term_")})
    assert silent.loss == 0 and silent.aux_loss is None
    silent.loss.backward()  # ranks use the same parameters


def test_it_is_trained_along_and_leaves_all_else_as_it_was(model, batch):
    labels = batch["input_ids"].clone()
    plain = {name: value for name, value in batch.items() if not name.startswith("term_")}
    model.model.retriever.requires_grad_(True)
    found = gradients(model, model(**batch, labels=labels).loss)  # no dropout, to compare with
    assert not any(".retriever." in name for name in found)  # not in training mode
    model.train()
    torch.manual_seed(4)
    losses = [model(**inputs, labels=labels) for inputs in (batch, plain)]
    assert torch.equal(losses[0].loss, losses[1].loss) and losses[0].aux_loss > 0 and losses[1].aux_loss is None
    along, without = (gradients(model, output.loss) for output in losses)
    assert along.keys() == without.keys()
    for name, gradient in along.items():
        if ".retriever." in name:
            assert not without[name].any()
        else:
            torch.testing.assert_close(gradient, without[name], msg=name)
    assert along["model.retriever.query.weight"].any()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_an_untrained_one_is_the_same_everywhere_and_gives_every_term_one_half(untrained, tiny, batch):
    other = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True).model.retriever
    assert untrained.lacks == {"sap_retriever"} and not untrained.model.retriever.is_trained()
    weights = untrained.model.retriever.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())
    assert not torch.equal(weights["query.weight"], weights["key.weight"])
    untrained.train_alone = "retriever"
    loss = untrained.eval()(**batch).loss
    untrained.train_alone = None
    torch.testing.assert_close(loss, torch.tensor(2.0).log())
    assert untrained.model.retriever.heads == untrained.config.text_config.num_attention_heads


def test_a_model_with_one_is_saved_and_loaded_and_can_be_left_out(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.sap_retriever and not again.lacks
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    without = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, sap_retriever=False)
    assert without.model.retriever is None
    kept = {n: v for n, v in load_file(tmp_path / "model.safetensors").items() if ".retriever." not in n}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"12 missing \(model\.retriever\."):
        SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)


def test_an_adapter_carries_it(tiny, tmp_path, batch):
    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True)
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=LAYERS["sap_retriever"])
    made = get_peft_model(base, config)
    nn.init.normal_(base.model.retriever.presence.modules_to_save["default"].weight)
    made.save_pretrained(tmp_path)
    fresh = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True)
    again = PeftModel.from_pretrained(fresh, tmp_path).eval()
    for model in (base, fresh):
        model.eval().train_alone = "retriever"
    torch.testing.assert_close(again(**batch).loss, made.eval()(**batch).loss, rtol=0, atol=0)
    plain = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    with pytest.raises(InputError, match="sap_retriever True, and the model has sap_retriever False"):
        PeftModel.from_pretrained(plain, tmp_path)


def test_an_adapter_without_one_that_is_trained_further_gets_one(tiny, tmp_path, batch):
    plain = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)
    get_peft_model(plain, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(tmp_path)
    base = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True)
    further = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    base.train_alone = "retriever"
    train_alone(further, "retriever")
    train_alone(further, "retriever")  # it is asked for again after each validation
    trained = [name for name, p in further.named_parameters() if p.requires_grad]
    assert len(trained) == 12 and all(".retriever." in name for name in trained)
    nn.init.normal_(base.model.retriever.presence.modules_to_save["default"].weight)
    loss = further.eval()(**batch).loss
    further.save_pretrained(tmp_path / "further")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, tmp_path / "further"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    fresh = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_retriever=True)
    again = PeftModel.from_pretrained(fresh, tmp_path / "further").eval()
    fresh.train_alone = "retriever"
    torch.testing.assert_close(again(**batch).loss, loss, rtol=0, atol=0)


def test_beams_need_no_terms(model, batch):
    """Terms are for training: a generation that gets them drops them."""
    audios = Audios.take_from(dict(batch))
    assert audios.term_targets is batch["term_targets"]
    with torch.no_grad():
        assert model.model.listen(audios, "retriever") > 0
