"""The parts of an explanation, each against plain computation: forced decoding, attention, masks, shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation

from sap2.explain.forced import ForcedReply
from sap2.explain.looking import Listening, listen, look, pooling_attention, shares_of, token_positions
from sap2.explain.masks import BANDS, draw_masks, over_tokens, relevance, silence
from sap2.explain.saliency import answers, by_gradients, by_perturbation, word_log_probs
from sap2.explain.spans import WordSpan, spell_reply, word_keywords
from sap2.lengths import FRAMES_PER_TOKEN
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.pooling.salience import mean_at
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.stages import stage_content
from sap2.prompts import DEFAULT_SYSTEM

KEYWORDS = ["wozniak", "emily jones", "bob"]


def nothing(count: int) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def encoder_of(tiny, asr):
    loaded = LoadedModel(str(tiny), {"asr": str(asr)}, "cpu", "float32")
    return loaded, Encoder(loaded.processor, 8192)


@pytest.fixture(scope="module")
def forced(encoder_of, speeches):
    """A reply that the random model never gave; which one is no matter."""
    loaded, encoder = encoder_of
    heard = encoder.hear(speeches[2], "short")
    reply = spell_reply("hi emily", "hi emily", encoder.tokenizer)
    return ForcedReply(loaded, encoder, "asr", heard, prompt(encoder, KEYWORDS, heard), reply.ids)


def prompt(encoder, keywords, heard):
    return encoder.prompt(stage_content("asr", keywords), DEFAULT_SYSTEM, heard.tokens)


@pytest.fixture(scope="module")
def words(forced) -> list[WordSpan]:
    return spell_reply("hi emily", "hi emily", forced.encoder.tokenizer).words


def plain(forced, asked, features):
    """Log probability of each token of the reply, one position at a time, and the attention, by one call each."""
    device = torch.device("cpu")
    inputs = forced.encoder.collate([asked._replace(input_ids=[*asked.input_ids, *forced.reply_ids])], device)
    mask = forced.heard.mask[None, : features.shape[-1]]
    with forced.loaded.use("asr") as model, torch.no_grad():
        model.model.language_model.set_attn_implementation("eager")
        output = model(
            **inputs,
            input_features=features[None],
            feature_attention_mask=mask,
            output_attentions=True,
            use_cache=False,
        )
        model.model.language_model.set_attn_implementation("sdpa")
    start = len(asked.input_ids)
    found = [output.logits[0, start + n - 1].log_softmax(-1)[id].item() for n, id in enumerate(forced.reply_ids)]
    return found, torch.stack([layer[0] for layer in output.attentions])


def test_forced_decoding_is_the_models_own_log_probability(forced):
    quieter = forced.features - 0.3
    with torch.no_grad():
        both = forced.log_probs(torch.stack([forced.features, quieter]))
    assert both[0].tolist() == pytest.approx(plain(forced, forced.prompt, forced.features)[0], abs=1e-4)
    assert both[1].tolist() == pytest.approx(plain(forced, forced.prompt, quieter)[0], abs=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_prompts_of_different_lengths_go_together(forced):
    others = [prompt(forced.encoder, KEYWORDS[:n], forced.heard) for n in (3, 1, 0)]
    with torch.no_grad():
        together = forced.log_probs_told(others)
    for row, asked in zip(together, others, strict=True):
        assert row.tolist() == pytest.approx(plain(forced, asked, forced.features)[0], abs=1e-4)


def test_attention_is_that_of_the_rows_that_predict_the_reply(forced):
    before = forced.loaded.model.model.language_model.config._attn_implementation
    found = forced.attention()
    assert forced.loaded.model.model.language_model.config._attn_implementation == before
    whole = plain(forced, forced.prompt, forced.features)[1]
    start, count = len(forced.prompt.input_ids), len(forced.reply_ids)
    torch.testing.assert_close(found, whole[:, :, start - 1 : start + count - 1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))
    assert all(found[:, :, row, start + row :].eq(0).all() for row in range(count)), "what comes later is not seen"


def test_attention_is_divided_among_the_speech_the_keywords_and_the_rest(forced, words):
    listening = listen(forced)
    looks = look(forced, forced.attention().mean((0, 1)), words, listening.shares)
    total = looks.speech.sum(1) + looks.keywords.sum(1) + looks.prompt + looks.reply
    assert total == pytest.approx(np.ones(2), abs=1e-5)
    assert looks.speech.shape == (2, forced.heard.tokens) and looks.keywords.shape == (2, 3)
    # all attention on one position shows up there alone
    for number, part in (("<|AUDIO|>", "speech"), ("<|context|>", "keywords"), ("<|startofcontext|>", "prompt")):
        attention = torch.zeros(len(forced.reply_ids), len(forced.prompt.input_ids) + len(forced.reply_ids))
        attention[:, forced.prompt.input_ids.index(forced.encoder.tokenizer.convert_tokens_to_ids(number))] = 1
        assert getattr(look(forced, attention, words, listening.shares), part).sum() == pytest.approx(2)


def test_the_pooling_attention_is_the_papers(forced):
    speech, context = torch.randn(5, 8), torch.randn(7, 8)
    expected = torch.zeros(5, 7)
    for head in range(2):
        for frame in range(5):
            scores = [
                float(speech[frame, 4 * head : 4 * head + 4] @ key[4 * head : 4 * head + 4]) / 2 for key in context
            ]
            expected[frame] += torch.tensor(scores).softmax(0) / 2
    torch.testing.assert_close(pooling_attention(speech, context, 2), expected)
    listening = listen(forced)
    assert listening.pooling.shape == (forced.heard.tokens, 3)
    assert listening.pooling.sum(1) == pytest.approx(np.ones(forced.heard.tokens), abs=1e-5)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_shares_of_windows_are_what_the_mean_makes_of_them(window):
    numbers = torch.tensor([1, 1, 1, 2, 3, 3, 3])
    pooling = SpeechDrivenPooling(7, 1, window, "mean")
    pooled, _ = pooling(torch.zeros(1, 4, 7), torch.eye(7)[None])
    owners = torch.nn.functional.one_hot(numbers - 1, 3).float()
    found = shares_of(token_positions(pooling, numbers, None), numbers, 3)
    assert found == pytest.approx((pooled[0] @ owners).numpy(), abs=1e-6)


def test_shares_of_salience_keep_the_most_salient_keyword():
    numbers = torch.tensor([1] * 6 + [2] * 3 + [3] * 7)
    pooling = SpeechDrivenPooling(8, 1, 4, "salience", 5)
    positions = token_positions(pooling, numbers, torch.tensor([0.0, 9.0, 1.0]))
    found = shares_of(positions, numbers, 3)
    assert found.shape == (5, 3) and (found[:3, 1] == 1).all() and found[3:, 1].sum() == 0
    owners = torch.nn.functional.one_hot(numbers - 1, 3).float()[None]
    means = mean_at(owners, positions[None], torch.ones(1, 16, dtype=torch.bool), 5)
    assert found == pytest.approx(means[0].numpy())


def test_masks_hold_regions_of_each_size():
    masks = draw_masks(300, 40, seed=1)
    assert masks.shape == (300, BANDS, 40) and 0.45 < masks.mean() < 0.55
    assert (masks == draw_masks(300, 40, seed=1)).all() and (masks != draw_masks(300, 40, seed=2)).any()
    edges = (masks[:, :, 1:] != masks[:, :, :-1]).mean((1, 2))
    assert edges[0::3].mean() > 1.6 * edges[1::3].mean() > 2.5 * edges[2::3].mean()


def test_what_is_not_kept_is_silenced():
    features = torch.arange(16 * 26.0).reshape(16, 26) + 5
    kept = np.ones((2, BANDS, 6), dtype=bool)
    kept[1, 1, 2] = False
    whole, one = silence(features, kept)
    assert torch.equal(whole, features)
    rows, frames = slice(2, 4), slice(2 * FRAMES_PER_TOKEN, 3 * FRAMES_PER_TOKEN)
    assert (one[rows, frames] == 5).all()
    one[rows, frames] = features[rows, frames]
    assert torch.equal(one, features)


def test_relevance_finds_what_an_answer_is_made_of():
    kept = draw_masks(4000, 12, seed=0, scales=((1, 1),))
    weights = np.zeros((2, BANDS, 12))
    weights[0, 2, 3], weights[0, 5, 9] = 2.0, -1.0
    found = relevance(kept, np.einsum("wgt,ngt->nw", weights, kept) - 7)
    assert found[0] == pytest.approx(weights[0], abs=0.25)
    assert found[1] == pytest.approx(0, abs=1e-12), "an answer that never changes rests on nothing"
    always = np.ones((5, BANDS, 3), dtype=bool)
    assert (relevance(always, np.arange(5.0)[:, None]) == 0).all()


def test_a_model_that_does_not_listen_rests_on_nothing(forced, words, monkeypatch):
    deaf = torch.full((len(forced.reply_ids),), -2.0)
    monkeypatch.setattr(forced, "log_probs", lambda features: deaf + 0 * features.sum((1, 2))[:, None])
    counted = []
    silenced = by_perturbation(forced, words, 10, 4, counted.append)
    assert silenced.shape == (2, BANDS, forced.heard.tokens) and silenced == pytest.approx(0, abs=1e-12)
    assert (by_gradients(forced, words, 2, 4, counted.append) == 0).all()
    assert counted == [4, 4, 2, 2, 2]


def test_silencing_one_region_is_captums_ablation(forced, words):
    tokens = forced.heard.tokens
    halves = [(slice(0, 4), slice(None)), (slice(4, 8), slice(None))]
    kept = np.ones((3, BANDS, tokens), dtype=bool)
    regions = np.full((BANDS, tokens), 2)
    for number, region in enumerate(halves, 1):
        kept[number][region], regions[region] = False, number
    with torch.no_grad():
        found = answers(forced, words, kept, 2, nothing)
        groups = torch.from_numpy(regions).repeat_interleave(len(forced.features) // BANDS, 0)
        groups = groups.repeat_interleave(FRAMES_PER_TOKEN, 1)
        groups = torch.nn.functional.pad(groups, (0, forced.features.shape[1] - groups.shape[1]), value=3)
        ablation = FeatureAblation(lambda features: word_log_probs(forced.log_probs(features), words))
        for index in range(len(words)):
            given = ablation.attribute(
                forced.features[None], forced.features.amin(), target=index, feature_mask=groups[None]
            )[0]
            for number in (1, 2):
                lost = given[groups == number].unique().item()
                assert found[0, index] - found[number, index] == pytest.approx(lost, abs=1e-4)


def test_gradients_add_up_to_what_the_sound_changes(forced, words):
    found = by_gradients(forced, words, 64, 16, nothing)
    with torch.no_grad():
        both = torch.stack([forced.features, torch.full_like(forced.features, float(forced.features.amin()))])
        heard, silent = word_log_probs(forced.log_probs(both), words)
    assert found.sum(1) == pytest.approx((heard - silent).numpy(), abs=0.05, rel=0.05)
    assert np.abs(found).max() > 0.01


def test_frames_go_to_their_tokens():
    assert over_tokens(np.ones((2, 11)), 2).tolist() == [[4, 7], [4, 7]]


def test_words_of_a_reply(forced):
    tokenizer = forced.encoder.tokenizer
    reply = "Selected keywords are: wozniak.\nTranscription: hi wozniak"
    ids, spans = spell_reply(reply, "hi wozniak", tokenizer)
    assert [word.text for word in spans] == ["hi", "wozniak"]
    assert [tokenizer.decode([ids[n] for n in word.tokens]).strip() for word in spans] == ["hi", "wozniak"]
    assert spell_reply("", "", tokenizer).words == [] and tokenizer.decode(ids).endswith("<|im_end|>")
    assert word_keywords("the gpt 4 of bob's", ["GPT-4", "Bob"]) == [None, "GPT-4", "GPT-4", None, "Bob"]


def test_no_context_is_no_keywords(forced, words):
    asked = prompt(forced.encoder, [], forced.heard)
    bare = ForcedReply(forced.loaded, forced.encoder, "asr", forced.heard, asked, forced.reply_ids)
    listening = listen(bare)
    assert isinstance(listening, Listening) and listening.shares.shape == (0, 0)
    assert look(bare, bare.attention().mean((0, 1)), words, listening.shares).keywords.shape == (2, 0)
