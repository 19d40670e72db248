"""The command line: quick help, one line for an error, exit codes."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from sap2 import __version__, cli
from sap2.errors import InputError

TINY = ("--slides", "1", "--utterances", "1")


@pytest.fixture
def command(monkeypatch):
    """A command ``try`` whose function the test sets."""
    module = types.ModuleType("sap2_test_command")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
    module.run = lambda args: None
    monkeypatch.setitem(sys.modules, "sap2_test_command", module)
    monkeypatch.setitem(cli.COMMANDS, "try", cli.Command("sap2_test_command", "try something"))
    monkeypatch.delenv("SAP2_DEBUG", raising=False)
    return module


def fail_with(error):
    def run(args):
        raise error

    return run


def test_arguments_and_exit_code(command):
    command.run = lambda args: args.number
    assert cli.main(["try", "--number", "7"]) == 7
    command.run = lambda args: None
    assert cli.main(["try"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("talks is 0;\n allowed: 1 or more"), 2, "sap2: error: talks is 0; allowed: 1 or more\n"),
        (InputError("row 3: no audio"), 2, "sap2: error: row 3: no audio\n"),
        (
            OSError(28, "No space left on device", "x.wav"),
            1,
            "sap2: error: [Errno 28] No space left on device: 'x.wav'\n",
        ),
        (ModuleNotFoundError("No module named 'soxr'"), 1, "sap2: error: No module named 'soxr'\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line(command, capsys, error, code, line):
    command.run = fail_with(error)
    assert cli.main(["try"]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", line)


def test_debug_keeps_the_traceback(command, monkeypatch):
    command.run = fail_with(ValueError("bad"))
    monkeypatch.setenv("SAP2_DEBUG", "1")
    with pytest.raises(ValueError, match="bad"):
        cli.main(["try"])


def test_our_own_mistakes_are_not_hidden(command):
    command.run = fail_with(KeyError("bug"))
    with pytest.raises(KeyError):
        cli.main(["try"])


def test_a_command_that_cannot_be_imported(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "try", cli.Command("sap2.no_such_module", "try something"))
    assert cli.main(["try"]) == 1
    assert capsys.readouterr().err == "sap2: error: No module named 'sap2.no_such_module'\n"


@pytest.mark.parametrize(
    ("arguments", "text"), [([], "COMMAND"), (["nope"], "invalid choice: 'nope'"), (["--x"], "COMMAND")]
)
def test_wrong_usage(arguments, text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sap2 {__version__}\n"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert cli.COMMANDS[name].help.split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["make-talks", "--help"], ["make-tiny", "--help"], ["doctor", "-h"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; from sap2 import cli\n"
        f"try: cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'swift', 'librosa', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_make_talks_from_the_command_line(tmp_path, capsys):
    target = tmp_path / "talks"
    flags = ["--talks", "3", *TINY, "--keywords", "2", "--voices", "en-us,en-us+f1", "--seed", "3", "--noise", "0.5"]
    assert cli.main(["make-talks", str(target), *flags]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{target / 'train'}: 1 talks, 1 utterances, 0.")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert cli.main(["make-talks", str(target), *flags]) == 2
    assert "is not empty; give a new folder, or --overwrite" in capsys.readouterr().err
    assert cli.main(["make-talks", str(target), *flags, "--overwrite"]) == 0
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--talks", "2"], "talks is 2, with 1 for dev and 1 for test none is left for training"),
        (["--voices", "en-us,zz"], "voice 'zz' is unknown to espeak-ng"),
        (["--homophones", "2"], "homophones is 2.0; allowed: 0 to 1"),
    ],
)
def test_make_talks_refuses(tmp_path, capsys, flags, line):
    assert cli.main(["make-talks", str(tmp_path / "talks"), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"sap2: error: {line}")
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_command_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "sap2.cli", "make-talks", str(tmp_path / "talks"), "--talks", "40"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not any(tmp_path.glob(".talks.partial-*/new")):
            assert process.poll() is None, process.stderr.read()
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_left_goes_with_the_next(tmp_path):
    command = [sys.executable, "-m", "sap2.cli", "make-talks", str(tmp_path / "talks"), "--talks", "40"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not any(tmp_path.glob(".talks.partial-*/new")):
            assert process.poll() is None
        other = ["make-talks", str(tmp_path / "talks"), "--talks", "3", *TINY]
        assert cli.main(other) == 0, "a living process keeps its folder"
        assert len(list(tmp_path.glob(".talks.partial-*"))) == 1
        process.kill()
    assert cli.main([*other, "--overwrite"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["talks"]
