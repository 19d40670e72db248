"""Calling the scorer, and the worked example of the corpus authors."""

from __future__ import annotations

import json
from pathlib import Path

from commands import sap2


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def row(response, labels, keywords="", **more) -> str:
    context = f"<|startofcontext|>{keywords}<|endofcontext|>"
    messages = [{"role": "user", "content": f"<audio>Transcribe.{context}"}, {"role": "assistant", "content": response}]
    return json.dumps({"response": response, "labels": labels, "logprobs": None, "messages": messages, **more})


def worked_example(tmp_path):
    """The two utterances of the corpus authors' demonstration, in Kaldi style."""
    write(tmp_path / "ref", "id1 NI HAO WO MEN NI HAO", "id2 NI HAO WO MEN")
    write(tmp_path / "hyp", "id1 NI HAO WO MEN WO", "id2 NI HAO IO MEN")
    write(tmp_path / "ocr", "id1 HAO$MEN$OTHER", "id2 HAO$WO$OTHER")
    write(tmp_path / "utt2spk", "id1 talk", "id2 talk")
    return tmp_path


def run(folder: Path, *args: str) -> tuple[int, dict]:
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    code = sap2("score", *args, "--json", out, "--bootstrap", "50")
    return code, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


def kaldi(folder: Path, *more: str) -> tuple[int, dict]:
    return run(folder, "--ref", folder / "ref", "--hyp", folder / "hyp", "--keywords", folder / "ocr", *more)
