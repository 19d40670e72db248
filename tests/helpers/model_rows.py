"""Rows that the tests of model and template share."""

from __future__ import annotations

import torch

from sap2.prompts import AUDIO_BOS, AUDIO_EOS, AUDIO_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT

AUDIO = f"{AUDIO_BOS}{AUDIO_TOKEN}{AUDIO_EOS}"


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


def row(content, audios=(), reply="hi guys", **more):
    """A row of ms-swift."""
    messages = [{"role": "user", "content": content}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return {"messages": messages, "audios": audios if isinstance(audios, str) else list(audios), **more}


def labels_of(inputs, from_position=3):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :from_position] = -100
    return labels


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_rows_as_alone(model, encode, side):
    """The logits of each row of a mixed batch are those of the row alone."""
    batch = encode(ROWS, side)
    with torch.no_grad():
        together = model(**batch).logits
        for index, row in enumerate(ROWS):
            valid = together[index][batch["attention_mask"][index] == 1]
            torch.testing.assert_close(valid, model(**encode([row])).logits[0], atol=2e-5, rtol=1e-4)


NEW_TOKENS = 4


def replies(model, encode, rows, **kwargs):
    """Ids of the greedy reply to each row, or of its beams."""
    inputs = encode(rows, "left")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, **kwargs)
    return ids[:, inputs["input_ids"].shape[1] :].tolist()
