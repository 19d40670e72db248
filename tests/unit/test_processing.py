"""The processor for plain transformers: text with contexts and audio in, expanded inputs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioProcessor

from sap2 import SAP2Qwen2AudioConfig, SAP2Qwen2AudioProcessor
from sap2.audio import check_audio
from sap2.errors import InputError
from sap2.lengths import audio_token_count
from sap2.prompts import AUDIO_BOS, AUDIO_EOS, AUDIO_TOKEN, CONTEXT_TOKEN, END_OF_CONTEXT, START_OF_CONTEXT

AUDIO = f"{AUDIO_BOS}{AUDIO_TOKEN}{AUDIO_EOS}"
RATE = 16_000


def context(keywords):
    return f"{START_OF_CONTEXT}{keywords}{END_OF_CONTEXT}"


@pytest.fixture(scope="module")
def processor(tiny):
    return SAP2Qwen2AudioProcessor.from_pretrained(tiny)


def ids_of(processor, text):
    return processor.tokenizer(text)["input_ids"]


def test_one_text_with_a_context(processor, speeches):
    inputs = processor(
        text=f"{AUDIO}before {context('emily')} after", audio=speeches[0], return_tensors="pt", padding=True
    )
    assert inputs.keys() == {
        "input_ids",
        "attention_mask",
        "input_features",
        "feature_attention_mask",
        "context_input_ids",
        "context_keyword_numbers",
        "context_spellings",
    }
    tokens = audio_token_count(int(inputs["feature_attention_mask"].sum()))
    text = f"{AUDIO_BOS}{AUDIO_TOKEN * tokens}{AUDIO_EOS}before {context(CONTEXT_TOKEN * 3)} after"
    assert inputs["input_ids"].tolist() == [ids_of(processor, text)]
    assert inputs["context_input_ids"].tolist() == [ids_of(processor, "emily")]
    assert inputs["context_keyword_numbers"].tolist() == [[1] * 5]
    assert inputs["context_input_ids"].dtype == inputs["context_keyword_numbers"].dtype == torch.int64
    assert inputs["context_spellings"].tolist() == [[[ord(letter) + 1 for letter in " emily "]]]


def test_row_i_of_the_contexts_belongs_to_audio_i(processor, speeches):
    texts = [f"{AUDIO} none", f"{AUDIO}{context('abc')}{AUDIO}{context('')}", "text", f"{AUDIO}{context('defgh')}"]
    inputs = processor(text=texts, audio=[*speeches, speeches[0]], return_tensors="pt", padding=True)
    assert len(inputs["input_features"]) == 4
    pad = processor.tokenizer.pad_token_id
    assert inputs["context_input_ids"].tolist() == [
        [pad] * 5,
        [*ids_of(processor, "abc"), pad, pad],
        [pad] * 5,
        ids_of(processor, "defgh"),
    ]
    assert inputs["context_keyword_numbers"].sum(-1).tolist() == [0, 3, 0, 5]


@pytest.mark.parametrize("texts", [["text only"], [f"{AUDIO} no context"], [f"{AUDIO}{context('')}"]])
def test_without_a_context_the_inputs_are_upstreams(tiny, processor, speeches, texts):
    audios = speeches[: sum(text.count(AUDIO_TOKEN) for text in texts)] or None
    given = list(texts)
    ours = processor(text=texts, audio=audios, return_tensors="pt", padding=True)
    assert texts == given, "the caller's list is left alone"
    theirs = Qwen2AudioProcessor.from_pretrained(tiny)
    theirs.tokenizer.add_special_tokens(
        {"extra_special_tokens": [START_OF_CONTEXT, END_OF_CONTEXT]}, replace_extra_special_tokens=False
    )
    expected = theirs(text=texts, audio=audios, return_tensors="pt", padding=True)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_chat_template(tiny, processor, speeches):
    conversation = [
        {
            "role": "user",
            "content": [{"type": "audio", "audio": "x.wav"}, {"type": "text", "text": f"say {context('emily')}"}],
        }
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    assert text == Qwen2AudioProcessor.from_pretrained(tiny).apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=[speeches[0]], return_tensors="pt")
    assert (inputs["input_ids"] == processor.context_token_id).sum() == 3


def test_settings_come_from_the_models_configuration(tiny, tmp_path):
    config = SAP2Qwen2AudioConfig.from_pretrained(tiny, sap_window_size=5, sap_truncate_audio=True)
    config.save_pretrained(tmp_path)
    SAP2Qwen2AudioProcessor.from_pretrained(tiny).save_pretrained(tmp_path)
    loaded = SAP2Qwen2AudioProcessor.from_pretrained(tmp_path)
    assert (loaded.sap_window_size, loaded.sap_truncate_audio) == (5, True)
    assert loaded.embedding_rows == config.text_config.vocab_size
    assert SAP2Qwen2AudioProcessor.from_pretrained(tmp_path, sap_window_size=3).sap_window_size == 3


def test_saved_and_loaded_it_encodes_the_same(tiny, processor, speeches, tmp_path):
    SAP2Qwen2AudioConfig.from_pretrained(tiny).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = SAP2Qwen2AudioProcessor.from_pretrained(tmp_path)
    assert loaded.context_token_id == processor.context_token_id
    assert len(loaded.tokenizer) == len(processor.tokenizer)
    arguments = {"text": f"{AUDIO}{context('emily')}", "audio": speeches[0], "return_tensors": "pt"}
    ours, theirs = processor(**arguments), loaded(**arguments)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_new_inputs_are_known(processor):
    assert {"context_input_ids", "context_keyword_numbers", "input_features"} <= set(processor.model_input_names)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([f"{AUDIO}{context('a')}", f"{AUDIO}{START_OF_CONTEXT}a"], r"text 2: <\|startofcontext\|> .* never closed"),
        ([f"{AUDIO}{context('<|im_end|>')}", AUDIO], r"text 1: the keywords contain '<\|im_end\|>'"),
        ([f"{AUDIO}{context(AUDIO_TOKEN)}", AUDIO], r"text 1: the keywords contain '<\|AUDIO\|>'"),
        ([AUDIO, f"{context('a')}{AUDIO}"], r"text 2: the context 'a' has no audio before it"),
        ([f"{AUDIO}{context('a')}{context('b')}", AUDIO], r"text 1: audio 1 has two contexts"),
        ([AUDIO, f"{AUDIO}{CONTEXT_TOKEN}"], r"text 2: <\|context\|> is the placeholder"),
        ([AUDIO], r"the texts hold 1 <\|AUDIO\|> and there are 2 audios; allowed: one for each"),
        ([f"{AUDIO}{AUDIO}", AUDIO], r"the texts hold 3 <\|AUDIO\|> and there are 2 audios"),
        (["text"], r"the texts hold 0 <\|AUDIO\|> and there are 2 audios"),
    ],
)
def test_bad_texts_are_refused(processor, speeches, texts, message):
    with pytest.raises(InputError, match=message) as caught:
        processor(text=texts, audio=speeches[:2], return_tensors="pt", padding=True)
    assert "\n" not in str(caught.value)


def test_a_context_and_no_audio_is_refused(processor):
    with pytest.raises(InputError, match=r"the texts hold 1 <\|AUDIO\|> and there are 0 audios"):
        processor(text=f"{AUDIO}{context('emily')}", return_tensors="pt")
    with pytest.raises(InputError, match=r"text 1: the context 'emily' has no audio before it"):
        processor(text=context("emily"), return_tensors="pt")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), r"audio 2 is empty; allowed: 0\.1 to 8 s"),
        (np.zeros(1599, np.float32), r"audio 2 is 0\.0999 s long; allowed: 0\.1 to 8 s"),
        (np.zeros(800, np.float32), r"audio 2 is 0\.05 s long; allowed"),
        (np.full(RATE, np.nan, np.float32), r"audio 2 holds samples that are not finite numbers"),
        (np.full(RATE, np.inf, np.float32), r"audio 2 holds samples that are not finite numbers"),
        (
            np.zeros(9 * RATE, np.float32),
            r"audio 2 is 9\.00 s long, and the model hears 8 s: cut it .* --sap_truncate_audio true",
        ),
    ],
    ids=["empty", "short", "shorter", "nan", "inf", "long"],
)
def test_audio_that_cannot_be_heard_is_refused(processor, speeches, samples, message):
    with pytest.raises(InputError, match=message):
        processor(text=[AUDIO, AUDIO], audio=[speeches[0], samples], return_tensors="pt", padding=True)


@pytest.mark.parametrize("samples", [RATE // 10, 8 * RATE])
def test_the_shortest_and_the_longest_audio_are_heard(processor, samples):
    audio = np.sin(np.arange(samples) / 10).astype(np.float32)
    inputs = processor(text=AUDIO, audio=audio, return_tensors="pt")
    heard = int((inputs["input_ids"] == processor.audio_token_id).sum())
    assert heard == (2 if samples == RATE // 10 else 200)


def test_truncation_hears_the_beginning(tiny, speeches):
    processor = SAP2Qwen2AudioProcessor.from_pretrained(tiny, sap_truncate_audio=True)
    long = np.tile(speeches[0], 6)
    assert len(long) > 8 * RATE
    cut, beginning = (processor(text=AUDIO, audio=samples, return_tensors="pt") for samples in (long, long[: 8 * RATE]))
    assert all(torch.equal(cut[name], beginning[name]) for name in cut)


def test_tokens_of_a_length():
    """25 a second; the model's window of 30 s is 750."""
    assert audio_token_count(3000) == 750
    assert [audio_token_count(frames) for frames in (10, 100, 1000)] == [2, 25, 250]


def test_check_audio_leaves_good_audio_alone():
    audio = np.ones(RATE, np.float32)
    assert check_audio(audio, RATE, 30 * RATE, False, "x.wav") is audio
    with pytest.raises(InputError, match=r"audio x\.wav is 31\.00 s long, and the model hears 30 s"):
        check_audio(np.ones(31 * RATE), RATE, 30 * RATE, False, "x.wav")
    assert len(check_audio(np.ones(31 * RATE), RATE, 30 * RATE, True, "x.wav")) == 30 * RATE
