"""Shared fixtures: a tiny checkpoint and real speech, each made once; torch on one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import sap2  # noqa: F401  before any test imports ms-swift, which may be without our .pth file

os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
