"""vLLM says what transformers says, reply by reply.

The environment with vLLM is made by ``.ci/vllm-env``; elsewhere these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import types
from pathlib import Path

import pytest
import torch
from model_rows import ROWS
from talk_rows import utterances_of_talks

from sap2.audio import load_samples
from sap2.errors import InputError
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.engines.base import EmbeddedPrompt
from sap2.pipeline.engines.choice import open_engine
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.utterances import Job
from sap2.progress import Progress

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; .ci/vllm-env"),
]
MODEL = ("sap2-tiny", {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"})
SMALL = {"kv_cache_memory_bytes": 1 << 28}
TOKENS = 48


@pytest.fixture(scope="module")
def whole():
    """The model as transformers has it."""
    return LoadedModel(*MODEL)


@pytest.fixture(scope="module")
def opened():
    """The model without its language model, and vLLM with that."""
    loaded, engine = open_engine("vllm", *MODEL, arguments=SMALL)
    yield loaded, engine
    engine.close()


@pytest.fixture(scope="module")
def engine(opened):
    return opened[1]


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    return utterances_of_talks(tmp_path_factory.mktemp("talks"))


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def jobs_of(path):
    return [
        Job(row["audio"], lambda row=row: load_samples(row["audio"], 16_000), row["keywords"]) for row in rows_of(path)
    ]


def outcomes(decoder, jobs):
    batches = [jobs[start : start + 8] for start in range(0, len(jobs), 8)]
    stream = decoder.stream(batches, lambda job: job, 2, Progress("decode", shown=False))
    return {job.id: out for done in stream for job, out in done}


def test_every_reply_on_the_talks_is_the_same(whole, opened, talks):
    jobs = jobs_of(talks)
    assert len(jobs) >= 16
    expected = outcomes(Decoder(whole, ("prune", "asr"), TOKENS), jobs)
    found = outcomes(Decoder(opened[0], ("prune", "asr"), TOKENS, engine=opened[1]), jobs)
    assert {id: out.replies for id, out in found.items()} == {id: out.replies for id, out in expected.items()}
    assert {id: (out.reading, out.cut_off) for id, out in found.items()} == {
        id: (out.reading, out.cut_off) for id, out in expected.items()
    }
    for id, outcome in expected.items():
        assert found[id].probabilities == pytest.approx(outcome.probabilities, abs=1e-3)


def test_one_adapter_is_merged_into_the_weights(whole, talks):
    """For stage two alone and with the spotter before it; every reply stays, and vLLM has no LoRA to apply."""
    jobs = jobs_of(talks)
    loaded, engine = open_engine("vllm", MODEL[0], {"asr": "sap2-tiny-asr"}, arguments=SMALL)
    try:
        assert not engine._loras and engine._engine.vllm_config.lora_config is None
        for stages, prune in ((("asr",), None), (("prune", "asr"), PruneOptions("spot"))):
            expected = outcomes(Decoder(whole, stages, TOKENS, prune=prune), jobs)
            found = outcomes(Decoder(loaded, stages, TOKENS, engine=engine, prune=prune), jobs)
            assert {id: out.replies for id, out in found.items()} == {id: out.replies for id, out in expected.items()}
    finally:
        engine.close()


@pytest.fixture(scope="module")
def prompts(whole, speeches):
    """Without audio, with one and with three, without context, with several, and with one of 3,000 tokens."""
    from sap2.model.audios import Audios

    processor = whole.processor
    long = ", ".join(f"word{number:04}" for number in range(330))
    with_long = (ROWS[0][0].replace("emily, wozniak, macintosh", long), ROWS[0][1])
    made, longest = [], 0
    for text, audios in [*ROWS, with_long, ("a long text. " * 150, [])]:
        inputs = processor(text=text, audio=[speeches[index] for index in audios] or None, return_tensors="pt")
        longest = max(longest, inputs.get("context_input_ids", inputs["input_ids"][:, :0]).shape[1])
        with torch.inference_mode():
            model = whole.model.model
            ids = inputs["input_ids"]
            embeddings = model.get_input_embeddings()(ids) if not audios else model.embed(ids, Audios.take_from(inputs))
        made.append(EmbeddedPrompt(ids[0].tolist(), embeddings[0]))
    assert longest > 3000 and len(made[-1].input_ids) > 1000
    return made


def check_same(replies, expected):
    assert [(reply.text, reply.complete, reply.pieces) for reply in replies] == [
        (reply.text, reply.complete, reply.pieces) for reply in expected
    ]
    for reply, other in zip(replies, expected, strict=True):
        assert reply.log_probs == pytest.approx(other.log_probs, abs=1e-3)


@pytest.mark.parametrize("stage", ["prune", "asr", "neither"])
def test_rows_of_every_kind_get_the_same_replies_with_either_adapter_and_without(whole, engine, prompts, stage):
    expected = [TransformersEngine(whole).generate(stage, [prompt], TOKENS)[0] for prompt in prompts]
    check_same(engine.generate(stage, prompts, TOKENS), expected)


def test_both_adapters_speak_in_one_batch(whole, engine, prompts):
    stages = ["prune", "asr"] * len(prompts)
    futures = [engine.submit(stage, prompts[n // 2], TOKENS) for n, stage in enumerate(stages)]
    alone = [TransformersEngine(whole).generate(stage, [prompts[n // 2]], TOKENS)[0] for n, stage in enumerate(stages)]
    check_same([future.result() for future in futures], alone)


def test_pieces_of_a_stream_are_the_reply(engine, prompts):
    counts = []
    for prompt in prompts:
        pieces = list(engine.stream("asr", prompt, TOKENS))
        assert "".join(pieces) == engine.generate("asr", [prompt], TOKENS)[0].text
        counts.append(len(pieces))
    assert max(counts) > 5


def test_a_stream_that_nobody_reads_on_ends_and_others_go_on(engine, prompts):
    talkative = next(prompt for prompt in prompts if len(engine.generate("asr", [prompt], TOKENS)[0].text) > 5)
    reading = engine.stream("asr", talkative, TOKENS)
    assert next(reading)
    reading.close()
    assert engine.generate("asr", [talkative], 4)[0].text


def test_prefix_caching_chunked_prefill_and_a_repetition_penalty_change_nothing_else(whole, prompts, monkeypatch):
    """A penalty looks at the ids of the prompt too, which vLLM reads nothing else from."""
    monkeypatch.setattr(whole.model.generation_config, "repetition_penalty", 1.3)
    expected = [TransformersEngine(whole).generate("asr", [prompt], TOKENS)[0] for prompt in prompts]
    arguments = SMALL | {"enable_prefix_caching": True, "max_num_batched_tokens": 256, "max_num_seqs": 8}
    load = LoadedModel.__init__

    def with_penalty(self, *args, **kwargs):
        load(self, *args, **kwargs)
        self.model.generation_config.repetition_penalty = 1.3

    monkeypatch.setattr(LoadedModel, "__init__", with_penalty)
    _, engine = open_engine("vllm", *MODEL, arguments=arguments)
    try:
        for _ in range(2):  # the second time from the cache
            check_same(engine.generate("asr", prompts, TOKENS), expected)
    finally:
        engine.close()


def test_what_vllm_cannot_do_is_refused_before_it_starts(monkeypatch):
    for arguments, message in [
        ({"gpu_memory": 0.5}, "vLLM has no argument gpu_memory"),
        ({"dtype": "float16"}, "dtype is settled by --torch_dtype"),
        ({"speculative_config": {}}, "speculative_config is settled by vLLM, which cannot guess ahead"),
    ]:
        with pytest.raises(InputError, match=message):
            open_engine("vllm", *MODEL, arguments=arguments)
    load = LoadedModel.__init__

    def with_ngrams(self, *args, **kwargs):
        load(self, *args, **kwargs)
        self.model.generation_config.no_repeat_ngram_size = 3

    monkeypatch.setattr(LoadedModel, "__init__", with_ngrams)
    with pytest.raises(InputError, match="no_repeat_ngram_size 3, which --engine vllm does not follow"):
        open_engine("vllm", *MODEL)


def test_lora_on_a_cpu_is_applied_adapter_by_adapter():
    """Against a slow reference; a token without an adapter is left alone."""
    from sap2.pipeline.engines.vllm_cpu import bgmv_expand, bgmv_expand_slice, bgmv_shrink

    generator = torch.Generator().manual_seed(0)
    inputs, first, second = (torch.randn(s, generator=generator) for s in ((9, 16), (2, 1, 4, 16), (2, 1, 24, 4)))
    adapters = torch.tensor([0, 1, -1, 1, 0, 0, -1, 1, 0])
    small, large = torch.full((9, 4), 7.0), torch.randn((9, 30), generator=generator)
    before = large.clone()
    bgmv_shrink(inputs, first, small, adapters, 2.0)
    bgmv_expand(small, second, large, adapters)
    bgmv_expand_slice(small, second, large, adapters, 6, 24)
    for row, adapter in enumerate(adapters.tolist()):
        if adapter < 0:
            assert not small[row].any() and torch.equal(large[row], before[row])
            continue
        reduced = 2.0 * first[adapter, 0] @ inputs[row]
        added = second[adapter, 0] @ reduced
        torch.testing.assert_close(small[row], reduced)
        expected = before[row].clone()
        expected[:24] += added
        expected[6:] += added
        torch.testing.assert_close(large[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "adapters", [[0, 1, -1, 1, 2, 0], [1] * 6, [-1] * 6, [2, -1, 2, 2, -1, -1], [0, 2, 2, 0, 0, 0]]
)
def test_lora_of_a_layer_on_a_cpu_is_that_of_each_token(adapters):
    """Three slices, as of queries, keys and values, against a slow reference."""
    from sap2.pipeline.engines.vllm_cpu import adapter_owners, add_lora_linear

    generator = torch.Generator().manual_seed(0)
    widths = (10, 6, 6)
    x, before = torch.randn((6, 16), generator=generator), torch.randn((6, 22), generator=generator)
    first = [torch.randn((3, 1, 4, 16), generator=generator) for _ in widths]
    second = [torch.randn((3, 1, width, 4), generator=generator) for width in widths]
    wrapper = types.SimpleNamespace(adapter_owners=adapter_owners(torch.tensor(adapters)), joined_loras={})
    for y in (before.clone(), before.clone()):  # the second time with the matrices of the first
        add_lora_linear(wrapper, y, x, first, second, 0.5, widths)
    assert len(wrapper.joined_loras) == (max(adapters) >= 0)
    for row, adapter in enumerate(adapters):
        expected = before[row]
        if adapter >= 0:
            pairs = zip(first, second, strict=True)
            expected = expected + torch.cat([0.5 * b[adapter, 0] @ (a[adapter, 0] @ x[row]) for a, b in pairs])
        torch.testing.assert_close(y[row], expected, atol=1e-4, rtol=1e-4)


def test_joined_matrices_are_forgotten_when_an_adapter_takes_a_slot():
    from sap2.pipeline.engines.vllm_cpu import _forgetting_joined

    wrapper = types.SimpleNamespace(joined_loras={"old": None})
    manager = types.SimpleNamespace(punica_wrapper_mapping={"language_model": wrapper})
    assert _forgetting_joined(lambda self, lora_id: False)(manager, 1) is False and wrapper.joined_loras
    assert _forgetting_joined(lambda self, lora_id: True)(manager, 1) is True and not wrapper.joined_loras


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_cpu_give_what_the_steps_give(dtype):
    """In float32 by a kernel, in others by the steps themselves: the same bits."""
    from vllm.model_executor.layers.activation import SiluAndMul
    from vllm.model_executor.layers.layernorm import RMSNorm

    from sap2.pipeline.engines.vllm_cpu import rms_norm, silu_and_mul

    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn((7, 64), generator=generator).to(dtype) for _ in range(2))
    weight = torch.nn.Parameter(torch.rand(64, generator=generator).to(dtype))
    layer = types.SimpleNamespace(weight=weight, variance_epsilon=1e-5, has_weight=True, variance_size_override=None)
    layer.forward_native = types.MethodType(RMSNorm.forward_native, layer)
    layer.pass_weight = layer.pass_weight_add = True
    gate = types.SimpleNamespace(forward_native=SiluAndMul.forward_native)
    total = x.float() + residual.float()

    def normed(rows):
        return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + 1e-5) * weight.float()

    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    gated = torch.nn.functional.silu(x[:, :32].float()) * x[:, 32:].float()
    torch.testing.assert_close(silu_and_mul(gate, x).float(), gated, **near)
    strided = x.repeat(1, 2)[:, :64]
    for rows in (x, strided):
        torch.testing.assert_close(rms_norm(layer, rows).float(), normed(x.float()), **near)
    both, added = rms_norm(layer, x.clone(), residual.clone())
    torch.testing.assert_close(both.float(), normed(total), **near)
    torch.testing.assert_close(added.float(), total, **near)
