"""The undocumented names of other packages that are used: they exist, and the ranges of versions were tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sap2.relied_on import EVERYTHING, MS_SWIFT, TRAINERS_THAT_WRITE, Name, complaints

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    requirement.name: requirement.specifier
    for requirement in map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
}


def test_all_are_there():
    assert complaints() == []
    assert complaints(TRAINERS_THAT_WRITE) == []


def test_each_is_listed_once():
    paths = [name.path for name in EVERYTHING]
    assert len(paths) == len(set(paths))
    assert all(name.why for name in EVERYTHING)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (Name("no_such_package:x", (), "y"), "no_such_package:x is gone (No module named 'no_such_package'); it was "),
        (Name("json:no_such.thing", (), "y"), "json:no_such.thing is gone (module 'json' has no attribute"),
        (Name("json:dumps", ("obj", "colour"), "y"), "json:dumps takes no colour any more; needed for: y"),
    ],
)
def test_complaints(name, complaint):
    (found,) = complaints([name, Name("json:dumps", ("obj",), "z")])
    assert found.startswith(complaint)


def test_overridden_methods_of_the_template_are_listed():
    """A method of ours that extends an inner one of ms-swift's is a use of it."""
    from swift.template import Template

    from sap2.ms_swift.template import SAP2Qwen2AudioTemplate

    overridden = {name for name in vars(SAP2Qwen2AudioTemplate) if callable(getattr(Template, name, None))}
    listed = {name.path.rpartition(".")[2] for name in MS_SWIFT}
    assert {name for name in overridden if not name.startswith("__")} <= listed


def test_the_ranges_are_what_was_run():
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    newest = re.search(r"transformers-(\d+\.\d+)\.", (ROOT / "Makefile").read_text())[1]
    transformers = REQUIREMENTS["transformers"]
    assert f">={pinned['transformers'].rpartition('.')[0]}" in str(transformers)
    assert transformers.contains(f"{newest}.99")
    major, minor = newest.split(".")
    assert not transformers.contains(f"{major}.{int(minor) + 1}.0")
    assert REQUIREMENTS["ms-swift"].contains(pinned["ms_swift"])
    assert not REQUIREMENTS["ms-swift"].contains("4.7.0")
