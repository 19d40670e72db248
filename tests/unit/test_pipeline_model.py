"""Both stages on a tiny model: the same as two runs of ms-swift, with one base model and one pass of the tower."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pipeline_helpers import SYSTEM, TOWER_TOO, make_adapter
from pipeline_rows import KEYWORDS, TOKENS, prune_rows, write_jsonl
from transformers import GenerationConfig

from sap2.audio import load_samples
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.model.context import Context, tokenize_context
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.base import Reply
from sap2.pipeline.engines.replies import read_replies
from sap2.pipeline.engines.transformers import greedy_config
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.pruners import RankedKeyword
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.stages import stage_content
from sap2.pipeline.utterances import Job, Pruning
from sap2.prompts import joint_reply
from sap2.rowfiles import read_rows


@pytest.fixture(scope="module")
def loaded(tiny, prune, asr):
    return LoadedModel(str(tiny), {"prune": prune, "asr": asr})


@pytest.fixture(scope="module")
def rows(wavs):
    """Stage-one rows with lists of several lengths."""
    return prune_rows(wavs)


def job(wav, keywords=KEYWORDS):
    return Job(wav, lambda: load_samples(wav, 16_000), keywords)


@pytest.fixture(scope="module")
def engines(tiny, prune, asr):
    """ms-swift with each adapter."""
    from swift.infer_engine import TransformersEngine

    return {
        name: TransformersEngine(str(tiny), adapters=[str(folder)], model_type="sap_qwen2_audio", max_batch_size=4)
        for name, folder in (("prune", prune), ("asr", asr))
    }


def swift_replies(engine, rows):
    from swift.infer_engine import InferRequest, RequestConfig

    requests = [InferRequest(messages=row["messages"][:1], audios=row["audios"]) for row in rows]
    replies = engine.infer(requests, RequestConfig(max_tokens=TOKENS, temperature=0), use_tqdm=False)
    return [reply.choices[0].message.content for reply in replies]


# the same as ms-swift


def test_prompts_are_token_for_token_those_of_the_template(engines, loaded, rows, wavs):
    template, encoder = engines["asr"].template, Encoder(loaded.processor, 8192)
    template.set_mode("transformers")
    contents = [row["messages"][0]["content"] for row in rows]
    contents += [stage_content(stage, keywords) for stage in ("asr", "joint") for keywords in ([], KEYWORDS)]
    contents += [
        "<audio>Was sagt sie? 它说什么\n<|startofcontext|>naïve café, 沃兹\n<|endofcontext|> bitte",
        "x<audio>y",
    ]
    heard = encoder.hear(load_samples(wavs[0], 16_000), "a")
    for content in contents:
        for system in (SYSTEM, "Be brief."):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
            expected = template.encode({"messages": messages, "audios": [wavs[0]]})
            prompt = encoder.prompt(content, system, heard.tokens)
            assert prompt.input_ids == expected["input_ids"]
            assert prompt.context == (expected.get("contexts") or [Context([], [], [])])[0]
            assert torch.equal(heard.features, expected["input_features"][0])
            assert torch.equal(heard.mask, expected["feature_attention_mask"][0])
    default = template.encode({"messages": [{"role": "user", "content": contents[0]}], "audios": [wavs[0]]})
    assert encoder.prompt(contents[0], SYSTEM, heard.tokens).input_ids == default["input_ids"]


@pytest.mark.parametrize("length", [1600, 16_000, 61_777, 127_000, 127_999, 128_000])
@pytest.mark.parametrize("loudness", [0.0, 1e-6, 0.3])
def test_features_are_those_of_the_whole_window(loaded, length, loudness):
    """The silence that fills the window is not worked through, and no bit differs."""
    encoder = Encoder(loaded.processor, 8192)
    samples = loudness * np.random.default_rng(length).standard_normal(length).astype(np.float32)
    extractor = loaded.processor.feature_extractor
    made = extractor([samples], sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    heard = encoder.hear(samples, "a")
    assert torch.equal(heard.features, made["input_features"][0])
    assert torch.equal(heard.mask, made["attention_mask"][0])


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False, "max_new_tokens": 256},
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.5, "repetition_penalty": 1.1},
        {"no_repeat_ngram_size": 3, "num_beams": 4, "eos_token_id": 256, "max_length": 99},
    ],
)
def test_generation_settings_are_those_of_swift_infer_at_temperature_0(engines, settings):
    from swift.infer_engine import RequestConfig
    from swift.infer_engine.utils import prepare_generation_config
    from swift.template.utils import update_generation_config_eos_token

    base, tokenizer = GenerationConfig(**settings), engines["asr"].tokenizer
    ours = greedy_config(base, tokenizer, 7)
    update_generation_config_eos_token(base, engines["asr"].template)
    theirs = prepare_generation_config(base, RequestConfig(max_tokens=7, temperature=0, num_beams=1), tokenizer)
    ours, theirs = ours.to_dict(), theirs.to_dict()
    ends = [set(config.pop("eos_token_id")) for config in (ours, theirs)]
    assert ends[0] == ends[1] | {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    said = [{k: v for k, v in config.items() if v is not None} for config in (ours, theirs)]
    assert said[0] == said[1] | {"num_return_sequences": 1}


def test_replies_are_read_as_ms_swift_reads_them(engines):
    template, tokenizer = engines["asr"].template, engines["asr"].tokenizer
    end, eos, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", tokenizer.eos_token, tokenizer.pad_token])
    words = tokenizer("hi  there<|AUDIO|> é")["input_ids"]
    rows = [[*words, end, pad], [*words, eos, pad], [*words, end, eos], [end, *words, pad], [pad] * (len(words) + 2)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    expected = [template.decode_generate_ids([token for token in row if token != pad]) for row in ids.tolist()]
    steps = torch.arange(float(width)).neg()[:, None].expand(width, len(rows))
    replies = read_replies(ids, steps, tokenizer)
    assert [reply.text for reply in replies] == expected
    assert [reply.complete for reply in replies] == [True] * 5
    ended = replies[0]
    assert ended.pieces == [*map(tokenizer.decode, words), "<|im_end|>"]
    assert ended.log_probs == [-float(step) for step in range(len(words) + 1)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_call_equals_two_runs_with_the_extraction_between(engines, tiny, prune, asr, rows, tmp_path, batch_size):
    prune_file = write_jsonl(tmp_path / "prune.jsonl", rows)
    options = PipelineOptions(
        prune_file, str(tmp_path / "result.jsonl"), str(tiny), str(prune), str(asr),
        batch_size=batch_size, max_new_tokens=TOKENS,
    )  # fmt: skip
    report = run_pipeline(options)
    assert (report.rows, report.failed, report.picked, report.unlisted) == (3, 0, 3, 3)
    ours = [row for _, row in read_rows(tmp_path / "result.jsonl")]

    replies = swift_replies(engines["prune"], rows)
    assert replies == ["bob, who"] * 3
    stage_one = [row | {"response": reply} for row, reply in zip(rows, replies, strict=True)]
    asr_rows = [
        row | {"messages": [{"role": "user", "content": stage_content("asr", r["keywords"])}]}
        for row, r in zip(rows, ours, strict=True)
    ]
    write_jsonl(tmp_path / "stage1.jsonl", stage_one)
    write_jsonl(tmp_path / "asr.jsonl", asr_rows)
    extract_predicted_keywords(tmp_path / "stage1.jsonl", tmp_path / "asr.jsonl", tmp_path / "stage2.jsonl")
    stage_two = [row for _, row in read_rows(tmp_path / "stage2.jsonl")]
    expected = swift_replies(engines["asr"], stage_two)
    assert [row["response"] for row in ours] == expected
    assert len(set(expected)) == 3
    assert ours[0]["picked_keywords"] == ["bob"] and ours[0]["unlisted_keywords"] == ["who"]
    assert ours[0]["replies"] == {"prune": "bob, who", "asr": expected[0]}


def test_rows_encoded_in_threads_do_not_disturb_each_other(loaded):
    """ms-swift encodes a batch in threads; a fast tokenizer keeps "special tokens are text" as its own state."""
    tokenizer = loaded.processor.tokenizer
    text = "<|im_start|>user\nhello<|im_end|>"
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    with ThreadPoolExecutor(4) as pool:
        contexts, prompts = [], []
        for _ in range(1500):
            contexts.append(pool.submit(tokenize_context, tokenizer, "emily, wozniak " * 50))
            prompts.append(pool.submit(tokenizer, text, add_special_tokens=False))
    assert {tuple(prompt.result()["input_ids"]) for prompt in prompts} == {tuple(expected)}
    assert len({tuple(context.result().ids) for context in contexts}) == 1


# one base model, one pass of the tower


def count_tower(monkeypatch, loaded):
    calls = []
    tower = loaded.model.model.audio_tower.conv1
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    return calls


def test_the_audio_tower_runs_once_for_both_stages(monkeypatch, loaded, wavs):
    calls = count_tower(monkeypatch, loaded)
    decoder = Decoder(loaded, ("prune", "asr"), 4)
    outcomes = decoder.decode([decoder.prepare(job(wav)) for wav in wavs])
    assert len(calls) == 1
    assert {outcome.audio_tower_runs for outcome in outcomes} == {1}


def test_with_an_adapter_on_the_tower_each_stage_hears_for_itself(monkeypatch, tiny, asr, wavs, tmp_path):
    other = make_adapter(tiny, tmp_path / "tower", seed=2, targets=TOWER_TOO)
    loaded = LoadedModel(str(tiny), {"prune": other, "asr": asr})
    calls = count_tower(monkeypatch, loaded)
    decoder = Decoder(loaded, ("prune", "asr"), TOKENS)
    (outcome,) = decoder.decode([decoder.prepare(job(wavs[0]))])
    assert len(calls) == 2 and outcome.audio_tower_runs == 2
    # and what each hears is what it would hear alone
    alone = LoadedModel(str(tiny), {"prune": other})
    single = Decoder(alone, ("prune",), TOKENS)
    assert single.decode([single.prepare(job(wavs[0]))])[0].replies["prune"] == outcome.replies["prune"]
    last = Decoder(LoadedModel(str(tiny), {"asr": asr}), ("asr",), TOKENS)
    picked = outcome.reading.picked
    assert last.decode([last.prepare(job(wavs[0], picked))])[0].replies["asr"] == outcome.replies["asr"]


def test_without_an_adapter_the_base_model_speaks(tiny, prune, wavs):
    both = LoadedModel(str(tiny), {"prune": prune, "asr": None})
    base = LoadedModel(str(tiny), {"asr": None})
    first = Decoder(both, ("prune", "asr"), TOKENS)
    (outcome,) = first.decode([first.prepare(job(wavs[0]))])
    second = Decoder(base, ("asr",), TOKENS)
    assert second.decode([second.prepare(job(wavs[0], ["bob"]))])[0].replies["asr"] == outcome.replies["asr"]


def test_a_reply_cut_off_is_told(loaded, wavs):
    decoder = Decoder(loaded, ("prune", "asr"), 9)
    (outcome,) = decoder.decode([decoder.prepare(job(wavs[0]))])
    assert outcome.cut_off == ["asr"]  # "bob, who" and its end are 9 tokens
    assert set(outcome.seconds) == {"audio", "prune", "asr"}


def test_joint_replies_of_any_engine_are_taken_apart(tiny, asr, wavs):
    class Engine:
        max_length = 8192

        def generate(self, stage, prompts, max_new_tokens):
            assert (stage, max_new_tokens) == ("joint", 4)
            assert [tuple(p.embeddings.shape) for p in prompts] == [(len(p.input_ids), 128) for p in prompts]
            return [Reply(joint_reply(["amy", "zoe"], "hi amy"), True, [], [])]

    decoder = Decoder(LoadedModel(str(tiny), {"joint": asr}), ("joint",), 4, engine=Engine())
    (outcome,) = decoder.decode([decoder.prepare(job(wavs[0]))])
    assert outcome.reading == ("hi amy", ["amy"], ["zoe"])


def test_a_second_pruner_plugs_in(loaded, wavs):
    """One that looks at the speech itself, and asks the model nothing."""

    class Loudest:
        asks_model = False

        def prune(self, hearing, utterances):
            speech, mask = hearing.speech("prune")
            assert speech.shape[0] == mask.shape[0] == len(utterances)
            ranked = [RankedKeyword("amy", 0.9), RankedKeyword("eve", 0.5)]
            return [Pruning(ranked, ["eve", "amy"], []) for _ in utterances]

    decoder = Decoder(loaded, ("prune", "asr"), TOKENS, pruner=Loudest())
    (outcome,) = decoder.decode([decoder.prepare(job(wavs[0]))])
    told = Decoder(loaded, ("asr",), TOKENS)
    (expected,) = told.decode([told.prepare(job(wavs[0], ["eve", "amy"]))])
    assert outcome.replies == {"prune": "eve, amy", **expected.replies} and outcome.reading.picked == ["eve", "amy"]
    assert outcome.probabilities == {"amy": 0.9, "eve": 0.5} and outcome.audio_tower_runs == 1


def test_probabilities_are_those_of_the_model(loaded, wavs):
    decoder = Decoder(loaded, ("prune",), TOKENS)
    (outcome,) = decoder.decode([decoder.prepare(job(wavs[0]))])
    encoder, content = decoder.encoder, stage_content("prune", KEYWORDS)
    heard = encoder.hear(load_samples(wavs[0], 16_000), "a")
    prompt = encoder.prompt(content, SYSTEM, heard.tokens)
    reply = encoder.tokenizer("bob,", add_special_tokens=False)["input_ids"]
    inputs = encoder.collate([prompt._replace(input_ids=prompt.input_ids + reply)], torch.device("cpu"))
    inputs |= {"input_features": heard.features[None], "feature_attention_mask": heard.mask[None]}
    with loaded.use("prune") as model, torch.inference_mode():
        log_probs = model(**inputs).logits[0, -len(reply) - 1 : -1].log_softmax(-1)
    expected = log_probs.gather(-1, torch.tensor(reply)[:, None]).sum().exp().item()
    assert outcome.probabilities == {"bob": pytest.approx(expected, abs=2e-4)}


# adapters and settings


def test_adapters_trained_with_other_settings_are_refused(tiny, prune, tmp_path):
    other = make_adapter(tiny, tmp_path / "other", sap_window_size=4)
    with pytest.raises(ValueError, match=rf"--sap_window_size 2 of {prune} contradicts {other}"):
        LoadedModel(str(tiny), {"prune": prune, "asr": other})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_chat_template": False}, "use_chat_template is False; allowed: True"),
        ({"model_type": "qwen2_audio"}, "model_type is 'qwen2_audio'; allowed: 'sap_qwen2_audio'"),
        ({"torch_dtype": "bfloat16"}, r"different types: float32 .*bfloat16 .*--torch_dtype"),
    ],
)
def test_adapters_for_another_prompt_or_type_are_refused(tiny, prune, asr, tmp_path, change, message):
    folder = tmp_path / "changed"
    folder.mkdir()
    for file in asr.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    args = json.loads((asr / "args.json").read_text()) | change
    (folder / "args.json").write_text(json.dumps(args))
    with pytest.raises(ValueError, match=message):
        LoadedModel(str(tiny), {"prune": prune, "asr": folder})


def test_what_is_no_adapter_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist; allowed: the folder of a LoRA checkpoint"):
        LoadedModel(str(tiny), {"asr": "nowhere"})
    with pytest.raises(ValueError, match=r"has no adapter_config\.json; .*goes to --model"):
        LoadedModel(str(tiny), {"asr": str(tiny)})


def test_the_system_prompt_of_a_checkpoint_is_kept(tiny, tmp_path):
    folder = make_adapter(tiny, tmp_path / "system", system="Be brief.")
    assert LoadedModel(str(tiny), {"asr": folder}).systems == {"asr": "Be brief."}


def test_prompts_that_cannot_be_are_refused(loaded):
    encoder = Encoder(loaded.processor, 300)
    with pytest.raises(ValueError, match="2 <audio> tags; allowed: one"):
        encoder.prompt("<audio><audio>x", SYSTEM, 10)
    with pytest.raises(ValueError, match=r"holds <\|AUDIO\|> or <\|context\|> of its own"):
        encoder.prompt("<audio>x<|AUDIO|>", SYSTEM, 10)
    with pytest.raises(ValueError, match="tokens and the model takes 300, reply included"):
        encoder.prompt("<audio>" + "x" * 300, SYSTEM, 10)
