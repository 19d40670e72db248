"""The examples: every script runs through, and every flag of every command in them exists.

The scripts run with stand-ins for the commands, which write down how they were called; the calls are then parsed by
the parsers of the real ones.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOT_ALONE = {"settings.sh", "common.sh", "quickstart.sh"}
"""Parts of others, and the one whose steps read what those before them wrote."""
SCRIPTS = sorted(path for path in EXAMPLES.rglob("*.sh") if path.name not in NOT_ALONE)
CLASSES = {"sft": "SftArguments", "infer": "InferArguments", "export": "ExportArguments", "deploy": "DeployArguments"}
STAND_IN = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as stream:
    stream.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""
VARIABLES = {
    "PRUNE_CHECKPOINT": "prune/checkpoint-9",
    "ASR_CHECKPOINT": "asr/checkpoint-9",
    "JOINT_CHECKPOINT": "joint/checkpoint-9",
    "NNODES": "2",
    "NODE_RANK": "0",
    "MASTER_ADDR": "10.0.0.1",
}


def calls_of(script: Path, folder: Path) -> list[list[str]]:
    """The commands that a script starts, in order."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("swift", "sap2", "python", "torchrun"):
        (programs / name).write_text(STAND_IN.format(python=sys.executable))
        (programs / name).chmod(stat.S_IRWXU)
    record = folder / "calls.jsonl"
    given = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CALLS": str(record), "WORK": str(folder / "work")}
    given["RUN"] = str(folder / "run")
    subprocess.run(["bash", script], env={**os.environ, **VARIABLES, **given}, cwd=ROOT, check=True, timeout=60)
    return [json.loads(line) for line in record.read_text().splitlines()]


class ParsedError(Exception):
    """The arguments of a command were parsed; it need not run."""


def parse_in_process(monkeypatch, main, argv: list[str]) -> None:
    """Call a command's main up to where its arguments are parsed, and fail where they are refused."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", ["command", *argv])
        with pytest.raises(ParsedError):
            main(argv)


def check_swift(argv: list[str]) -> None:
    import swift.arguments
    from transformers import HfArgumentParser

    import sap2  # noqa: F401

    command, *flags = argv
    parser = HfArgumentParser([getattr(swift.arguments, CLASSES[command])])
    _, unknown = parser.parse_known_args(flags)
    assert not unknown, f"swift {command} does not know {unknown}"


def check(monkeypatch, call: list[str]) -> None:
    program, *argv = call
    if program == "torchrun":
        place = argv.index("-m")
        from torch.distributed.run import get_args_parser

        get_args_parser().parse_args(argv)
        program, argv = "python", argv[place:]
    if program == "python" and argv[0] == "-m":
        module, argv = argv[1], argv[2:]
        program = "sap2" if module == "sap2.cli" else program
    elif program == "python":
        module, argv = Path(argv[0]).with_suffix("").name, argv[1:]
    if program == "swift":
        check_swift(argv)
    elif program == "sap2":
        from sap2.cli import main

        parse_in_process(monkeypatch, main, argv)
    else:
        parse_in_process(monkeypatch, importlib.import_module(module).main, argv)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_flag_of_every_example_exists(monkeypatch, tmp_path, script):
    monkeypatch.syspath_prepend(str(script.parent))  # of commands that lie beside it
    calls = calls_of(script, tmp_path)
    assert calls
    for call in calls:
        check(monkeypatch, call)


PAPER = {"--sap_pooling": "attention", "--sap_window_size": "2", "--num_attention_heads": "4"}
RECIPES = sorted(path for path in SCRIPTS if path.parent.name in {"slidespeech", "slidespeech_1gpu", "librispeech"})


@pytest.mark.parametrize("script", RECIPES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_recipes_of_the_paper_ask_for_its_method(tmp_path, script):
    """Whatever the defaults become."""
    for call in calls_of(script, tmp_path):
        if call[:2] == ["swift", "sft"]:
            assert {name: call[call.index(name) + 1] for name in PAPER} == PAPER
        if call[:2] == ["sap2", "score"] and "slidespeech" in script.parent.name:
            assert call[call.index("--normalize") + 1] == "whisper-en"


@pytest.mark.parametrize(
    "call",
    [
        ["swift", "sft", "--model", "m", "--no_such_flag", "1"],
        ["sap2", "pipeline", "--no_such_flag"],
        ["python", "-m", "data_tools.build_prune", "a", "--output", "b.jsonl", "--no-such-flag"],
        ["python", "eval/slidespeech_wer.py", "--input_file", "a", "--no_such_flag"],
        ["torchrun", "--no_such_flag", "-m", "sap2.cli", "pipeline"],
    ],
    ids=lambda call: call[0],
)
def test_a_flag_that_does_not_exist_is_found(monkeypatch, call):
    with pytest.raises((AssertionError, SystemExit)):
        check(monkeypatch, call)


README = (ROOT / "README.md").read_text(encoding="utf-8")
UNRUN = "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)).replace("\\\n", " ")
"""Commands of the README that need a GPU, weights or a network."""


@pytest.mark.parametrize("line", [line for line in UNRUN.splitlines() if "swift " in line or "sap2 transcribe" in line])
def test_flags_of_the_readme_exist(monkeypatch, line):
    """Those of commands that a test cannot run; the others run, in tests/e2e/test_readme.py."""
    call = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    check(monkeypatch, call)


SERVER = """#!/bin/bash
echo $$ >> "$PIDS"
sleep 600 &
echo $! >> "$PIDS"
wait
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_servers_end_with_their_script(tmp_path, number, code):
    """Their children too, which hold the GPU."""
    (tmp_path / "swift").write_text(SERVER)
    (tmp_path / "swift").chmod(stat.S_IRWXU)
    pids = tmp_path / "pids"
    given = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PIDS": str(pids)}
    environment = {**os.environ, **VARIABLES, **given}
    with subprocess.Popen(["bash", EXAMPLES / "deploy" / "serve.sh"], env=environment) as script:
        while not pids.exists() or len(pids.read_text().splitlines()) < 4:
            assert script.poll() is None
            time.sleep(0.01)
        script.send_signal(number)
        assert script.wait(timeout=30) == code
    assert not [pid for pid in map(int, pids.read_text().split()) if _is_running(pid)]


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def test_scripts_can_be_started():
    scripts = [path for path in EXAMPLES.rglob("*.sh") if path.name not in {"settings.sh", "common.sh"}]
    assert not [path for path in scripts if not os.access(path, os.X_OK)]


def test_the_client_asks_both_servers(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES / "deploy"))
    client = importlib.import_module("client")
    asked = []

    def ask(url, audio, prompt, api_key="none"):
        asked.append((url, prompt))
        return "emily, ghost" if "Select" in prompt else "hi emily"

    monkeypatch.setattr(client, "ask", ask)
    client.main([str(tmp_path / "a.flac"), "--keywords", "emily, wozniak", "--prune-url", "http://p/v1"])
    assert capsys.readouterr().out == "hi emily\n"
    assert [url for url, _ in asked] == ["http://p/v1", "http://127.0.0.1:8000/v1"]
    assert asked[1][1].endswith("<|startofcontext|>emily<|endofcontext|>")


def test_the_presentation_of_the_example_has_the_words_of_its_text():
    pytest.importorskip("pptx")
    from sap2.slides.decks import read_deck

    folder = EXAMPLES / "my_talk"
    texts, slides = (read_deck(str(folder / name)) for name in ("slides.md", "slides.pptx"))
    words = [[re.findall(r"\w+", page) for page in deck] for deck in (texts, slides)]
    assert words[0] == words[1] and len(words[0]) == 2
