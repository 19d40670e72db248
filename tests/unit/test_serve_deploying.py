"""The examples that start the server name options that it has, and ``sap2 serve`` refuses wrong ones."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from sap2.cli import main
from sap2.commands.serve import add_arguments, options_of
from sap2.commands.shared import Parser
from sap2.errors import InputError

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))


def parse(*words):
    parser = Parser(prog="sap2 serve")
    add_arguments(parser)
    return parser.parse_args(words)


def dockerfile(name):
    """The words of an instruction in JSON's form."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    return yaml.safe_load(re.search(rf"^{name} (\[.*\])$", text, re.M)[1])


def test_the_container_starts_the_server_with_options_that_it_has():
    entry = dockerfile("ENTRYPOINT")
    assert entry[:2] == ["sap2", "serve"]
    assert parse(*entry[2:], *dockerfile("CMD")).host == "0.0.0.0"
    assert (ROOT / ".dockerignore").exists()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_the_services_have_options_that_there_are(name):
    service = COMPOSE["services"][name]
    args = parse(*dockerfile("ENTRYPOINT")[2:], *service["command"])
    assert args.prune_adapter and args.asr_adapter
    assert all(port.startswith("127.0.0.1:") and port.endswith(f":{args.port}") for port in service["ports"])
    assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).resolve().exists()
    given = service["build"].get("args", {})
    assert int(re.fullmatch(r"(\d+)s", service["stop_grace_period"])[1]) > args.drain_seconds
    assert all(f"ARG {arg}=" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8") for arg in given)


def test_the_unit_of_systemd_has_options_that_there_are():
    unit = (ROOT / "examples" / "deploy" / "sap2.service").read_text(encoding="utf-8")
    words = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M)[1])
    assert words[:2] == ["/opt/sap2/bin/sap2", "serve"]
    args = parse(*words[2:])
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]) > args.drain_seconds


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path):
    unit = (ROOT / "examples" / "deploy" / "sap2.service").read_text(encoding="utf-8")
    (tmp_path / "sap2.service").write_text(unit.replace("/opt/sap2/bin/sap2", shutil.which("true")))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "sap2.service"], capture_output=True, text=True
    )
    assert checked.returncode == 0 and "sap2.service" not in checked.stderr, checked.stderr


def test_the_container_keeps_to_what_linters_of_dockerfiles_ask():
    """The rules of hadolint that matter here: a tag, no root, nothing kept of pip; and port and health are one."""
    lines = [
        line
        for line in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    names = [line.split()[0] for line in lines]
    assert names[0] == "FROM" and re.fullmatch(r"FROM \S+:\S+", lines[0]) and not lines[0].endswith(":latest")
    assert set(names) <= {*("FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE"), "HEALTHCHECK", "CMD"} | {
        "ENTRYPOINT"
    }
    assert names.count("ENTRYPOINT") == names.count("CMD") == 1
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    assert lines[names.index("USER")].split()[1] not in ("root", "0")
    assert all("--no-cache-dir" in line for line in lines if "pip install" in line)
    port = dockerfile("ENTRYPOINT")[-1]
    assert lines[names.index("EXPOSE")].split()[1] == port
    assert f":{port}/health" in lines[names.index("HEALTHCHECK")]
    for source in re.findall(r"^COPY (\S+) ", "\n".join(lines), re.M):
        assert (ROOT / source).exists()


MODEL = ("--model", "folder/model")


def test_options(tmp_path, monkeypatch):
    monkeypatch.setenv("SAP2_API_KEY", "from the environment")
    (tmp_path / "names.txt").write_text("Wozniak\n")
    given = ("--term-bank", f"names={tmp_path / 'names.txt'}", "--max-audio-minutes", "5", "--max-upload-mib", "2")
    options = options_of(parse(*MODEL, *given))
    assert options.names == ("model",) and options.api_key == "from the environment"
    assert options.limits.audio_seconds == 300 and options.limits.upload_bytes == 2 << 20
    assert list(options.banks) == ["names"] and "localhost" in options.hosts
    assert options_of(parse(*MODEL, "--api-key", "given")).api_key == "given"
    assert options_of(parse(*MODEL, "--host", "0.0.0.0", "--served-model-name", "a", "b")).hosts is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--term-bank", "names.txt"], "NAME=FILE"),
        (["--term-bank", "names=none.txt"], "no such file"),
        (["--port", "70000"], "0 to 65535"),
    ],
)
def test_options_that_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        options_of(parse(*MODEL, *given))


def test_a_port_that_is_taken_is_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", *MODEL, "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"127.0.0.1:{port}" in error


def test_a_folder_that_is_too_deep_for_the_sockets_of_vllm_is_refused(capsys):
    assert main(["serve", *MODEL, "--engine", "vllm", "--temp-dir", "/var/tmp/" + "x" * 60]) == 2
    assert "has 69 letters; allowed with --engine vllm, whose sockets lie there: up to 50" in capsys.readouterr().err


def test_the_sample_of_the_page_is_the_example():
    """The page has its own copy, since a wheel has no examples."""
    for name in ("talk.flac", "slides.md"):
        sample = ROOT / "sap2" / "serve" / "static" / "sample" / name
        assert sample.read_bytes() == (ROOT / "examples" / "my_talk" / name).read_bytes()
