"""The README's commands, in order, in an empty folder: ``bash`` and ``python`` blocks run, ``text`` is what they print.

Blocks marked ``sh`` need a GPU, weights or a network, and are not run; their flags are parsed in the unit tests.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
PROGRAM = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", "eval"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.timeout(900)
def test_every_command_of_the_readme_runs_in_order(folder):
    printed = None
    for kind, text in BLOCKS:
        if kind in PROGRAM:
            given = environment(PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
            command = [*PROGRAM[kind], text]
            done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{text}\n{done.stderr[-3000:]}"
            printed = done.stdout
        elif kind == "text":
            assert printed == text
    assert {"talk.srt", "result.jsonl", "report.html"} <= {path.name for path in folder.iterdir()}


def test_there_is_something_to_run():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("bash") >= 5 and kinds.count("python") == 2 and kinds.count("text") == 1


def test_files_that_the_readme_links_to_are_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 15 and not [link for link in links if not (ROOT / link).exists()]


def test_what_is_not_run_is_a_command_of_ours():
    for kind, text in BLOCKS:
        if kind == "sh":
            programs = {shlex.split(line, comments=True)[0] for line in text.replace("\\\n", " ").splitlines()}
            assert {re.sub(r"^[A-Z_]+=.*", "", program) for program in programs} <= {
                *("", "sap2", "swift", "make", "pip", "python", "bash", "curl")
            }
