"""Utterances of synthetic talks."""

from __future__ import annotations

from pathlib import Path

from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
from sap2.tiny.plan import TalksOptions
from sap2.tiny.talks import make_talks


def utterances_of_talks(folder: Path) -> str:
    """Sixteen or more utterances, with the keywords of three slides each."""
    root = make_talks(folder / "talks", TalksOptions(talks=6, utterances=8, slides=3, seed=1))
    convert_slidespeech(root, "test", folder / "test.jsonl", folder / "audio", SlideSpeechOptions(slides=3))
    return str(folder / "test.jsonl")
