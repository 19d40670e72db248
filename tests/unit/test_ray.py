"""Runs on a real Ray: the file is that of one process, and no death loses or repeats a row.

The environment with Ray is made by ``.ci/ray-env``; elsewhere these tests are skipped.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray_decoders
from pipeline_rows import prune_row, write_jsonl
from processes import name_of, names_left, offspring

from sap2.errors import EngineError, InputError
from sap2.pipeline import ray_run
from sap2.pipeline.items import Item
from sap2.pipeline.report import PipelineReport
from sap2.pipeline.results import ResultFiles
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.worker import Worker

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed; .ci/ray-env"),
]
MODEL = ("sap2-tiny", "sap2-tiny-prune", "sap2-tiny-asr")
WORKER = "MapWorker"
TOKENS = 24


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def without_seconds(path):
    return {row["id"]: {name: value for name, value in row.items() if name != "seconds"} for row in rows_of(path)}


@pytest.fixture(scope="module")
def one(wavs, tmp_path_factory):
    """Options and files of a run in one process; two rows have no result."""
    folder = tmp_path_factory.mktemp("one")
    rows = [prune_row(f"u{n}", audios=[wavs[n % 3]]) for n in range(40)]
    rows[5] = prune_row("gone")
    path = write_jsonl(folder / "rows.jsonl", [*rows, {"id": "bad"}])
    options = PipelineOptions(path, str(folder / "one.jsonl"), *MODEL, max_new_tokens=TOKENS, batch_size=1)
    assert run_pipeline(options).failed == 2
    return options


def command_of(options):
    return [
        *(sys.executable, "-m", "sap2.cli", "pipeline", "--ray", "--ray-actors", "2"),
        *("--val_dataset", options.val_dataset, "--result_path", options.result_path, "--model", options.model),
        *("--prune-adapter", options.prune_adapter, "--asr-adapter", options.asr_adapter),
        *("--max_new_tokens", str(options.max_new_tokens), "--batch_size", str(options.batch_size)),
    ]


def start_and_wait(options):
    """The command, once a result is there; its processes, and the file that it prints to."""
    path, log = Path(options.result_path), Path(options.result_path).with_suffix(".log")
    with log.open("w") as stderr, log.with_suffix(".out").open("w") as stdout:
        process = subprocess.Popen(command_of(options), stderr=stderr, stdout=stdout, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 500
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.01)
    return process, offspring(process.pid), log


def check_same(options, one):
    assert without_seconds(options.result_path) == without_seconds(one.result_path)
    assert len(rows_of(options.result_path)) == len(without_seconds(options.result_path)) == 39
    errors = [rows_of(Path(o.result_path).with_suffix(".errors.jsonl")) for o in (options, one)]
    assert errors[0] == errors[1] and len(errors[0]) == 2
    picks = [Path(o.result_path).with_suffix(".prune.jsonl").read_bytes() for o in (options, one)]
    assert picks[0] == picks[1]


def wait_for_end(pids):
    assert not names_left(pids, 240)


def listening(pids):
    """Addresses at which processes can be reached over a network."""
    found = [one.laddr.ip for pid in pids if name_of(pid) for one in psutil.Process(pid).net_connections("inet")]
    return {ipaddress.ip_address(address.removeprefix("::ffff:")) for address in found}


def test_a_killed_worker_changes_nothing(one, tmp_path):
    """No process of the run can be reached from another machine, either."""
    options = dataclasses.replace(one, result_path=str(tmp_path / "result.jsonl"))
    process, processes, log = start_and_wait(options)
    addresses = listening([process.pid, *processes])
    assert addresses and all(address.is_loopback for address in addresses), addresses
    workers = [pid for pid in processes if WORKER in name_of(pid)]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    done = len(rows_of(options.result_path))
    assert process.wait(timeout=500) == 1  # two rows have no result
    assert done < 39
    check_same(options, one)
    (said,) = log.with_suffix(".out").read_text().splitlines()
    assert "41 rows, 2 failed" in said
    assert "Traceback" not in log.read_text()
    wait_for_end(processes)


def test_after_the_death_of_all_the_same_command_goes_on(one, tmp_path):
    """The command itself is killed; what it started ends by itself."""
    options = dataclasses.replace(one, result_path=str(tmp_path / "result.jsonl"))
    process, processes, _ = start_and_wait(options)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(rows_of(options.result_path))
    assert 0 < done < 39
    wait_for_end(processes)
    again = subprocess.run(command_of(options), capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert again.returncode == 1 and f"{done} done before" in again.stdout, again.stderr[-3000:]
    check_same(options, one)


CLUSTER = """
import ray, sys
given = dict(num_cpus=2, num_gpus=0, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="ERROR")
print(ray.init(address="local", **given).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster that others use as well."""
    helpers = Path(ray_decoders.__file__).parent
    os.environ["RAY_AUTH_MODE"] = "token"  # before Ray is imported
    path = os.pathsep.join([str(helpers), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(timeout=60)


def run_with(decoder, cluster, tmp_path, monkeypatch, ids, **changes):
    monkeypatch.setattr(ray_run, "RowDecoder", decoder)
    items = [Item(n, id, "a.wav", [], "", None, None, None, None) for n, id in enumerate(ids, 1)]
    options = PipelineOptions("", str(tmp_path / "r.jsonl"), "", ray=cluster, ray_actors=2, batch_size=1)
    files = ResultFiles(options.result_path)
    writer = Worker(files, PipelineReport(rows=len(items)))
    try:
        ray_run.decode_with_ray(dataclasses.replace(options, **changes), items, writer)
    finally:
        files.close()
    return [row["id"] for row in rows_of(files.path)], files.errors


@pytest.mark.slow  # eight starts of a worker
def test_a_row_that_kills_its_workers_is_an_error_of_that_row(cluster, tmp_path, monkeypatch):
    ids = ["once", *map(str, range(20)), "killer", *map(str, range(20, 30))]
    done, errors = run_with(ray_decoders.Obedient, cluster, tmp_path, monkeypatch, ids)
    assert sorted(done) == sorted(set(ids) - {"killer"})
    assert rows_of(errors) == [{"id": "killer", "row": 22, "error": "it was the end of 4 workers"}]


def test_an_answer_that_ends_the_run_is_one_line(cluster, tmp_path, monkeypatch):
    for kind, error in [("refused", InputError), ("no engine", EngineError)]:
        with pytest.raises(error, match=r"^the reason$"):
            run_with(ray_decoders.Unwilling, cluster, tmp_path, monkeypatch, ["a", "b"], model=kind)


def test_workers_that_never_live_are_one_line(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_run, "RESTARTS", 1)
    with pytest.raises(EngineError, match=r"^Ray: .*died"):
        run_with(ray_decoders.Stillborn, cluster, tmp_path, monkeypatch, ["a"])


def test_no_cluster_at_an_address_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"--ray 127\.0\.0\.1:1: no cluster there"):
        run_with(ray_decoders.Obedient, "127.0.0.1:1", tmp_path, monkeypatch, ["a"])
