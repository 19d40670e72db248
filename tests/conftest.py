"""Shared fixtures: a tiny checkpoint and real speech, each made once; torch on one thread."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from serving import free_port

import sap2  # noqa: F401  before any test imports ms-swift, which may be without our .pth file

# the same examples in every run, and no limit of time: where others use the machine, any example may take long
settings.register_profile("sap2", deadline=None, derandomize=True)
settings.load_profile("sap2")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# what the commands print is buffered, as it is for users
os.environ.pop("PYTHONUNBUFFERED", None)
# ms-swift opens port 29500 by itself, in this process too: another process of pytest-xdist would find it taken
os.environ["MASTER_PORT"] = str(free_port())
# a job in the background starts with Ctrl-C ignored, and so would the commands that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    """Tensors of a few numbers are slower on two threads, and much slower where others use the machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny Qwen2-Audio checkpoint with random weights, as ``sap2 make-tiny`` writes it. Not to be changed."""
    from sap2.tiny.checkpoint import make_tiny

    return make_tiny(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def speeches():
    """Three utterances of different lengths, float32 at 16 kHz."""
    from sap2.tiny.speech import speak

    return [
        speak("hi guys i'm emily wozniak"),
        speak("the wozniak machine hears two words", "en-gb-x-rp+f2"),
        speak("short", "en-us+m3"),
    ]


@pytest.fixture(scope="session")
def wavs(speeches, tmp_path_factory) -> list[str]:
    """The same as 16-bit wav files."""
    import soundfile

    folder = tmp_path_factory.mktemp("wav")
    paths = [str(folder / f"utt{number}.wav") for number in range(len(speeches))]
    for path, samples in zip(paths, speeches, strict=True):
        soundfile.write(path, samples, 16_000)
    return paths


@pytest.fixture(scope="session")
def processor(tiny):
    """Ours, of the tiny checkpoint."""
    from sap2 import SAP2Qwen2AudioProcessor

    return SAP2Qwen2AudioProcessor.from_pretrained(tiny)


@pytest.fixture(scope="session")
def upstream(tiny):
    """The tiny checkpoint in upstream's own class."""
    from transformers import Qwen2AudioForConditionalGeneration

    return Qwen2AudioForConditionalGeneration.from_pretrained(tiny).eval()


@pytest.fixture(scope="session")
def shared_model(tiny):
    from sap2 import SAP2Qwen2AudioForConditionalGeneration

    return SAP2Qwen2AudioForConditionalGeneration.from_pretrained(tiny)


@pytest.fixture
def model(shared_model):
    """The tiny checkpoint in our class, as loaded, in evaluation mode."""
    yield shared_model.eval()
    shared_model.zero_grad()


@pytest.fixture
def encode(processor, speeches):
    """Inputs of a list of rows, as (text, indices of its audios)."""

    def encode(rows, side="right"):
        processor.tokenizer.padding_side = side
        audios = [speeches[index] for _, indices in rows for index in indices]
        return processor(text=[text for text, _ in rows], audio=audios or None, padding=True, return_tensors="pt")

    return encode


@pytest.fixture(scope="session")
def make_template(tiny):
    """A template as the commands make it; ``mode`` train or transformers (inference)."""
    from swift.model import get_processor
    from swift.template import get_template

    def make(mode="train", sap_settings=None, **kwargs):
        processor = get_processor(str(tiny), model_type="sap_qwen2_audio", sap_settings=sap_settings)
        template = get_template(processor, **kwargs)
        template.set_mode(mode)
        return template

    return make


@pytest.fixture(scope="session")
def training(make_template):
    return make_template()


@pytest.fixture(scope="session")
def inference(make_template):
    return make_template("transformers")


@pytest.fixture(scope="session")
def prune(tiny, wavs, tmp_path_factory):
    """A LoRA checkpoint of stage one that learnt to pick "bob", and to reply "who", which is in no list."""
    from pipeline_helpers import make_adapter
    from pipeline_rows import LISTS

    folder = tmp_path_factory.mktemp("adapters") / "prune"
    every = [(keywords, wav) for keywords in LISTS for wav in wavs]
    lists, heard = [keywords for keywords, _ in every], [wav for _, wav in every]
    return make_adapter(tiny, folder, learn=("prune", lists, "bob, who"), wavs=heard)


@pytest.fixture(scope="session")
def asr(tiny, tmp_path_factory):
    """One of stage two; random, so that every token of the prompt matters for what it says."""
    from pipeline_helpers import make_adapter

    return make_adapter(tiny, tmp_path_factory.mktemp("adapters") / "asr", seed=1)
