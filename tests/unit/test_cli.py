"""The command line: quick help, one line for an error, exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from commands import sap2, tool

from sap2 import __version__, cli
from sap2.commands.data import TOOLS
from sap2.commands.shared import Command, Parser
from sap2.errors import InputError, MissingExtraError

ROOT = Path(__file__).parents[2]

TINY = ("--slides", "1", "--utterances", "1")


@pytest.fixture
def command(monkeypatch):
    """A command ``try`` whose function the test sets."""
    module = types.ModuleType("sap2_test_command")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
    module.run = lambda args: None
    monkeypatch.setitem(sys.modules, "sap2_test_command", module)
    monkeypatch.setitem(cli.COMMANDS, "try", Command("sap2_test_command", "try something"))
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
        (InputError("talks is 0;\n allowed: 1 or more"), 2, "sap2: error: talks is 0; allowed: 1 or more\n"),
        (OSError(28, "No space left on device", "x.wav"), 2, "sap2: error: x.wav: No space left on device\n"),
        (
            MissingExtraError("a PDF deck", "pypdfium2", "slides"),
            2,
            "sap2: error: a PDF deck needs the package pypdfium2: pip install pypdfium2 (all such packages, in a "
            "checkout of sap2: pip install '.[slides]')\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line(command, capsys, error, code, line):
    command.run = fail_with(error)
    assert cli.main(["try"]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", line)


def test_debug_keeps_the_traceback(command, monkeypatch):
    command.run = fail_with(InputError("bad"))
    monkeypatch.setenv("SAP2_DEBUG", "1")
    with pytest.raises(InputError, match="bad"):
        cli.main(["try"])


@pytest.mark.parametrize(
    "error", [KeyError("bug"), ValueError("2 is not in list"), ImportError("broken"), OSError("which file?")]
)
def test_our_own_mistakes_are_not_hidden(command, error):
    command.run = fail_with(error)
    with pytest.raises(type(error)):
        cli.main(["try"])


def test_a_missing_extra_is_an_import_error_too():
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(("arguments", "text"), [(["nope"], "invalid choice: 'nope'"), (["--x"], "COMMAND")])
def test_wrong_usage(arguments, text, capsys):
    assert sap2(*arguments) == 2
    error = capsys.readouterr().err
    assert text in error and error.splitlines()[-1].startswith("sap2: error: ")


@pytest.mark.parametrize(("arguments", "names"), [([], cli.COMMANDS), (["data"], TOOLS)])
def test_without_a_name_all_are_shown(arguments, names, capsys):
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in names)


@pytest.mark.parametrize("flag", ["--in-put", "--in_put", "--in-put=3", "--in_put=3", "--of_old", "--of-old"])
def test_hyphens_and_underscores_are_one(command, flag):
    def add_arguments(parser):
        parser.add_argument_group("input").add_argument("--in-put", "--of_old", type=int)

    command.add_arguments, command.run = add_arguments, lambda args: args.in_put
    assert cli.main(["try", flag] if "=" in flag else ["try", flag, "3"]) == 3


def flags_of(parser):
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


@pytest.mark.parametrize("module", [command.module for command in (*cli.COMMANDS.values(), *TOOLS.values())])
def test_flags_are_documented_with_hyphens(module):
    parser = Parser(prog="x")
    importlib.import_module(module).add_arguments(parser)
    assert not [flag for flag in flags_of(parser) if "_" in flag]


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_the_same_through_both_doors(name, capsys):
    assert sap2("data", name, "--help") == 0
    ours = capsys.readouterr().out
    assert tool(name, "--help") == 0
    theirs = squeezed(capsys.readouterr().out)
    assert theirs == squeezed(ours).replace(f"sap2 data {name}", f"python -m data_tools.{name}")
    assert importlib.import_module(f"data_tools.{name}").main.args == (name,)


def squeezed(text: str) -> str:
    return " ".join(text.split())


DOORS = {
    "sap2 score": ["-m", "sap2.cli", "score"],
    "sap2 data": ["-m", "sap2.cli", "data", "build_prune", "--output", "x.jsonl"],
    "data_tools": ["-m", "data_tools.build_asr", "--output", "x.jsonl"],
    "scorer": ["eval/slidespeech_wer.py", "--input_file"],
    "keywords": ["eval/keywords.py", "--input_file"],
}


@pytest.mark.parametrize("door", DOORS)
def test_bad_input_is_one_line_with_one_code_in_every_door(door, tmp_path):
    done = subprocess.run(
        [sys.executable, *DOORS[door], str(tmp_path / "absent.jsonl")], capture_output=True, text=True, cwd=ROOT
    )
    line = f"sap2: error: {tmp_path / 'absent.jsonl'}: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("door", DOORS)
def test_interrupted_every_door_ends_quietly(door, tmp_path):
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    command = [sys.executable, *DOORS[door], str(pipe)]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child,
        pipe.open("w"),  # returns once the command is about to read
    ):
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (130, "")


def test_interrupted_with_workers_it_ends_quietly(tmp_path):
    """Ctrl-C reaches the workers too: the terminal sends it to all processes of the command."""
    sap2("make-talks", tmp_path / "talks", "--talks", "6", "--utterances", "8")
    command = [sys.executable, "-m", "data_tools.slidespeech", str(tmp_path / "talks"), "--split", "train"]
    command += ["--workers", "2", "--output", str(tmp_path / "u.jsonl"), "--audio-dir", str(tmp_path / "audio")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        while not (tmp_path / "audio").exists():
            assert child.poll() is None, child.stderr.read()
        os.killpg(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (130, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sco"], ["score", "score-keywords"]),
        (["data", "build_p"], ["build_prune"]),
        (["score", "--by"], ["--by-session"]),
        (["score", "x.jsonl", "--normalize", ""], ["none", "basic", "whisper-en"]),
        (["data", "check", "--no"], ["--no-audio", "--normalizer"]),
        (["nope", "--ver"], ["--version"]),
    ],
)
def test_completion(words, found, capsys):
    assert cli.main(["completion", "--words", *words]) == 0
    assert capsys.readouterr().out.split() == found


def test_completion_in_bash():
    script = f'sap2() {{ {sys.executable} -m sap2.cli "$@"; }}; eval "$(sap2 completion)"; '
    script += "COMP_WORDS=(sap2 sc); COMP_CWORD=1; _sap2; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("score score-keywords\n", "")


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m sap2.cli make-talks --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout.strip() in {"0", "141"}


def test_a_terminal_without_our_characters():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "sap2.cli"], capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and b"SAP\\xb2" in done.stdout


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
