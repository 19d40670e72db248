"""Whole talks: transcripts of ``sap2 transcribe`` against what was said from beginning to end, without times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sap2.errors import InputError
from sap2.scoring.inputs import TestSet, Utterance
from sap2.slides.captions import read_captions
from sap2.slides.sources import KeywordOptions, read_keywords
from sap2.tables import read_text

SYSTEM = "transcript"
_CAPTIONS = (".srt", ".vtt")


def load_transcripts(transcripts: Sequence[Path], references: Sequence[Path], keywords: str | None = None) -> TestSet:
    """A test set whose utterances are whole talks.

    Args:
        transcripts: .json, .txt, .srt or .vtt, as ``sap2 transcribe`` writes them.
        references: as many as transcripts, each of the same name or in the same order; or one, of the talk of which the
            transcripts are the parts, in their order.
        keywords: slides or a list of keywords of all talks, as ``sap2 transcribe --keywords`` takes them.

    Raises:
        InputError: the numbers do not fit, or a file cannot be read; names it.
    """
    if len(references) not in (1, len(transcripts)):
        raise InputError(
            f"{len(transcripts)} transcripts and {len(references)} references; allowed: a reference for each, or one"
        )
    listed = list(read_keywords(keywords, KeywordOptions())) if keywords else []
    if len(references) == 1:
        texts = {references[0].stem: (read_words(references[0]), " ".join(map(read_words, transcripts)))}
    else:
        by_name = {path.stem: path for path in references}
        named = set(by_name) == {path.stem for path in transcripts}
        pairs = [
            (by_name[path.stem] if named else ref, path) for path, ref in zip(transcripts, references, strict=True)
        ]
        texts = {path.stem: (read_words(ref), read_words(path)) for ref, path in pairs}
    utterances = [Utterance(name, ref, listed, session=name) for name, (ref, _) in texts.items()]
    return TestSet(utterances, {SYSTEM: {name: hyp for name, (_, hyp) in texts.items()}})


def read_words(path: Path) -> str:
    """The text of a transcript: of captions what is spoken, of JSON the field ``text``.

    Raises:
        InputError: it is none; names the file.
    """
    if path.suffix.lower() in _CAPTIONS:
        return " ".join(cue.text for cue in read_captions(path))
    text = read_text(path)
    if path.suffix.lower() != ".json":
        return text
    try:
        found = json.loads(text)["text"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise InputError(f"{path}: no transcript; allowed: .json of sap2 transcribe, with a text")
    return found
