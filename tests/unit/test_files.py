"""Outputs: whole files, links, standard output, pipes and devices; refused before the work, named when they fail."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import sap2

from sap2.files import atomic_write, check_writable, has_own_name, is_standard_output
from sap2.rowfiles import read_rows, write_rows

UTTERANCE = {"id": "u1", "audio": "/a.wav", "text": "hi emily", "keywords": ["emily"]}


def write(path, text="new"):
    with atomic_write(path) as stream:
        stream.write(text)


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path):
    target, link, dangling = tmp_path / "deep" / "target.txt", tmp_path / "link.txt", tmp_path / "dangling.txt"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to("deep/target.txt")
    dangling.symlink_to("deep/later.txt")
    write(link), write(dangling)
    assert link.is_symlink() and target.read_text() == "new"
    assert dangling.is_symlink() and (target.parent / "later.txt").read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == ["dangling.txt", "deep", "later.txt", "link.txt", "target.txt"]


def test_a_named_pipe_is_written_and_stays(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert got == ["new"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_devices_stay_devices():
    write("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError, match="No space left") as caught:
        write("/dev/full")
    assert caught.value.filename == "/dev/full"


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_standard_output_is_written_where_it_stands(tmp_path, name, mode):
    """A shell's ">>" appends: what is in the file stays."""
    output = tmp_path / "out.txt"
    output.write_text("before\n")
    code = f"""
from sap2.files import atomic_write
print("first")
with atomic_write({name!r}, {mode!r}) as stream:
    stream.write({"new" if mode == "w" else b"new"!r})
print(" last")
"""
    with output.open("a") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert output.read_text() == "before\nfirst\nnew last\n"


def test_a_pipe_of_the_shell_is_written():
    code = "from sap2.files import check_writable, atomic_write; import sys; check_writable(sys.argv[1])\n"
    code += "with atomic_write(sys.argv[1]) as stream: stream.write('new')"
    script = f'"{sys.executable}" -c "$1" >(tr a-z A-Z) | cat'
    done = subprocess.run(["bash", "-c", script, "bash", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("NEW", "")


def test_what_goes_to_standard_output():
    assert is_standard_output("-") and is_standard_output("/dev/stdout") and not is_standard_output("/dev/null")
    assert has_own_name("x.jsonl") and not any(map(has_own_name, ["-", "/dev/stdout", "/dev/null", "/dev/fd/9"]))


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for refuse in (check_writable, write):
        with pytest.raises(ValueError, match="is a folder; allowed: the name of a file"):
            refuse(tmp_path)
        with pytest.raises(OSError) as caught:
            refuse(tmp_path / "file" / "x.txt")
        assert caught.value.filename == str(tmp_path / "file" / "x.txt")
    check_writable(tmp_path / "new" / "folder" / "x.txt")
    check_writable("-"), check_writable("/dev/stdout")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    """As root everything is allowed, so that the system's answer is made up."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OSError, match="no permission to write in") as caught:
        check_writable(tmp_path / "x.txt")
    assert caught.value.filename == str(tmp_path / "x.txt")


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    code = """
import resource, signal, sys
from sap2.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with atomic_write(sys.argv[1]) as stream:
        stream.write("x" * 1000)
except OSError as error:
    print(error.errno, error.filename)
"""
    path = tmp_path / "x.txt"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(path)]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_becomes_a_folder_meanwhile_leaves_nothing_hidden(tmp_path):
    path = tmp_path / "x.txt"
    with pytest.raises(OSError), atomic_write(path) as stream:
        stream.write("new")
        path.mkdir()
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("format", ["jsonl", "json", "parquet"])
def test_rows_of_every_format_go_through_a_pipe(tmp_path, format):
    pipe, copy = tmp_path / "pipe", tmp_path / f"copy.{format}"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: copy.write_bytes(pipe.read_bytes()))
    reader.start()
    write_rows(pipe, [UTTERANCE, UTTERANCE], format)
    reader.join(10)
    assert [row for _, row in read_rows(copy)] == [UTTERANCE, UTTERANCE]


def test_commands_that_write_to_standard_output_report_on_standard_error(tmp_path, capsys):
    utterances, result = tmp_path / "u.jsonl", tmp_path / "result.jsonl"
    write_rows(utterances, [UTTERANCE])
    assert sap2("data", "build_prune", utterances, "--output", "-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == "u1" and "1 rows" in err
    row = json.loads(out) | {"response": "hi emily", "labels": "hi emily"}
    write_rows(result, [row])
    assert sap2("score", result, "--json", "-", "--definition", "slidespeech", "--normalize", "none") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["systems"] and "WER" in err


@pytest.mark.parametrize("arguments", [["data", "build_prune", "{}", "--output"], ["score", "{}", "--html"]])
def test_commands_refuse_an_output_that_is_a_folder_before_they_read(tmp_path, capsys, arguments):
    folder = tmp_path / "out.jsonl"
    folder.mkdir()
    missing = str(tmp_path / "gone.jsonl")
    assert sap2(*(missing if argument == "{}" else argument for argument in arguments), folder) == 2
    assert "is a folder; allowed: the name of a file" in capsys.readouterr().err


def test_a_full_disk_stops_the_audio_cutter_with_the_file_s_name(wavs):
    from sap2.data.cutting import Cut, cut_all

    report = cut_all([Cut(wavs[0], 0.0, 0.5, "/dev/full")], 1)
    assert list(report.failures) == ["/dev/full"]
    assert "No space left on device: '/dev/full'" in report.failures["/dev/full"]
