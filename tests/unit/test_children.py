"""What a bench starts ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from children import child, run_apart
from processes import names_left

EVAL = Path(__file__).resolve().parents[2] / "eval"
PATIENCE = 60
WAITING = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"


def line_of(log: Path, process: subprocess.Popen) -> str:
    while not log.read_text().endswith("\n"):
        assert process.poll() is None, log.read_text()
    return log.read_text()


def test_a_command_and_what_it_started_end_with_the_block(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), child([sys.executable, "-c", WAITING], log, stdin=-1) as process:
        below = int(line_of(log, process))
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM
    assert not names_left([below], PATIENCE)


def test_a_command_that_has_ended_keeps_its_code(tmp_path):
    with child([sys.executable, "-c", "print('x'); raise SystemExit(3)"], tmp_path / "log") as process:
        assert process.wait() == 3
    assert process.returncode == 3 and (tmp_path / "log").read_text() == "x\n"


def test_a_function_runs_in_another_process():
    assert run_apart(os.getppid) == os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        run_apart(int, "seven")


def test_a_bench_that_is_terminated_leaves_no_process(tmp_path):
    (tmp_path / "bench.py").write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path
            from children import run_apart
            from sap2.commands.shared import run_bordered

            def work(folder):
                Path(folder, "part").write_text(f"{os.getpid()}\\n")
                Path(folder, "part").replace(Path(folder, "pid"))
                time.sleep(600)

            if __name__ == "__main__":
                sys.exit(run_bordered(lambda: run_apart(work, sys.argv[1])))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EVAL), str(EVAL.parent)])}
    command = [sys.executable, str(tmp_path / "bench.py"), str(tmp_path)]
    with child(command, tmp_path / "log", env=environment) as process:
        while not (tmp_path / "pid").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not names_left([int((tmp_path / "pid").read_text())], PATIENCE)
