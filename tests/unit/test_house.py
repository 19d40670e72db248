"""The house is in order: sizes of files, what travels with the package, what CI and the docs promise."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 350
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = sorted(
    path
    for folder in ("sap2", "data_tools", "eval", "tests", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".sh"}
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines; allowed: {LONGEST}"


def test_types_travel_with_the_package():
    assert (ROOT / "sap2" / "py.typed").exists()


def test_one_python_is_promised_everywhere():
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    minor = int(lowest.partition(".")[2])
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{minor}"
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert f"(3, {minor})" in (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    named = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text]
    assert re.findall(r'"(3\.\d+)"', workflow) == named and named[0] == lowest


def test_the_workflow_calls_what_everybody_can_run():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"run: (.+)", workflow) == [".ci/run"]
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_is_named_is_there(page):
    """Of the tables and pictures that say where things are."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])((?:sap2|data_tools|tests|docs|eval|\.ci)/[\w./]*[\w/])", text)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_room_is_on_the_plan():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "sap2").iterdir() if (path / "__init__.py").exists()]
    assert rooms and not [name for name in rooms if f"sap2/{name}/" not in text]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_of_the_docs_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
