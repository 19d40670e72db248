"""What Ray's workers do and what is refused before there are any; none of it needs Ray."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import sap2
from pipeline_rows import TOKENS, prune_row, prune_rows, write_jsonl

from sap2 import __version__
from sap2.errors import EngineError, InputError
from sap2.pipeline import ray_run
from sap2.pipeline.items import Item, read_items
from sap2.pipeline.ray_actor import RowDecoder, Setup, rows_as_block
from sap2.pipeline.ray_run import Cluster, check_ray
from sap2.pipeline.report import PipelineReport
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.worker import Worker


@pytest.fixture(scope="module")
def options(tiny, prune, asr, wavs, tmp_path_factory):
    """Three rows that can be decoded and one without a file."""
    folder = tmp_path_factory.mktemp("ray")
    path = write_jsonl(folder / "rows.jsonl", [*prune_rows(wavs), prune_row("gone")])
    return PipelineOptions(path, str(folder / "one.jsonl"), str(tiny), str(prune), str(asr), max_new_tokens=TOKENS)


def setup_of(folder, version=__version__):
    return Setup(version, str(folder), None)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_worker_answers_what_one_process_writes(options, tmp_path, monkeypatch):
    run_pipeline(options)
    one = Path(options.result_path)
    results, errors = (rows_of(path) for path in (one, one.with_suffix(".errors.jsonl")))
    monkeypatch.chdir(tmp_path)
    decoder = RowDecoder(options, setup_of(tmp_path))
    items = [item for item in read_items(options.val_dataset, "prune") if isinstance(item, Item)]
    for _ in range(2):
        answer = decoder(rows_as_block(items))
        rows = {
            kind: [json.loads(c) for k, c in zip(answer["kind"], answer["content"], strict=True) if k == kind]
            for kind in ("result", "error")
        }
        assert sorted(without_seconds(rows["result"]), key=lambda row: row["id"]) == without_seconds(results)
        assert rows["error"] == errors


def test_what_a_worker_cannot_do_is_told_and_not_raised(options, tmp_path, monkeypatch):
    """An exception in the making of a worker would have Ray make it again and again."""
    monkeypatch.chdir(tmp_path)
    for changes, setup, answer in [
        ({}, setup_of(tmp_path, "0.0"), ("refused", "0.0 where the command runs; allowed: one version everywhere")),
        ({"asr_adapter": str(tmp_path)}, setup_of(tmp_path), ("refused", "has no adapter_config.json")),
        ({"engine_args": {"a": 1}}, setup_of(tmp_path), ("refused", "--engine-args are arguments of vLLM")),
        ({"model": 7}, setup_of(tmp_path), ("fault", "Traceback")),
    ]:
        decoder = RowDecoder(dataclasses.replace(options, **changes), setup)
        for _ in range(2):
            found = decoder({"item": []})
            assert found["kind"] == [answer[0]] and answer[1] in found["content"][0]


def test_a_worker_whose_engine_has_died_ends_its_process(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decoder = RowDecoder(options, setup_of(tmp_path))

    def die(self, *args, **kwargs):
        raise EngineError("dead")

    ended = []
    monkeypatch.setattr("sap2.pipeline.worker.Decoder.stream", die)
    monkeypatch.setattr("sap2.pipeline.ray_actor.os._exit", ended.append)
    decoder(rows_as_block([item for item in read_items(options.val_dataset, "prune") if isinstance(item, Item)]))
    assert ended == [1]


class Answers:
    """In place of a cluster: blocks of answers for the first round, and for the second, where each row is alone."""

    def __init__(self, *rounds):
        self._rounds = iter(rounds)
        self.sizes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def block_size(self, rows):
        return rows

    def decode(self, items, size):
        self.sizes.append((sorted(item.id for item in items), size))
        return iter(next(self._rounds))


class Files:
    def __init__(self):
        self.results, self.errors = [], []

    def append(self, rows):
        self.results += rows

    def append_errors(self, rows):
        self.errors += rows


def block(*ids, kind="result"):
    rows = [{"id": id, "audio_seconds": 2.0, "row": 1, "error": "bad audio"} for id in ids]
    return {"kind": [kind] * len(ids), "content": [json.dumps(row) for row in rows]}


def decode(options, monkeypatch, *rounds):
    answers, files = Answers(*rounds), Files()
    monkeypatch.setattr(ray_run, "_cluster", lambda options: answers)
    items = [Item(n, id, "a.wav", [], "", None, None, None, None) for n, id in enumerate("abcd", 1)]
    writer = Worker(files, PipelineReport(rows=4))
    ray_run.decode_with_ray(options, items, writer)
    return answers, files, writer.report


def test_a_block_that_comes_twice_is_written_once(options, monkeypatch):
    rounds = [block("a", "b"), block("b", "a"), block("d", kind="error"), block("d", "c")]
    answers, files, report = decode(options, monkeypatch, rounds)
    assert [row["id"] for row in files.results] == ["a", "b", "c"]
    assert files.errors == [{"id": "d", "row": 1, "error": "bad audio"}]
    assert (report.failed, report.audio_seconds, answers.sizes) == (1, 6.0, [(["a", "b", "c", "d"], 4)])


def test_rows_that_workers_die_of_are_tried_alone_and_become_errors(options, monkeypatch):
    answers, files, report = decode(options, monkeypatch, [block("a")], [block("c"), block("d")])
    assert answers.sizes == [(["a", "b", "c", "d"], 4), (["b", "c", "d"], 1)]
    assert [row["id"] for row in files.results] == ["a", "c", "d"]
    assert files.errors == [{"id": "b", "row": 2, "error": "it was the end of 4 workers"}] and report.failed == 1


@pytest.mark.parametrize("kind, error", [("refused", InputError), ("no engine", EngineError), ("fault", RuntimeError)])
def test_an_answer_may_end_the_run(options, monkeypatch, kind, error):
    with pytest.raises(error, match="the reason"):
        decode(options, monkeypatch, [{"kind": [kind], "content": ["the reason"]}])


@pytest.mark.parametrize(
    "changes, resources, expected",
    [
        ({}, {"CPU": 32.0, "GPU": 8.0}, (8, 1, 1)),
        ({"ray_actors": 3}, {"CPU": 32.0, "GPU": 8.0}, (3, 1, 1)),
        ({"engine_args": {"tensor_parallel_size": 2}}, {"CPU": 32.0, "GPU": 9.0}, (4, 1, 2)),
        ({"device": "cpu"}, {"CPU": 32.0, "GPU": 8.0}, (4, 8, 0)),
        ({}, {"CPU": 32.0}, (4, 8, 0)),
        ({"ray_actors": 5}, {"CPU": 32.0}, (5, 6, 0)),
    ],
)
def test_workers_share_what_the_cluster_has(options, changes, resources, expected):
    options = dataclasses.replace(options, **changes)
    assert ray_run._workers(options, resources, machines=4)[1:] == expected


def test_more_workers_than_there_is_room_for_are_refused(options):
    for changes, resources, message in [
        ({"ray_actors": 3}, {"CPU": 2.0}, r"--ray-actors 3: the cluster has 2 CPU cores; allowed: 1 to 2"),
        ({"ray_actors": 3}, {"CPU": 9.0, "GPU": 2.0}, r"3 workers of 1 GPUs each need more than the cluster's 2 GPUs"),
        ({"engine_args": {"tensor_parallel_size": 4}}, {"CPU": 9.0, "GPU": 2.0}, r"1 workers of 4 GPUs each need more"),
    ]:
        with pytest.raises(InputError, match=message):
            ray_run._workers(dataclasses.replace(options, **changes), resources, machines=1)


def test_blocks_are_small_enough_for_all_to_end_together(options):
    cluster = Cluster(dataclasses.replace(options, batch_size=16), workers=2, cpus=1, gpus=0)
    assert [cluster.block_size(rows) for rows in (1, 7, 1000, 1_000_000)] == [1, 1, 125, 256]


def test_what_does_not_go_with_ray_is_refused(options, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for changes, message in [
        ({"engine": "auto"}, "--engine auto may be another engine on each machine"),
        ({"device": "cuda:1"}, "--device cuda:1: Ray says which GPU a worker gets"),
        ({"ray": "ray://head:10001"}, r"run the command on a machine of the cluster; allowed: auto, HOST:PORT"),
    ]:
        with pytest.raises(InputError, match=message):
            check_ray(dataclasses.replace(options, **{"ray": "local", **changes}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        check_ray(dataclasses.replace(options, ray="local"))


def test_without_ray_one_line_says_what_to_install(options, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    given = ["pipeline", "--val-dataset", options.val_dataset, "--model", options.model]
    given += ["--result-path", tmp_path / "r.jsonl"]
    assert sap2(*given, "--ray") == 2
    assert "sap2: error: --ray needs the package ray[data]: pip install ray[data]" in capsys.readouterr().err
    assert sap2(*given, "--ray-actors", 2) == 2
    assert "--ray-actors says how many workers Ray starts; allowed: with --ray" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_ray_that_does_not_start_is_one_line(options, monkeypatch):
    def init(**settings):
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setattr(ray_run.os, "environ", dict(os.environ))
    with (
        pytest.raises(EngineError, match=r"^--ray local: Ray did not start \(The current node timed out [^\n]*\)$"),
        ray_run._cluster(dataclasses.replace(options, ray="local")),
    ):
        pass
