"""``sap2 doctor``: what is wrong with this installation, and what to do about it.

Everything that imports torch, DeepSpeed or ms-swift runs in a child process (:mod:`sap2._probe`), so that a broken or
hanging package is a line of the report and not the end of it.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import platform
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sap2 import _autoload
from sap2.caches import caches, unwritable

DISTRIBUTION = "sap2-asr"
PTH_NAME = "sap2_autoload.pth"
MODEL_TYPE = "sap_qwen2_audio"
REINSTALL = "install sap2 again from its checkout or wheel: pip install FOLDER-OR-WHEEL"
"""sap2 is on no package index, and anyone could take its name there."""
PLUGIN_FILE = Path(__file__).parent / "plugin" / "sap2_plugin.py"
PROBE_SECONDS = 300
"""How long the imports of the whole stack may take; 20 s are usual, a cold network disk needs minutes."""

OK, NOTE, PROBLEM = "ok", "note", "problem"


class Finding(NamedTuple):
    """One line of the report. ``level`` is ok, note (training works, or works otherwise) or problem (it does not)."""

    level: str
    subject: str
    state: str
    advice: str = ""


def diagnose(probe_seconds: float = PROBE_SECONDS) -> list[Finding]:
    """Look at everything once. Never raises for what it finds."""
    facts = probe(probe_seconds)
    return [
        *check_packages(),
        *check_ms_swift_requirements(),
        *check_caches(),
        *check_gpu(facts),
        *check_deepspeed(facts),
        *check_command(),
        *check_autoload(),
        *check_plugin(facts),
        *check_names(facts),
        *check_speech(facts),
    ]


def probe(seconds: float = PROBE_SECONDS) -> dict[str, Any]:
    """What a fresh interpreter finds, by subject; a subject that failed holds ``{"error": …}``.

    The child starts in a neutral folder, as the ``swift`` command does: a package that is importable only from the
    current folder does not count.
    """
    source = Path(__file__).with_name("_probe.py").read_text(encoding="utf-8")
    command = [sys.executable, "-c", source]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, cwd=sys.prefix, stdin=subprocess.DEVNULL
        )
        output, ending = done.stdout, f"the interpreter ended with code {done.returncode}: {_last_line(done.stderr)}"
    except subprocess.TimeoutExpired as expired:
        raw = expired.stdout or b""
        output = raw if isinstance(raw, str) else raw.decode(errors="replace")
        ending = f"no answer within {seconds:g} s (--timeout raises the limit)"
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("SAP2-PROBE "):
            facts.update(json.loads(line.removeprefix("SAP2-PROBE ")))
    for subject in ("gpu", "deepspeed", "plugin", "names", "speech"):
        facts.setdefault(subject, {"error": ending})
    return facts


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def check_packages() -> Iterator[Finding]:
    """Python and every required package against the ranges in this package's metadata."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Finding(PROBLEM, DISTRIBUTION, "not installed in this environment", REINSTALL)
        return
    yield Finding(OK, DISTRIBUTION, distribution.version)
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding(PROBLEM, "packaging", "not installed, so versions cannot be compared", _install("packaging"))
        return
    python_range = distribution.metadata["Requires-Python"] or ""
    yield _compare(Requirement(f"python{python_range}"), platform.python_version())
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if not _is_extra(requirement):
            yield _compare(requirement, _installed_version(requirement.name))


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _compare(requirement: Any, version: str | None) -> Finding:
    """``requirement`` is a ``packaging.requirements.Requirement``."""
    allowed = ",".join(sorted(str(requirement.specifier).split(","), reverse=True)) or "any version"
    advice = _install(f"{requirement.name}{requirement.specifier}")
    if version is None:
        return Finding(PROBLEM, requirement.name, f"not installed (needs {allowed})", advice)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(PROBLEM, requirement.name, f"{version} (needs {allowed})", advice)
    return Finding(OK, requirement.name, f"{version} ({allowed})")


def _install(what: str) -> str:
    return f"{Path(sys.executable).name} -m pip install '{what}'"


def check_ms_swift_requirements() -> Iterator[Finding]:
    """What ms-swift itself asks for; one line where all is well."""
    try:
        lines = metadata.requires("ms-swift") or []
        from packaging.requirements import Requirement
    except (metadata.PackageNotFoundError, ImportError):
        return  # said above
    needed = [requirement for requirement in map(Requirement, lines) if not _is_extra(requirement)]
    findings = [_compare(requirement, _installed_version(requirement.name)) for requirement in needed]
    bad = [finding._replace(subject=f"{finding.subject} (ms-swift)") for finding in findings if finding.level != OK]
    yield from bad or [Finding(OK, "ms-swift's needs", f"{len(findings)} packages in the versions that it asks for")]


def _is_extra(requirement: Any) -> bool:
    return requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})


def check_caches() -> Iterator[Finding]:
    """Training writes its rows to a cache in the home directory, which may be read-only."""
    bad = unwritable()
    for cache, reason in bad:
        advice = f"export {cache.variable}=<a folder that can be written>"
        yield Finding(PROBLEM, "cache", f"{cache.folder} of {cache.user} cannot be written ({reason})", advice)
    if not bad:
        yield Finding(OK, "caches", ", ".join(str(cache.folder) for cache in caches()))


def check_command() -> Iterator[Finding]:
    """Other programs are called ``swift`` too (Apple's compiler, OpenStack's client)."""
    found, own = shutil.which("swift"), Path(sys.executable).parent
    if not (own / "swift").exists():
        yield Finding(PROBLEM, "swift", f"no such command in {own}", _install("ms-swift"))
    elif found is None:
        yield Finding(NOTE, "swift", "not in PATH", f"activate the environment, or call {own / 'swift'}")
    elif Path(found).parent.resolve() != own.resolve():
        advice = f"activate the environment, or call {own / 'swift'}"
        yield Finding(PROBLEM, "swift", f"{found} is not of this environment", advice)
    else:
        yield Finding(OK, "swift", found)


def check_autoload() -> Iterator[Finding]:
    """The file that offers the plugin to every interpreter, and the variable that turns it off."""
    folders = dict.fromkeys([*site.getsitepackages(), site.getusersitepackages()])
    files = [Path(folder, PTH_NAME) for folder in folders if Path(folder, PTH_NAME).is_file()]
    value = os.environ.get(_autoload.VARIABLE)
    if not files:
        advice = f"{REINSTALL}, or pass --external_plugins {PLUGIN_FILE}"
        yield Finding(PROBLEM, "autoload", f"{PTH_NAME} is in none of this environment's folders", advice)
    elif not _autoload.is_enabled():
        advice = f"unset {_autoload.VARIABLE}, or pass --external_plugins {PLUGIN_FILE}"
        yield Finding(NOTE, "autoload", f"turned off by {_autoload.VARIABLE}={value}", advice)
    else:
        yield Finding(OK, "autoload", str(files[0]))


def check_plugin(facts: dict[str, Any]) -> Iterator[Finding]:
    """Whether ms-swift, started afresh, knows the model type and its flags."""
    plugin = facts["plugin"]
    if "error" in plugin:
        yield Finding(PROBLEM, "plugin", plugin["error"], "mend ms-swift first: python -c 'import swift.arguments'")
    elif plugin["model_type"] and plugin["flags"]:
        flags = ", ".join(f"--{name}" for name in plugin["flags"])
        yield Finding(OK, "plugin", f"ms-swift knows {MODEL_TYPE} and {flags}")
    elif not _autoload.is_enabled():
        yield Finding(NOTE, "plugin", "not loaded, as asked for", "see autoload")
    else:
        missing = "its flags" if plugin["model_type"] else MODEL_TYPE
        reason = f": {plugin['reason']}" if plugin.get("reason") else ""
        yield Finding(PROBLEM, "plugin", f"ms-swift does not know {missing}{reason}", REINSTALL)


def check_names(facts: dict[str, Any]) -> Iterator[Finding]:
    """Undocumented names of other packages that are used (:mod:`sap2.relied_on`)."""
    names = facts["names"]
    if "error" in names:
        yield Finding(PROBLEM, "names", names["error"], "mend what is above first")
        return
    for complaint in names["complaints"]:
        yield Finding(PROBLEM, "names", complaint, "install the versions of constraints.txt")
    if not names["complaints"]:
        yield Finding(OK, "names", f"{names['count']} undocumented names of other packages are as expected")


def check_speech(facts: dict[str, Any]) -> Iterator[Finding]:
    """The model that comes along hears two seconds of speech."""
    speech = facts["speech"]
    if "error" in speech:
        yield Finding(PROBLEM, "speech", speech["error"], "mend what is above first")
        return
    said, heard = speech["said"], speech["heard"]
    if len(set(said.split()) & set(heard.split())) >= len(said.split()) - 1:
        yield Finding(OK, "speech", f"sap2-tiny heard: {heard}")
    else:
        state = f"sap2-tiny heard {heard!r} where {said!r} was said"
        yield Finding(PROBLEM, "speech", state, "install the versions of constraints.txt")


def check_gpu(facts: dict[str, Any]) -> Iterator[Finding]:
    """Devices, their memory, and bfloat16."""
    gpu = facts["gpu"]
    if "error" in gpu:
        yield Finding(PROBLEM, "gpu", gpu["error"], "mend torch first: python -c 'import torch'")
        return
    if not gpu["devices"]:
        advice = "the tiny model trains on the CPU; for the 7B model a CUDA GPU with bfloat16 is needed"
        if gpu["driver"] and not gpu["built_for"]:
            advice = "nvidia-smi is here, but this torch is a CPU build: install torch from the CUDA index"
        yield Finding(NOTE, "gpu", f"none (torch is built for {gpu['built_for'] or 'the CPU'})", advice)
    for device in gpu["devices"]:
        state = f"{device['name']}, {device['free_gib']:.0f} of {device['total_gib']:.0f} GiB free"
        advice = "" if gpu["bf16"] else "no bfloat16: train with --torch_dtype float16"
        yield Finding(OK if gpu["bf16"] else NOTE, f"gpu {device['index']}", state, advice)


def check_deepspeed(facts: dict[str, Any]) -> Iterator[Finding]:
    """Which device DeepSpeed would train on, and whether its CUDA operators can be compiled."""
    state, devices = facts["deepspeed"], facts["gpu"].get("devices")
    if "error" in state:
        advice = "train without --deepspeed, or, with a GPU and no CUDA toolkit, set CUDA_HOME to one"
        if "DS_ACCELERATOR" in state["error"]:
            advice = "unset DS_ACCELERATOR, or set it to cuda or cpu"
        yield Finding(PROBLEM, "deepspeed", state["error"], advice)
        return
    chosen = f"trains on {state['accelerator']} (DS_ACCELERATOR {state['variable'] or 'not set'})"
    if devices and state["accelerator"] == "cpu":
        yield Finding(PROBLEM, "deepspeed", f"{chosen}, though there is a GPU", "unset DS_ACCELERATOR")
    elif not devices and state["accelerator"] != "cpu":
        yield Finding(NOTE, "deepspeed", f"{chosen}, and there is no GPU", "export DS_ACCELERATOR=cpu")
    else:
        yield Finding(OK, "deepspeed", chosen)
    if devices and not state["nvcc"]:
        advice = "ZeRO-2 needs none; for DeepSpeed's own operators (CPU offload) set CUDA_HOME to a CUDA toolkit"
        yield Finding(NOTE, "nvcc", f"not found (CUDA_HOME {state['cuda_home'] or 'not set'})", advice)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sap2 doctor``."""
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=PROBE_SECONDS,
        metavar="S",
        help="seconds to wait for the imports of the stack (default: %(default)s)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """``sap2 doctor``; the exit code is 1 when a problem stops training."""
    if not args.json:
        print("Importing the stack in a fresh interpreter; this takes about 20 s.", file=sys.stderr)
    findings = diagnose(args.timeout)
    problems = sum(finding.level == PROBLEM for finding in findings)
    if args.json:
        print(json.dumps({"ok": not problems, "findings": [finding._asdict() for finding in findings]}, indent=1))
    else:
        print(format_report(findings))
    return 1 if problems else 0


def format_report(findings: list[Finding]) -> str:
    """The report for people: a line a finding, its advice below it, and the sum."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for level, subject, state, advice in findings:
        lines.append(f"{level:<8}{subject:<{width}}  {state}")
        if advice:
            lines.append(f"{'':<8}{'':<{width}}  → {advice}")
    problems = sum(finding.level == PROBLEM for finding in findings)
    lines.append(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "no problem found")
    return "\n".join(lines)
