"""``sap2 transcribe``: what it writes and where."""

from __future__ import annotations

import pytest
from commands import sap2

from sap2.commands.transcribe import write_or_print


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(tmp_path, wavs, capsys):
    assert sap2("transcribe", wavs[0], "--model", "/no/model", "--output", tmp_path) == 2
    assert f"{tmp_path} is a folder; allowed: the name of a file" in capsys.readouterr().err


def test_a_text_that_cannot_be_written_is_printed(capsys):
    with pytest.raises(OSError):
        write_or_print("/dev/full", "hi emily\n")
    printed = capsys.readouterr()
    assert printed.out == "hi emily\n"
    assert printed.err == "/dev/full could not be written; this is its text:\n"
