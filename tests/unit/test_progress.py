"""Progress: a line now and then where nobody watches a terminal."""

from __future__ import annotations

import io
import re

from sap2 import progress as module
from sap2.progress import Progress, progress


def test_lines_in_a_log(capsys):
    with Progress("decode", 4, every=0) as shown:
        for done in range(2):
            shown.update(2, f"real-time factor 0.{done}")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"decode: 2 of 4 rows in 00:00, about 00:00 left; real-time factor 0\.0", lines[0])
    assert re.fullmatch(r"decode: 4 of 4 rows in 00:00, about 00:00 left; real-time factor 0\.1", lines[1])


def test_short_jobs_say_nothing(capsys):
    assert list(progress(range(3), "read")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_unknown_total_and_units(capsys):
    with Progress("read", unit="file", every=0) as shown:
        shown.update()
    assert capsys.readouterr().err == "read: 1 files in 00:00\n"


def test_hidden(capsys):
    with Progress("read", every=0, shown=False) as shown:
        shown.update()
    assert capsys.readouterr().err == "" and shown.done == 1


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with Progress("decode", 4) as shown:
        shown.update(4, "fast")
        shown._bar.refresh()
        assert "decode: 100%" in module.sys.stderr.getvalue() and "fast" in module.sys.stderr.getvalue()
