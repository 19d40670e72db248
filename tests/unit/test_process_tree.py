"""The benches count the processes that nobody waits for, too, and those that have ended."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bench_pipeline import measure
from process_tree import Watch, cpu_seconds, family, pss_mib

BUSY = """
import sys, time
held = bytearray(64 << 20)
held[:: 4096] = b"x" * len(held[:: 4096])
while time.process_time() < 0.5:
    pass
print("done", flush=True)
sys.stdin.read()
"""
PARENT = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {BUSY!r}])
sys.stdin.read()
os._exit(0)
"""


def test_children_that_nobody_waits_for_are_counted_and_not_forgotten():
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "done\n"
    watch = Watch(process.pid)
    watch.look()
    assert len(family(process.pid)) == 2
    assert watch.cpu >= 0.5 and cpu_seconds(process.pid) >= 0.5
    assert watch.mib > 64 and pss_mib(process.pid) > 64
    seen = watch.cpu, watch.mib
    process.stdin.close()
    process.wait()
    watch.look()
    assert (watch.cpu, watch.mib) == seen
    assert (cpu_seconds(process.pid), pss_mib(process.pid), family(process.pid)) == (0.0, 0.0, [])


def test_a_command_is_measured_to_its_end_and_its_failure_shown(tmp_path):
    cost = measure("it", [sys.executable, "-c", "print('hello')"], tmp_path / "log")
    assert cost.cpu > 0 and cost.seconds > 0
    with pytest.raises(RuntimeError, match=r"it ended with code 3:\nwhat was wrong"):
        measure("it", [sys.executable, "-c", "print('what was wrong'); raise SystemExit(3)"], tmp_path / "log")
