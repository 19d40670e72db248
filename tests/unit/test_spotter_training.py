"""The spotter is trained along with any loss of the language model, at the same scale, and its loss is not added."""

from __future__ import annotations

import copy

import pytest
import torch
from model_rows import ROWS, labels_of
from torch.nn import functional
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.errors import InputError
from sap2.model.modeling import SPOTTER_WEIGHT
from sap2.model.riding import ride_on_loss, ride_on_states, share_of_batch
from sap2.model.spotter import pad_transcripts

SAID = "hi guys i'm emily wozniak"
REPLY = 6
SPOTTER = ".spotter."


@pytest.fixture(scope="module")
def untrained(tiny):
    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny, sap_spotter=True)


@pytest.fixture
def model(untrained):
    model = copy.deepcopy(untrained).train()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.model.spotter.symbols.weight, std=0.1)
    return model


@pytest.fixture
def batch(encode):
    inputs = dict(encode([ROWS[0], ROWS[2]]))
    labels = labels_of(inputs)
    labels[:, :-REPLY] = -100
    return {**inputs, "labels": labels, "transcripts": pad_transcripts([SAID, "the wozniak machine"], [1, 1])}


def mean_loss(model, batch):
    return model(**batch).loss


def smoothed(model, batch):
    labels = batch["labels"]
    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    return LabelSmoother(0.1)(outputs, labels, shift_labels=True)


def dft(model, batch):
    """Each token weighed by its own probability, from the logits."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits[:, :-1], batch["labels"][:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return (losses * (-losses).exp().detach()).sum() / (labels != -100).sum()


def preference(model, batch):
    """As of DPO: the first row against the second."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits[:, :-1], batch["labels"][:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none").sum(-1)
    return -functional.logsigmoid(losses[1] - losses[0])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make_loss", [mean_loss, smoothed, dft, preference], ids=lambda make: make.__name__)
def test_every_loss_trains_it_and_keeps_its_value(model, batch, make_loss):
    loss = make_loss(model, batch)
    found = gradients(model, loss)
    aside = model(**batch).aux_loss
    alone = gradients(model, SPOTTER_WEIGHT * model.model.listen(audios_of(batch), "spotter"))
    plain = {name: value for name, value in batch.items() if name != "transcripts"}
    without = make_loss(model, plain)
    others = gradients(model, without)
    assert torch.equal(loss, without) and aside > 0
    assert found.keys() == others.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in found.items():
        expected = alone[name] if SPOTTER in name else others[name]
        torch.testing.assert_close(gradient, expected, msg=name)
        assert SPOTTER not in name or (gradient.any() and not others[name].any())


def audios_of(batch):
    from sap2.model.audios import Audios

    return Audios.take_from(dict(batch))


def test_in_evaluation_the_loss_stands_beside_that_of_the_language_model(model, batch):
    with torch.no_grad():
        output = model.eval()(**batch)
        plain = model(**{name: value for name, value in batch.items() if name != "transcripts"})
    assert torch.equal(output.loss, plain.loss)
    assert output.aux_loss > 0 and plain.aux_loss is None


def test_whatever_the_loss_is_multiplied_with():
    weight = torch.ones(1, requires_grad=True)
    loss = torch.tensor(2.0, requires_grad=True)
    (1024 * ride_on_loss(loss, weight.sum() * 3, 0.1) / 8).backward()
    assert loss.grad == 128 and weight.grad == pytest.approx(128 * 0.1 * 3)


def test_steps_that_are_accumulated(model, batch):
    """A trainer that makes its loss of the logits says by how much it will divide it."""
    whole = gradients(model, smoothed(model, batch))
    model.backward_scale = 0.25
    part = gradients(model, smoothed(model, batch) / 4)
    for name, gradient in part.items():
        torch.testing.assert_close(gradient, whole[name] / 4, msg=name)


def test_float16_with_a_loss_of_the_logits_is_refused():
    with pytest.raises(InputError, match=r"float16 with a loss made of the logits .*; allowed: bfloat16, float32"):
        ride_on_states(torch.zeros(1, dtype=torch.float16), torch.zeros(()), 1.0)


def test_share_of_the_labels_of_a_step():
    labels = torch.tensor([[5, -100, 7, 8], [5, 6, -100, -100]])
    assert share_of_batch(labels, None) == 1.0
    assert share_of_batch(labels, torch.tensor(12)) == 3 / 12


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_plain_trainer_gives_it_the_same_step_however_the_rows_are_accumulated(model, encode, tmp_path, smoothing):
    rows = []
    for audio, said in ((0, SAID), (1, "two words"), (2, "short"), (0, "and other words")):
        inputs = dict(encode([(ROWS[2][0], [audio])]))
        labels = inputs["input_ids"].clone()
        labels[:, :-REPLY] = -100
        rows.append({**inputs, "labels": labels, "transcripts": pad_transcripts([said], [1])})
    steps = [trained(model, rows, tmp_path, smoothing, accumulated) for accumulated in (1, 4)]
    if smoothing:  # a plain trainer does not say how many steps it accumulates
        model.backward_scale = 0.25
        steps[1] = trained(model, rows, tmp_path, smoothing, 4)
    for name, change in steps[0].items():
        torch.testing.assert_close(steps[1][name], change, rtol=1e-3, atol=1e-7, msg=name)
    assert all(change.any() for change in steps[0].values())


def trained(model, rows, folder, smoothing, accumulated):
    """What one step of gradient descent does to the spotter."""
    model = copy.deepcopy(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if SPOTTER in name}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4 // accumulated,
        gradient_accumulation_steps=accumulated,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        label_smoothing_factor=smoothing,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
    )
    arguments.max_epochs = None  # where ms-swift was imported, it asks every trainer for it
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
    return {name: p.detach() - before[name] for name, p in model.named_parameters() if SPOTTER in name}


def collate(rows):
    """Rows of other lengths, padded on the right."""
    padded = {}
    for name in rows[0]:
        values = [row[name][0] for row in rows]
        if name == "input_features":
            padded[name] = torch.stack(values)
        else:
            fill = -100 if name == "labels" else 0
            padded[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
    return padded


def test_an_untrained_spotter_is_noticed_where_it_is_used_first(untrained, tiny, encode):
    salience = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(
        tiny, sap_pooling="salience", sap_min_positions=0
    ).eval()
    message = r"the keyword spotter of this model is not trained; allowed: .*--sap_train spotter"
    with torch.no_grad():
        with pytest.raises(InputError, match=message):
            salience(**encode([ROWS[0]]))
        salience(**encode([ROWS[2]]))  # nothing to rank
        with pytest.raises(InputError, match=message):
            untrained.eval().model.spotter(torch.zeros(1, 3, 128))
    salience.train()(**encode([ROWS[0]]))


def test_the_spotter_alone_needs_no_language_model(model, batch, monkeypatch):
    model.train_alone = "spotter"
    monkeypatch.setattr(model.model.language_model, "forward", lambda *a, **k: pytest.fail("ran the language model"))
    output = model(**batch)
    assert output.logits is None and torch.equal(output.loss, output.aux_loss)
    found = gradients(model, output.loss)
    assert all(gradient.any() == (SPOTTER in name) for name, gradient in found.items())
    quiet = model(**{name: value for name, value in batch.items() if name != "transcripts"})
    assert quiet.loss == 0 and quiet.aux_loss is None
