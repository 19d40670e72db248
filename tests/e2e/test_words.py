"""Times and probabilities of words as `sap2 transcribe` writes them, against the truth of five minutes of speech."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import run_python

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each word of the transcript: the word, and the one that was said there or None."""
    root = tmp_path_factory.mktemp("words")
    size = ["--talks", "2", "--dev-talks", "0", "--test-talks", "1", "--slides", "27", "--utterances", "5"]
    run_python("-m", "sap2.cli", "make-talks", str(root / "talks"), *size, "--max-seconds", "3", "--seed", "83")
    sys.path.append(str(ROOT / "eval"))
    from word_truth import match_words, read_talks

    from sap2.pipeline.types import Segment, Transcript, Word

    (talk,) = read_talks(root / "talks", "test")
    names = list(dict.fromkeys(keyword for slide in talk.request.slides for keyword in slide.keywords))
    (root / "names.txt").write_text("\n".join(names[:40]) + "\n")
    shipped = ["--model", "sap2-tiny", "--asr-adapter", "sap2-tiny-asr", "--keywords", str(root / "names.txt")]
    output = ["--word_timestamps", "--max_segment_seconds", "3", "--output", str(root / "talk.json")]
    run_python("-m", "sap2.cli", "transcribe", str(talk.request.audio), *shipped, *output)
    written = json.loads((root / "talk.json").read_text())
    segments = []
    for segment in written.pop("segments"):
        words = [Word(word.pop("word"), **word) for word in segment.pop("words")]
        segments.append(Segment(**segment, words=words))
    return match_words(Transcript.from_segments("talk", segments, written["audio_seconds"]), talk.words)


def starts(found):
    """When the words that were transcribed as they were said begin, and by how much that is wrong: seconds."""
    return np.array([(said.start, word.start - said.start) for word, said in found if said is not None]).T


def test_words_begin_when_they_are_said(found):
    said, errors = starts(found)
    assert said[-1] > 285 and len(said) > 600
    assert np.abs(errors).mean() <= 0.060
    assert (np.abs(errors) <= 0.120).mean() >= 0.95


def test_times_do_not_drift(found):
    said, errors = starts(found)
    assert abs(np.polyfit(said / 60, errors, 1)[0]) < 0.005  # seconds a minute
    times = [word.start for word, _ in found]
    assert times == sorted(times)


def test_probabilities_are_true(found):
    sure = np.array([(word.probability, said is not None) for word, said in found if word.probability is not None])
    places = np.minimum((sure[:, 0] * 10).astype(int), 9)
    groups = [sure[places == place] for place in range(10)]
    error = sum(len(g) * abs(g[:, 0].mean() - g[:, 1].mean()) for g in groups if len(g)) / len(sure)
    assert error <= 0.05
    wrong, right = sure[sure[:, 1] == 0, 0], sure[sure[:, 1] == 1, 0]
    assert len(wrong) > 10 and np.median(wrong) < 0.7 < 0.97 < np.median(right)
