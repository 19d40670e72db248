"""The doctor sees each problem, says what to do, and survives whatever is broken."""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sap2 import cli, doctor
from sap2.doctor import NOTE, OK, PROBLEM

HEALTHY = {
    "gpu": {
        "devices": [{"index": 0, "name": "NVIDIA A100", "free_gib": 39.0, "total_gib": 40.0}],
        "built_for": "CUDA 12.8",
        "driver": True,
        "bf16": True,
    },
    "deepspeed": {"accelerator": "cuda", "variable": None, "cuda_home": "/usr/local/cuda", "nvcc": "/bin/nvcc"},
    "plugin": {"model_type": True, "flags": ["sap_window_size"], "reason": ""},
    "names": {"count": 3, "complaints": []},
    "speech": {"said": "now the road", "heard": "now the road"},
}
NO_GPU = {"devices": [], "built_for": None, "driver": False, "bf16": False}


class FakeDistribution:
    version = "0.1.0"
    metadata = {"Requires-Python": ">=3.8"}  # noqa: RUF012
    requires = ["torch>=2.6", "peft<1,>=0.18", "absent-package>=3", "pytest; extra == 'dev'"]  # noqa: RUF012


def with_facts(**changes):
    return {**HEALTHY, **changes}


def levels(findings):
    return {finding.subject: finding.level for finding in findings}


@pytest.fixture
def versions(monkeypatch):
    """Installed versions by name; a package that is not named is not installed."""
    installed = {"torch": "2.13.0+cu128", "peft": "0.20.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "distribution", lambda name: FakeDistribution)
    monkeypatch.setattr(metadata, "version", version)
    return installed


def test_versions_against_the_ranges_of_the_metadata(versions):
    found = {finding.subject: finding for finding in doctor.check_packages()}
    assert list(found) == ["sap2-asr", "python", "torch", "peft", "absent-package"], "extras are not required"
    assert found["torch"] == (OK, "torch", "2.13.0+cu128 (>=2.6)", "")
    assert found["peft"].state == "0.20.0 (>=0.18,<1)"
    assert found["absent-package"].level == PROBLEM
    assert found["absent-package"].state == "not installed (needs >=3)"
    assert "-m pip install 'absent-package>=3'" in found["absent-package"].advice


@pytest.mark.parametrize(("version", "level"), [("1.0", PROBLEM), ("0.17.9", PROBLEM), ("0.19.0.dev1", OK)])
def test_out_of_range(versions, version, level):
    versions["peft"] = version
    assert levels(doctor.check_packages())["peft"] == level


def test_without_metadata(monkeypatch):
    def fail(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", fail)
    (finding,) = doctor.check_packages()
    assert finding.level == PROBLEM
    assert finding.state == "not installed in this environment"


def test_without_packaging(versions, monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert levels(doctor.check_packages()) == {"sap2-asr": OK, "packaging": PROBLEM}


def fake_program(folder: Path, name: str, text: str = "exit 0") -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_swift_command(tmp_path, monkeypatch):
    own, other = tmp_path / "own", tmp_path / "other"
    monkeypatch.setattr(sys, "executable", str(fake_program(own, "python")))
    monkeypatch.setenv("PATH", str(other))
    assert [f[:3] for f in doctor.check_command()] == [(PROBLEM, "swift", f"no such command in {own}")]
    fake_program(own, "swift")
    assert [f[:3] for f in doctor.check_command()] == [(NOTE, "swift", "not in PATH")]
    compiler = fake_program(other, "swift")
    assert [f[:3] for f in doctor.check_command()] == [(PROBLEM, "swift", f"{compiler} is not of this environment")]
    monkeypatch.setenv("PATH", f"{own}:{other}")
    assert [f[:3] for f in doctor.check_command()] == [(OK, "swift", str(own / "swift"))]


def test_autoload(tmp_path, monkeypatch):
    monkeypatch.delenv("SAP2_AUTOLOAD", raising=False)
    monkeypatch.setattr(doctor.site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(doctor.site, "getusersitepackages", lambda: str(tmp_path / "user"))
    (finding,) = doctor.check_autoload()
    assert finding.level == PROBLEM
    assert "--external_plugins" in finding.advice
    assert doctor.PLUGIN_FILE.is_file()
    (tmp_path / "sap2_autoload.pth").write_text("import sap2\n")
    assert [f[:2] for f in doctor.check_autoload()] == [(OK, "autoload")]
    monkeypatch.setenv("SAP2_AUTOLOAD", "0")
    (finding,) = doctor.check_autoload()
    assert finding[:3] == (NOTE, "autoload", "turned off by SAP2_AUTOLOAD=0")


@pytest.mark.parametrize(
    ("plugin", "autoload", "level", "text"),
    [
        ({"model_type": True, "flags": ["sap_window_size"]}, "1", OK, "and --sap_window_size"),
        ({"model_type": False, "flags": []}, "1", PROBLEM, "does not know sap_qwen2_audio"),
        ({"model_type": True, "flags": [], "reason": "a: b"}, "1", PROBLEM, "does not know its flags: a: b"),
        ({"model_type": False, "flags": []}, "0", NOTE, "not loaded, as asked for"),
        ({"error": "OSError: libcudart"}, "1", PROBLEM, "OSError: libcudart"),
    ],
)
def test_plugin(monkeypatch, plugin, autoload, level, text):
    monkeypatch.setenv("SAP2_AUTOLOAD", autoload)
    (finding,) = doctor.check_plugin(with_facts(plugin=plugin))
    assert finding.level == level
    assert text in finding.state
    assert bool(finding.advice) == (level != OK)


@pytest.mark.parametrize(
    ("gpu", "level", "text"),
    [
        ({}, OK, "NVIDIA A100, 39 of 40 GiB free"),
        ({"bf16": False}, NOTE, "--torch_dtype float16"),
        (NO_GPU, NOTE, "the tiny model trains on the CPU"),
        ({**NO_GPU, "driver": True}, NOTE, "this torch is a CPU build"),
        ({**NO_GPU, "built_for": "CUDA 12.8"}, NOTE, "torch is built for CUDA 12.8"),
    ],
)
def test_gpu(gpu, level, text):
    (finding,) = doctor.check_gpu(with_facts(gpu={**HEALTHY["gpu"], **gpu}))
    assert finding.level == level
    assert text in f"{finding.state} {finding.advice}"


@pytest.mark.parametrize(
    ("changes", "gpu", "expected"),
    [
        ({}, HEALTHY["gpu"], [(OK, "")]),
        ({"accelerator": "cpu", "variable": "cpu"}, HEALTHY["gpu"], [(PROBLEM, "unset DS_ACCELERATOR")]),
        ({"accelerator": "cpu"}, NO_GPU, [(OK, "")]),
        ({"accelerator": "cuda"}, NO_GPU, [(NOTE, "export DS_ACCELERATOR=cpu")]),
        ({"nvcc": None, "cuda_home": None}, HEALTHY["gpu"], [(OK, ""), (NOTE, "set CUDA_HOME")]),
        ({"nvcc": None, "accelerator": "cpu"}, NO_GPU, [(OK, "")]),
        ({"accelerator": "cpu"}, {"error": "x"}, [(OK, "")]),
    ],
)
def test_deepspeed(changes, gpu, expected):
    found = list(doctor.check_deepspeed(with_facts(deepspeed={**HEALTHY["deepspeed"], **changes}, gpu=gpu)))
    assert [finding.level for finding in found] == [level for level, _ in expected]
    assert all(advice in finding.advice for finding, (_, advice) in zip(found, expected, strict=True))


def test_deepspeed_that_does_not_import():
    (finding,) = doctor.check_deepspeed(with_facts(deepspeed={"error": "MissingCUDAException: no nvcc"}))
    assert (finding.level, finding.state) == (PROBLEM, "MissingCUDAException: no nvcc")
    assert "CUDA_HOME" in finding.advice
    (finding,) = doctor.check_deepspeed(with_facts(deepspeed={"error": "ValueError: DS_ACCELERATOR must be one of"}))
    assert finding.advice.startswith("unset DS_ACCELERATOR")


STUBS = {
    "torch.py": "class cuda:\n is_available = staticmethod(lambda: False)\nclass version:\n cuda = None\n",
    "deepspeed/__init__.py": "",
    "deepspeed/accelerator.py": "class get_accelerator:\n device_name = staticmethod(lambda: 'cpu')\n",
    "swift/__init__.py": "print('noise on stdout')\n",
    "swift/arguments.py": (
        "from dataclasses import dataclass\n@dataclass\nclass BaseArguments:\n a: int = 0\n sap_window_size: int = 2\n"
    ),
    "swift/model.py": "MODEL_MAPPING = {'sap_qwen2_audio': 1}\n",
}


def stub_stack(folder: Path, monkeypatch, **changes: str) -> None:
    for name, text in {**STUBS, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("SAP2_AUTOLOAD", "0")  # the stand-ins are nothing to plug into


def test_probe(tmp_path, monkeypatch):
    stub_stack(tmp_path, monkeypatch)
    facts = doctor.probe(60)
    assert facts["gpu"]["devices"] == []
    assert facts["deepspeed"]["accelerator"] == "cpu"
    assert facts["plugin"] == {"model_type": True, "flags": ["sap_window_size"], "reason": ""}


@pytest.mark.parametrize(
    ("file", "text", "broken", "message"),
    [
        ("torch.py", "raise OSError('libcudart:\\n missing')", "gpu", "OSError: libcudart: missing"),
        ("deepspeed/__init__.py", "raise SystemExit(3)", "deepspeed", "SystemExit: 3"),
        ("swift/arguments.py", "import no_such_package", "plugin", "No module named 'no_such_package'"),
        ("swift/arguments.py", "import os; os._exit(7)", "plugin", "the interpreter ended with code 7"),
        ("swift/model.py", "import os; os.abort()", "plugin", "the interpreter ended with code -6"),
    ],
)
def test_probe_survives_what_is_broken(tmp_path, monkeypatch, file, text, broken, message):
    stub_stack(tmp_path, monkeypatch, **{file: text})
    facts = doctor.probe(60)
    assert message in facts[broken]["error"]
    others = {"gpu", "deepspeed", "plugin"} - {broken}
    assert all("error" not in facts[subject] for subject in others)


def test_probe_does_not_hang(tmp_path, monkeypatch):
    stub_stack(tmp_path, monkeypatch, **{"swift/arguments.py": "import time; time.sleep(60)"})
    facts = doctor.probe(3)
    assert facts["plugin"]["error"] == "no answer within 3 s (--timeout raises the limit)"
    assert "error" not in facts["deepspeed"], "what was answered before counts"


@pytest.mark.parametrize(
    ("names", "levels_of", "text"),
    [
        ({"count": 3, "complaints": []}, [OK], "3 undocumented names"),
        ({"count": 3, "complaints": ["a:b is gone", "c:d takes no e"]}, [PROBLEM, PROBLEM], "a:b is gone"),
        ({"error": "ImportError: x"}, [PROBLEM], "ImportError: x"),
    ],
)
def test_names(names, levels_of, text):
    found = list(doctor.check_names(with_facts(names=names)))
    assert [finding.level for finding in found] == levels_of
    assert text in found[0].state


@pytest.mark.parametrize(
    ("speech", "level", "text"),
    [
        ({"said": "now the road", "heard": "now now the rod"}, OK, "heard: now now the rod"),
        ({"said": "now the road", "heard": "e e e"}, PROBLEM, "heard 'e e e' where 'now the road' was said"),
        ({"error": "InputError: x"}, PROBLEM, "InputError: x"),
    ],
)
def test_speech(speech, level, text):
    (finding,) = doctor.check_speech(with_facts(speech=speech))
    assert finding.level == level and text in finding.state


def test_caches(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    assert [finding[:2] for finding in doctor.check_caches()] == [(OK, "caches")]
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "file" / "ms"))
    (finding,) = doctor.check_caches()
    assert finding.level == PROBLEM and "file/ms of ModelScope cannot be written" in finding.state
    assert finding.advice == "export MODELSCOPE_CACHE=<a folder that can be written>"


def test_what_ms_swift_needs(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=99", "numpy", "vllm>=1; extra == 'vllm'"])
    (finding,) = doctor.check_ms_swift_requirements()
    assert (finding.level, finding.subject) == (PROBLEM, "torch (ms-swift)")
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy"])
    assert [finding.level for finding in doctor.check_ms_swift_requirements()] == [OK]


def run_doctor(monkeypatch, findings, json_output=False):
    monkeypatch.setattr(doctor, "diagnose", lambda seconds: findings)
    return doctor.run(argparse.Namespace(json=json_output, timeout=1.0))


FINDINGS = [
    doctor.Finding(OK, "torch", "2.13.0 (>=2.6)"),
    doctor.Finding(NOTE, "gpu", "none", "use the CPU"),
    doctor.Finding(PROBLEM, "ms-swift", "not installed", "pip install it"),
]


def test_report_and_exit_code(monkeypatch, capsys):
    assert run_doctor(monkeypatch, FINDINGS) == 1
    assert capsys.readouterr().out == (
        "ok      torch     2.13.0 (>=2.6)\n"
        "note    gpu       none\n"
        "                  → use the CPU\n"
        "problem ms-swift  not installed\n"
        "                  → pip install it\n"
        "1 problem\n"
    )
    assert run_doctor(monkeypatch, FINDINGS[:2]) == 0
    assert capsys.readouterr().out.endswith("no problem found\n")


def test_json(monkeypatch, capsys):
    assert run_doctor(monkeypatch, FINDINGS, json_output=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["findings"][1] == {"level": "note", "subject": "gpu", "state": "none", "advice": "use the CPU"}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_bad_timeout(value, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", f"--timeout={value}"])
    assert ended.value.code == 2
    assert "argument --timeout" in capsys.readouterr().err


@pytest.mark.e2e
def test_the_whole_command():
    done = subprocess.run([sys.executable, "-m", "sap2.cli", "doctor", "--json"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    assert {"gpu", "deepspeed", "plugin", "autoload", "names", "speech", "caches"} <= {
        finding["subject"].split()[0] for finding in report["findings"]
    }
