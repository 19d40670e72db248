"""Rows for the tests of the pipeline."""

from __future__ import annotations

import json

from sap2.pipeline.stages import stage_content

KEYWORDS = ["eve", "bob", "amy"]
LISTS = [KEYWORDS, ["bob"], [*KEYWORDS, "steve wozniak", "apple ii"]]
TOKENS = 16


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prune_row(id="u1", content=None, reply=None, **fields):
    content = content or stage_content("prune", ["emily", "steve wozniak"])
    messages = [{"role": "user", "content": content}]
    messages += [{"role": "assistant", "content": reply}] if reply is not None else []
    return {"id": id, "messages": messages, "audios": ["/a.wav"], **fields}


def prune_rows(wavs):
    """Stage-one rows with lists of several lengths, one for each audio."""
    return [
        prune_row(f"u{i}", content=stage_content("prune", keywords)) | {"audios": [wav]}
        for i, (wav, keywords) in enumerate(zip(wavs, LISTS, strict=True))
    ]
