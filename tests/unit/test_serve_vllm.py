"""``sap2 serve --engine vllm`` gives the words of the transcriber, to callers who ask at the same time.

The environment with vLLM is made by ``.ci/vllm-env``; elsewhere these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI
from processes import names_left, offspring
from serving import free_port, make_keywords, make_utterances, running, vllm_command

from sap2.pipeline.transcriber import Transcriber

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; .ci/vllm-env"),
]


def test_the_server_with_vllm_gives_the_words_of_the_transcriber(tmp_path):
    keywords, audios = make_keywords(40), make_utterances(tmp_path / "audio")
    port = free_port()
    command = vllm_command(port, sys.executable)

    def ask(url, audio, stages):
        client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300)
        body = {"keywords": ", ".join(keywords), "stages": stages}
        with audio.open("rb") as stream:
            return client.audio.transcriptions.create(model="sap2-tiny", file=stream, extra_body=body).text

    with running(command, port, "/health", tmp_path / "log") as server, ThreadPoolExecutor(8) as pool:
        asked = [(audio, stages) for stages in ("asr", "prune,asr") for audio in audios]
        found = list(pool.map(lambda one: ask(server.url, *one), asked))
        started = offspring(server.process.pid)
    assert server.process.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    assert started and not names_left(started, 60)
    expected = []
    for stages in ("asr", "prune,asr"):
        prune = "sap2-tiny-prune" if stages != "asr" else None
        transcriber = Transcriber("sap2-tiny", prune, "sap2-tiny-asr", stages=stages)
        expected += [transcriber.transcribe(audio, keywords=keywords).text for audio in audios]
    assert found == expected
