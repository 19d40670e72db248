"""A test set in parts that know of no other, and put together: the file of one run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil

import pytest
from commands import sap2
from pipeline_rows import prune_row, prune_rows, write_jsonl

from sap2.pipeline.run import PipelineOptions, merge_shards, run_pipeline
from sap2.pipeline.shards import Shard, parse_shard


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def parts(tiny, asr, wavs, tmp_path_factory):
    """The folder of two parts and of one run over all, with a row that cannot be read; and the options."""
    folder = tmp_path_factory.mktemp("parts")
    path = write_jsonl(folder / "rows.jsonl", [*prune_rows(wavs), prune_row("gone")])
    options = PipelineOptions(path, str(folder / "result.jsonl"), str(tiny), None, str(asr), max_new_tokens=4)
    options = dataclasses.replace(options, batch_size=1)
    run_pipeline(dataclasses.replace(options, result_path=str(folder / "whole.jsonl")))
    for index in (1, 2):
        run_pipeline(dataclasses.replace(options, shard=Shard(index, 2)))
    return folder, options


@pytest.fixture
def copy(parts, tmp_path):
    """A copy that a test may change."""
    folder, options = parts
    shutil.copytree(folder, tmp_path / "parts")
    changed = {name: getattr(options, name).replace(str(folder), str(tmp_path / "parts")) for name in ("result_path",)}
    changed["val_dataset"] = options.val_dataset.replace(str(folder), str(tmp_path / "parts"))
    return tmp_path / "parts", dataclasses.replace(options, **changed)


def merge(options):
    return merge_shards(options.val_dataset, options.result_path)


def test_the_parts_together_are_the_run_over_all(copy):
    folder, options = copy
    names = [f"result.shard{n}of2.jsonl" for n in (1, 2)]
    assert [len(rows_of(folder / name)) for name in names] == [2, 1]
    assert sap2("pipeline", "--merge", "--val_dataset", options.val_dataset, "--result_path", options.result_path) == 1
    assert rows_of(folder / "result.jsonl") == rows_of(folder / "whole.jsonl")
    assert rows_of(folder / "result.errors.jsonl") == rows_of(folder / "whole.errors.jsonl")
    settings = [json.loads((folder / f"{name}.settings.json").read_text()) for name in ("result", "whole")]
    assert settings[0] == settings[1]
    assert run_pipeline(options).resumed == 3  # and goes on as one


def test_a_part_goes_on_where_it_was(copy):
    _, options = copy
    assert run_pipeline(dataclasses.replace(options, shard=Shard(1, 2))).resumed == 2


def test_rows_of_parts_that_are_not_there_yet_are_named(copy):
    folder, options = copy
    for file in folder.glob("result.shard1of2.*"):
        file.unlink()
    report = merge(options)
    assert (report.rows, report.failed) == (4, 3)
    errors = {row["id"]: row["error"] for row in rows_of(folder / "result.errors.jsonl")}
    assert errors["u0"] == errors["u2"] == "no part has a result of this row yet"
    run_pipeline(dataclasses.replace(options, shard=Shard(1, 2)))
    assert merge(options).failed == 1
    assert rows_of(folder / "result.jsonl") == rows_of(folder / "whole.jsonl")


def test_a_line_that_is_being_written_waits_for_the_next_merge(copy):
    folder, options = copy
    part = folder / "result.shard1of2.jsonl"
    before = part.read_bytes()
    part.write_bytes(before[:-5])
    assert merge(options).failed == 2
    assert part.read_bytes() == before[:-5]


def test_results_of_changed_rows_are_left_out_and_counted(copy, wavs):
    folder, options = copy
    rows = [*prune_rows(wavs), prune_row("gone")]
    rows[1] = prune_rows(wavs)[2] | {"id": "u1", "audios": rows[1]["audios"]}
    write_jsonl(folder / "rows.jsonl", rows)
    report = merge(options)
    assert (report.changed, report.failed) == (1, 2)


def test_parts_of_different_runs_are_not_mixed(copy):
    folder, options = copy
    settings = folder / "result.shard2of2.settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"max_new_tokens": 9}))
    with pytest.raises(ValueError, match=r"shard1of2.jsonl and .*shard2of2.jsonl .*different settings \(max_new_tok"):
        merge(options)
    settings.unlink()
    with pytest.raises(ValueError, match="was not written by sap2 pipeline"):
        merge(options)


def test_what_cannot_be_merged_is_refused(copy, tmp_path, capsys):
    _, options = copy
    with pytest.raises(ValueError, match=r"there is no other\.shard1of….jsonl beside it; --shard I/N writes them"):
        merge(dataclasses.replace(options, result_path=str(tmp_path / "other.jsonl")))
    few = write_jsonl(tmp_path / "few.jsonl", [prune_row("u0")])
    with pytest.raises(ValueError, match="ids that the test set lacks"):
        merge(dataclasses.replace(options, val_dataset=few))
    given = ["pipeline", "--val_dataset", options.val_dataset, "--result_path", options.result_path]
    assert sap2(*given, "--merge", "--shard", "1/2") == 2
    assert "leave --shard out" in capsys.readouterr().err
    assert sap2(*given) == 2
    assert "--model is missing" in capsys.readouterr().err


def test_every_row_is_in_one_part():
    rows = [argparse.Namespace(number=number) for number in range(1, 12)]
    taken = [Shard(index, 4).take(rows) for index in range(1, 5)]
    assert sorted(row.number for part in taken for row in part) == list(range(1, 12))
    assert [len(part) for part in taken] == [3, 3, 3, 2]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", " 1/2"])
def test_parts_that_cannot_be_are_refused(text):
    assert parse_shard("2/8") == (2, 8)
    with pytest.raises(argparse.ArgumentTypeError, match="allowed: I/N with I from 1 to N, as 2/8"):
        parse_shard(text)
