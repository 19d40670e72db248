"""The template: rows of ms-swift become the inputs of the model."""

from __future__ import annotations

import base64
import copy
import re
from pathlib import Path

import pytest
import soundfile
import torch
from model_rows import context, row
from swift.template import MaxLengthError
from transformers import Qwen2AudioProcessor

from sap2 import SAP2Qwen2AudioForConditionalGeneration
from sap2.errors import InputError
from sap2.lengths import audio_token_count
from sap2.ms_swift.template import SAP2Qwen2AudioTemplate
from sap2.prompts import (
    AUDIO_TOKEN,
    CONTEXT_TOKEN,
    END_OF_CONTEXT,
    START_OF_CONTEXT,
    asr_prompt,
)

RATE = 16_000


def text_of(template, encoded):
    """The text that the ids stand for, with runs of placeholders as ``token*count``."""
    text = template.tokenizer.decode(encoded["input_ids"])
    for token in (AUDIO_TOKEN, CONTEXT_TOKEN):
        text = re.sub(rf"(?:{re.escape(token)})+", lambda run, t=token: f"{t}*{len(run[0]) // len(t)}", text)
    return text


def audio_tokens(path):
    samples, rate = soundfile.read(path)
    return audio_token_count(len(samples) * 100 // rate)


# --- what a row becomes


def test_the_template_is_ours(training):
    assert type(training) is SAP2Qwen2AudioTemplate
    assert training.support_padding_free is False, "ms-swift refuses --packing and --padding_free with a message"


def test_a_whole_row(training, wavs):
    encoded = training.encode(row(f"<audio>Transcribe: {context('emily, wozniak')}!", [wavs[0]]))
    count = audio_tokens(wavs[0])
    assert text_of(training, encoded) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"Audio 1: <|audio_bos|>{AUDIO_TOKEN}*{count}<|audio_eos|>\nTranscribe: "
        f"{START_OF_CONTEXT}{CONTEXT_TOKEN}*7{END_OF_CONTEXT}!<|im_end|>\n<|im_start|>assistant\nhi guys<|im_end|>\n"
    )
    assert [c.ids for c in encoded["contexts"]] == [training.tokenizer("emily, wozniak")["input_ids"]]
    assert encoded["input_features"].shape == (1, 128, 800)
    assert audio_token_count(int(encoded["feature_attention_mask"].sum())) == count


def test_labels_are_the_reply_alone(training, wavs):
    encoded = training.encode(row(f"<audio>x {context('emily')}", [wavs[0]]))
    assert len(encoded["labels"]) == len(encoded["input_ids"])
    learned = [label for label in encoded["labels"] if label != -100]
    assert training.tokenizer.decode(learned) == "hi guys<|im_end|>\n"
    assert encoded["labels"][-len(learned) :] == encoded["input_ids"][-len(learned) :] == learned


@pytest.mark.parametrize(
    ("content", "audios"),
    [
        ("<audio>Transcribe.", [0]),
        ("<audio>first <audio>second", [0, 1]),
        ("no audio", []),
    ],
)
def test_without_context_ids_are_those_of_upstreams_processor(tiny, inference, wavs, speeches, content, audios):
    parts = [part for part in re.split("(<audio>)", content) if part]
    items = [{"type": "audio", "audio": "x"} if p == "<audio>" else {"type": "text", "text": p} for p in parts]
    theirs = Qwen2AudioProcessor.from_pretrained(tiny)
    text = theirs.apply_chat_template([{"role": "user", "content": items}], add_generation_prompt=True, tokenize=False)
    samples = [soundfile.read(wavs[index], dtype="float32")[0] for index in audios]
    expected = theirs(text=text, audio=samples or None, return_tensors="pt")
    encoded = inference.encode(row(content, [wavs[index] for index in audios], reply=None))
    assert encoded["input_ids"] == expected["input_ids"][0].tolist()
    for name in ("input_features", "feature_attention_mask") if audios else ():
        assert torch.equal(encoded[name], expected[name])


def test_row_of_the_original_readme(training, wavs):
    """Inline audio and "audios" as a string, keywords separated by spaces."""
    prompt = "Transcribe speech to text according to keywords may appear in the utterance. Possible keywords are: "
    keywords = context("emily wozniak macintosh")
    encoded = training.encode(row(f"<audio>{wavs[0]}</audio>{prompt}{keywords}", wavs[0]))
    as_loaded = training.encode(row(f"<audio>{wavs[0]}</audio>{prompt}{keywords}", [{"path": wavs[0], "bytes": None}]))
    assert as_loaded["input_ids"] == encoded["input_ids"]
    plain = training.encode(row(f"<audio>{prompt}{keywords}", [wavs[0]]))
    assert encoded["input_ids"] == plain["input_ids"]
    assert len(encoded["input_features"]) == 1
    assert torch.equal(encoded["input_features"], plain["input_features"])
    assert [c.ids for c in encoded["contexts"]] == [training.tokenizer("emily wozniak macintosh")["input_ids"]]


@pytest.mark.parametrize("form", ["inline", "string", "list", "dict", "bytes", "base64", "no tag", "openai"])
def test_forms_of_an_audio(training, wavs, form):
    data = Path(wavs[0]).read_bytes()
    text = f"say {context('emily')}"
    rows = {
        "inline": row(f"<audio>{wavs[0]}</audio>{text}"),
        "string": row(f"<audio>{text}", wavs[0]),
        "list": row(f"<audio>{text}", [wavs[0]]),
        "dict": row(f"<audio>{text}", [{"path": wavs[0], "bytes": None}]),
        "bytes": row(f"<audio>{text}", [{"path": "utt0.wav", "bytes": data}]),
        "base64": row(f"<audio>{text}", ["data:audio/wav;base64," + base64.b64encode(data).decode()]),
        "no tag": row(text, [wavs[0]]),
        "openai": row([{"type": "audio", "audio": wavs[0]}, {"type": "text", "text": text}]),
    }
    encoded, expected = training.encode(rows[form]), training.encode(rows["list"])
    assert encoded["input_ids"] == expected["input_ids"]
    assert encoded["contexts"] == expected["contexts"]
    assert torch.equal(encoded["input_features"], expected["input_features"])


def test_the_row_is_left_alone(training, wavs):
    given = row(f"<audio>{wavs[0]}</audio>{context('emily')}", wavs[0])
    copied = copy.deepcopy(given)
    first = training.encode(given)
    assert given == copied
    assert training.encode(given)["input_ids"] == first["input_ids"]


def test_several_audios_and_contexts(training, wavs):
    encoded = training.encode(
        row(f"<audio>a<audio>{context('bc')}<audio>{context('defg')}", [wavs[1], wavs[0], wavs[2]])
    )
    assert [c.ids for c in encoded["contexts"]] == [
        [],
        *(training.tokenizer(text)["input_ids"] for text in ("bc", "defg")),
    ]
    expected = [audio_tokens(wavs[index]) for index in (1, 0, 2)]
    found = re.findall(r"Audio (\d): <\|audio_bos\|><\|AUDIO\|>\*(\d+)", text_of(training, encoded))
    assert found == [(str(number), str(count)) for number, count in enumerate(expected, 1)]
    features = [training.encode(row("<audio>", [wavs[index]]))["input_features"] for index in (1, 0, 2)]
    assert torch.equal(encoded["input_features"], torch.cat(features))


def test_several_turns(training, wavs):
    turns = [
        {"role": "user", "content": f"<audio>{context('ab')}one"},
        {"role": "assistant", "content": "reply one"},
        {"role": "user", "content": f"<audio>two {context('cdef')}"},
        {"role": "assistant", "content": "reply two"},
    ]
    encoded = training.encode({"messages": turns, "audios": wavs[:2]})
    assert [len(c.ids) for c in encoded["contexts"]] == [2, 4]
    learned = training.tokenizer.decode([label for label in encoded["labels"] if label != -100])
    assert learned == "reply one<|im_end|>\nreply two<|im_end|>\n"


def test_prompt_without_keywords(training, wavs):
    encoded = training.encode(row("<audio>" + asr_prompt([]), [wavs[0]]))
    assert "contexts" not in encoded
    assert f"{START_OF_CONTEXT}{END_OF_CONTEXT}" in text_of(training, encoded)


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_window_size_of_the_run(make_template, wavs, window):
    template = make_template(sap_settings={"sap_window_size": window})
    encoded = template.encode(row(f"<audio>{context('emily, wozniak')}", [wavs[0]]))
    assert encoded["input_ids"].count(template.config.sap_context_token_id) == -(-14 // window)


# --- length


@pytest.mark.parametrize(("pooling", "ids"), [("attention", 10), ("mean", 10), ("salience", 11)])
def test_with_salience_every_keyword_has_its_separator(make_template, wavs, pooling, ids):
    """It moves keywords, and "wozniak" at the front must not become one word with the next."""
    template = make_template(sap_settings={"sap_pooling": pooling, "sap_min_positions": 0})
    encoded = template.encode(row(f"<audio>{context('bob, emily')} x", [wavs[0]]))
    (found,) = encoded["contexts"]
    assert len(found.ids) == ids
    assert encoded["input_ids"].count(template.config.sap_context_token_id) == -(-ids // 2)


def test_max_length_counts_what_the_model_sees(make_template, training, wavs):
    """A context of 400 tokens in windows of 8 costs 50."""
    long = row(f"<audio>{context('emily, ' * 57 + 'e')}", [wavs[0]])
    eight = {"sap_window_size": 8}
    length = len(make_template(sap_settings=eight).encode(long)["input_ids"])
    assert length < 400 < len(training.encode(long)["input_ids"]) + 200
    assert len(make_template(sap_settings=eight, max_length=length).encode(long)["input_ids"]) == length
    message = rf"row with audio .*utt0\.wav: .*\({length}\).*\({length - 1}\).* Allowed: a larger --max_length"
    with pytest.raises(MaxLengthError, match=message) as caught:
        make_template(sap_settings=eight, max_length=length - 1).encode(long)
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("strategy", ["left", "right"])
def test_truncation_keeps_the_placeholders(make_template, training, wavs, strategy):
    long = row(f"<audio>{context('emily')}", [wavs[0]], reply="a reply of some length " * 4)
    whole = training.encode(long)
    shorter = len(whole["input_ids"]) - 20
    cut = make_template(max_length=shorter, truncation_strategy=strategy).encode(long)
    assert len(cut["input_ids"]) == len(cut["labels"]) == shorter
    for token in (training.config.audio_token_id, training.config.sap_context_token_id):
        assert cut["input_ids"].count(token) == whole["input_ids"].count(token) > 0
    assert cut["contexts"] == whole["contexts"]
    end = whole["input_ids"][-10:]
    assert (cut["input_ids"][-10:] == end) is (strategy == "left")


@pytest.mark.parametrize(
    ("strategy", "max_length", "message"),
    [
        ("right", 150, r"^row u7: \d+ tokens, and --truncation_strategy right to the max_length\(150\) cuts the reply"),
        ("right", 40, r"cannot cut them to the max_length\(40\): audio and context are \d+"),
        ("left", 40, r"cannot cut them to the max_length\(40\): audio and context are \d+"),
    ],
)
def test_truncation_that_leaves_nothing_to_learn_is_refused(make_template, wavs, strategy, max_length, message):
    """The loss of such a row is no number, and the weights are none after it."""
    long = row(f"<audio>{context('emily')}" + "filler " * 40, [wavs[0]], reply="a reply of some length", id="u7")
    with pytest.raises(MaxLengthError, match=message) as caught:
        make_template(max_length=max_length, truncation_strategy=strategy).encode(long)
    assert isinstance(caught.value, InputError)
    allowed = str(caught.value).partition("Allowed: ")[2]
    assert allowed.startswith("a larger --max_length") and "truncation" not in allowed, "only what works is recommended"


def test_a_row_without_a_label_is_refused(make_template, wavs):
    bad = row("<audio>x", [wavs[0]], reply=None, id="u7")
    template = make_template()
    with pytest.raises(InputError, match=r"^row u7: the row has no reply to learn from; allowed"):
        template.encode(bad)
    template.prompts_only = True  # the model writes the reply
    assert template.encode(bad)["input_ids"]


def test_truncation_of_a_prompt(make_template, wavs):
    prompt = row(f"<audio>{context('emily')}" + "filler " * 40, [wavs[0]], reply=None)
    template = make_template("transformers", max_length=150, truncation_strategy="left")
    assert len(template.encode(prompt)["input_ids"]) == 150


def test_placeholder_tokens_belong_to_one_template(make_template, training):
    """Upstream's list belongs to the class: a second tokenizer in the process would get the ids of the first."""
    ids = [training.config.sap_context_token_id]
    assert make_template().placeholder_tokens == training.placeholder_tokens
    assert set(ids) <= set(training.placeholder_tokens)
    assert training.config.audio_token_id in training.placeholder_tokens


# --- batches


def test_mixed_rows_make_one_batch(tiny, training, wavs):
    """The collated batch gives each row the logits and all rows the loss that they have alone."""
    rows = [
        row(f"<audio>{context('emily')} x", [wavs[0]]),
        row("text only"),
        row("<audio>no context", [wavs[1]], reply="a longer reply"),
        row(f"<audio><audio>{context('a, b, c')}", [wavs[2], wavs[0]]),
    ]
    encoded = [training.encode(one) for one in rows]
    batch = training.data_collator([dict(one) for one in encoded])
    longest = int(batch["feature_attention_mask"].sum(-1).max())
    assert batch["input_features"].shape[:2] == (4, 128)
    assert longest < batch["input_features"].shape[2] < longest + 40  # not the model's whole window
    assert batch["context_keyword_numbers"].tolist() == [
        [1] * 5 + [0] * 2,
        [0] * 7,
        [0] * 7,
        [1, 1, 2, 2, 2, 3, 3],
    ]
    assert batch["labels"].shape == batch["input_ids"].shape
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny).eval()
    losses, counts = [], []
    with torch.no_grad():
        loss = model(**batch).loss
        for one in encoded:
            alone = training.data_collator([dict(one)])
            counts.append(int((alone["labels"][:, 1:] != -100).sum()))
            losses.append(model(**alone).loss * counts[-1])
    torch.testing.assert_close(loss, sum(losses) / sum(counts))


def test_batches_without_audio_or_context(training, wavs):
    text = training.data_collator([training.encode(row("text only"))])
    assert not {"input_features", "context_input_ids"} & text.keys()
    plain = training.data_collator([training.encode(row("<audio>x", [wavs[0]])), training.encode(row("text"))])
    assert "input_features" in plain and "context_input_ids" not in plain


def test_inference_pads_on_the_left(inference, wavs):
    rows = [row(f"<audio>{context('emily')}", [wavs[0]], reply=None), row("text", reply=None)]
    batch = inference.data_collator([inference.encode(one) for one in rows])
    assert batch["attention_mask"][1, 0] == 0 and batch["attention_mask"][:, -1].all()
    assert batch.get("labels") is None
