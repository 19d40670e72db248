"""A run with vLLM survives the death of any of its processes, and Ctrl-C; what it cannot do is one line.

The environment with vLLM is made by ``.ci/vllm-env``; elsewhere these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import name_of, names_left, offspring
from talk_rows import utterances_of_talks

from sap2.pipeline.run import PipelineOptions, run_pipeline

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; .ci/vllm-env"),
]
MODEL = ("sap2-tiny", {"prune": "sap2-tiny-prune", "asr": "sap2-tiny-asr"})
SMALL = {"kv_cache_memory_bytes": 1 << 28}
TOKENS = 48


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    return utterances_of_talks(tmp_path_factory.mktemp("talks"))


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def command_of(options, arguments):
    return [
        *(
            sys.executable,
            "-m",
            "sap2.cli",
            "pipeline",
            "--engine",
            "vllm",
            "--engine-args",
            json.dumps(SMALL | arguments),
        ),
        *("--val_dataset", options.val_dataset, "--result_path", options.result_path, "--model", options.model),
        *("--prune-adapter", options.prune_adapter, "--asr-adapter", options.asr_adapter),
        *("--max_new_tokens", str(options.max_new_tokens), "--batch_size", str(options.batch_size)),
    ]


def options_for(talks, path):
    return PipelineOptions(talks, str(path), MODEL[0], *MODEL[1].values(), max_new_tokens=TOKENS, batch_size=1)


def start_and_wait(options, lines, arguments=None):
    """The command of a run, once so many results are there; its standard error goes to a file."""
    path, log = Path(options.result_path), Path(options.result_path).with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command_of(options, arguments or {}),
            stderr=stream,
            stdout=stream,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.005)
    return process, log


def check_goes_on(options, done, talks, tmp_path):
    report = run_pipeline(options)
    assert (report.resumed, report.failed) == (done, 0)
    ids = [row["id"] for row in rows_of(options.result_path)]
    assert len(ids) == len(set(ids)) == len(rows_of(talks))
    uninterrupted = options_for(talks, tmp_path / "uninterrupted.jsonl")
    run_pipeline(uninterrupted)
    replies = [{row["id"]: row["replies"] for row in rows_of(o.result_path)} for o in (options, uninterrupted)]
    assert replies[0] == replies[1]


@pytest.mark.parametrize(("victim", "executor"), [("VLLM::EngineCore", None), ("VLLM::Worker", "mp")])
def test_a_killed_engine_process_is_one_line_and_the_run_goes_on(talks, tmp_path, victim, executor):
    options = options_for(talks, tmp_path / "result.jsonl")
    process, log = start_and_wait(options, 2, {"distributed_executor_backend": executor} if executor else {})
    (engine,) = [pid for pid in offspring(process.pid) if victim in name_of(pid)]
    os.kill(engine, signal.SIGKILL)
    assert process.wait(timeout=120) == 1
    lines = [line for line in log.read_text().splitlines() if line.startswith("sap2: error:")]
    done = len(rows_of(options.result_path))
    total = len(rows_of(talks))
    assert 2 <= done < total
    assert len(lines) == 1 and f"{done} of {total} rows have a result, the same command goes on" in lines[0]
    if victim == "VLLM::EngineCore":
        check_goes_on(options, done, talks, tmp_path)


def check_nothing_left(pids):
    assert not names_left(pids, 60, "VLLM::")


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGKILL"])
def test_a_driver_that_ends_leaves_no_process_and_the_run_goes_on(talks, tmp_path, how):
    """A terminal sends Ctrl-C to all processes of the command at once."""
    options = options_for(talks, tmp_path / "result.jsonl")
    process, log = start_and_wait(options, 2)
    below = [pid for pid in offspring(process.pid) if "VLLM::" in name_of(pid)]
    assert below
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) == 130
    else:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    check_nothing_left(below)
    done, total = len(rows_of(options.result_path)), len(rows_of(talks))
    assert 2 <= done < total
    if how == "Ctrl-C":
        said = log.read_text()
        left = f"sap2: note: interrupted; {done} of {total} rows have a result, the same command goes on"
        assert [line for line in said.splitlines() if "sap2:" in line] == [left] and "Traceback" not in said
    check_goes_on(options, done, talks, tmp_path)


def test_a_run_that_comes_to_its_end_leaves_no_semaphore(talks, tmp_path):
    options = options_for(talks, tmp_path / "result.jsonl")
    done = subprocess.run(command_of(options, {}), capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and len(rows_of(options.result_path)) == len(rows_of(talks)), done.stderr[-3000:]
    assert "leaked" not in done.stderr


def test_a_cache_that_cannot_be_had_is_one_line_that_says_what_settles_it(talks, tmp_path):
    options = options_for(talks, tmp_path / "result.jsonl")
    command = command_of(options, {"kv_cache_memory_bytes": 1 << 50})
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "sap2:" in line]
    assert line.startswith("sap2: error: vLLM did not start: ") and "memory" in line
    assert f"--engine-args, now: kv_cache_memory_bytes {1 << 50}" in line
