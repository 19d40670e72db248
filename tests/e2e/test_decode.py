"""Decoding through ``swift infer``, ``export`` and ``deploy``: every way gives the same text."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import free_port

from .conftest import SWIFT, environment, infer_arguments, read_results, responses, run_swift

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def decode(corpus, trained, tmp_path_factory):
    """``swift infer`` in this process (one start for many runs): replies by audio path."""
    from swift.pipelines import infer_main

    folder = tmp_path_factory.mktemp("decode")

    def run(name: str, *more: str, rows: Path = corpus.test, source=("--adapters", str(trained.checkpoint))):
        result = folder / f"{name}.jsonl"
        infer_main([*source, *infer_arguments(rows, result, *more)])
        return responses(result)

    return run


def test_two_ranks_decode_every_row_once_and_keep_the_order(corpus, decoded):
    rows = [json.loads(line) for line in corpus.test.read_text().splitlines()]
    results = read_results(decoded)
    assert [row["audios"] for row in results] == [row["audios"] for row in rows]
    assert [row["labels"] for row in results] == [row["messages"][-1]["content"] for row in rows]
    assert [row["id"] for row in results] == [row["id"] for row in rows]
    assert len({row["response"] for row in results}) > 1


def test_one_by_one_equals_batched(decode, decoded):
    assert decode("single", "--max_batch_size", "1") == responses(decoded)


def test_streaming_equals_not_streaming(decode, decoded):
    assert decode("stream", "--stream", "true") == responses(decoded)


def test_beams_batched_equal_beams_one_by_one(decode):
    beams = decode("beams", "--num_beams", "3", "--max_batch_size", "4")
    assert beams == decode("beams-single", "--num_beams", "3", "--max_batch_size", "1")


def test_repeated_flags_are_allowed(decode, decoded):
    flags = ("--sap_window_size", "2", "--compressor_hidden_size", "128", "--num_attention_heads", "4")
    assert decode("flags", *flags, "--max_batch_size", "8") == responses(decoded)


def test_contradicting_flag_is_refused(decode):
    from sap2.errors import InputError

    with pytest.raises(InputError, match=r"--sap_window_size 4 contradicts .*checkpoint-8.* --sap_window_size 2"):
        decode("contradiction", "--sap_window_size", "4")


def test_bypassing_backend_is_refused(decode):
    from sap2.errors import InputError

    with pytest.raises(InputError, match=r"--infer_backend vllm would decode without the context.*transformers"):
        decode("vllm", "--infer_backend", "vllm")


def test_the_row_of_the_original_readme_decodes(corpus, decode, decoded):
    """Inline audio and ``audios`` both, keywords separated by spaces."""
    rows = []
    for line in corpus.test.read_text().splitlines():
        row = json.loads(line)
        row["audios"] = row["audios"][0]
        content = row["messages"][0]["content"].replace("<audio>", f"<audio>{row['audios']}</audio>")
        row["messages"][0]["content"] = content.replace(", ", " ")
        rows.append(json.dumps(row))
    path = corpus.root / "original.jsonl"
    path.write_text("\n".join(rows))
    assert decode("original", rows=path).keys() == responses(decoded).keys()


def test_merged_model_decodes_the_same_without_model_type(corpus, trained, decode, decoded):
    merged = corpus.root / "merged"
    run_swift("export", "--adapters", str(trained.checkpoint), "--merge_lora", "true", "--output_dir", str(merged))
    config = json.loads((merged / "config.json").read_text())
    assert config["model_type"] == "sap_qwen2_audio"
    assert config["sap_window_size"] == 2
    assert decode("merged", "--max_batch_size", "4", source=("--model", str(merged))) == responses(decoded)


def test_plain_transformers_and_peft_decode_the_same(corpus, trained, decoded):
    import soundfile
    from peft import PeftModel

    from sap2 import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor

    settings = {"sap_pooling": "salience", "sap_window_size": 2, "sap_min_positions": 64}
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(corpus.model, **settings)
    model = PeftModel.from_pretrained(model, trained.checkpoint).eval()
    processor = SAP2Qwen2AudioProcessor.from_pretrained(corpus.model, **settings)
    row = json.loads(corpus.test.read_text().splitlines()[0])
    user = row["messages"][0]["content"].removeprefix("<audio>")
    messages = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": user}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    audio, _ = soundfile.read(row["audios"][0], dtype="float32")
    inputs = processor(text=text, audio=audio, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    reply = processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert reply == re.sub(r"<\|[^|]*\|>", "", responses(decoded)[row["audios"][0]])


@contextlib.contextmanager
def deployed(*arguments: str):
    """An OpenAI client of a ``swift deploy`` that ends with the block."""
    port = free_port()
    command = ["deploy", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [SWIFT, *command, "--temperature", "0", "--max_new_tokens", "60"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # swift starts the server as a child and does not end it
    )
    try:
        yield connect(server, port)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def in_base64(path: str) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def test_deploy_answers_a_request_with_audio_and_context(corpus, trained, decoded):
    row = json.loads(corpus.test.read_text().splitlines()[0])
    with deployed("--adapters", str(trained.checkpoint)) as client:
        model = client.models.list().data[0].id
        reply = ask(client, model, in_base64(row["audios"][0]), row["messages"][0]["content"])
        assert reply == responses(decoded)[row["audios"][0]]
        with pytest.raises(Exception, match="has no audio before it"):
            client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": row["messages"][0]["content"].split("<audio>")[1]}]
            )


def test_deploy_answers_with_two_named_adapters_at_once(corpus):
    prompts = {"asr": corpus.test, "prune": corpus.root / "test.prune.jsonl"}
    rows = {name: [json.loads(line) for line in path.read_text().splitlines()[:4]] for name, path in prompts.items()}
    named = ["--adapters", "asr=sap2-tiny-asr", "prune=sap2-tiny-prune", "--max_batch_size", "4"]
    with deployed("--model", "sap2-tiny", "--model_type", "sap_qwen2_audio", *named) as client:
        asked = [
            (name, row) for four in zip(*([(n, r) for r in rows[n]] for n in rows), strict=True) for name, row in four
        ]

        def reply(name, row):
            return ask(client, name, in_base64(row["audios"][0]), row["messages"][0]["content"])

        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(reply, *zip(*asked, strict=True)))
        assert together == [reply(*one) for one in asked]
    right = [
        text == row["messages"][-1]["content"]
        for text, (name, row) in zip(together, asked, strict=True)
        if name == "asr"
    ]
    assert sum(right) >= 2, together


def test_strict_false_leaves_bad_rows_out(corpus, decode, decoded, tmp_path, capfd):
    rows = [json.loads(line) for line in corpus.test.read_text().splitlines()]
    bad = [rows[1]["audios"][0], rows[4]["audios"][0]]
    rows[1]["audios"] = ["/nowhere.flac"]
    text = rows[4]["messages"][0]["content"]
    rows[4]["messages"][0]["content"] = text.replace("<|endofcontext|>", ", zolden" * 400 + "<|endofcontext|>")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--strict", "false", "--max_length", "1000", "--max_batch_size", "3"]
    assert decode("skip", *options, rows=path) == {
        audio: reply for audio, reply in responses(decoded).items() if audio not in bad
    }
    error = capfd.readouterr().err
    assert "sap2: 2 bad rows were skipped (--strict false)" in error
    assert f"sap2: skipped: row {rows[1]['id']}: audio /nowhere.flac does not exist" in error
    assert f"sap2: skipped: row {rows[4]['id']}: Current length of row" in error


def connect(server, port: int):
    """An OpenAI client once the server answers."""
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
    deadline = time.monotonic() + 240
    while True:
        assert server.poll() is None, "swift deploy ended"
        assert time.monotonic() < deadline
        try:
            client.models.list()
            return client
        except openai.APIConnectionError:
            time.sleep(0.5)


def ask(client, model: str, audio: str, text: str) -> str:
    content = [
        {"type": "audio_url", "audio_url": {"url": audio}},
        {"type": "text", "text": text.removeprefix("<audio>")},
    ]
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=60
    )
    return chat.choices[0].message.content


def test_scores_come_out_of_the_results(decoded, tmp_path):
    script = Path(__file__).parents[2] / "eval" / "slidespeech_wer.py"
    scores = tmp_path / "wer.json"
    subprocess.run(
        [sys.executable, script, "--input_file", decoded, "--json", scores],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads(scores.read_text())["systems"]["hyp"]["wer"]["ref_words"] > 0
