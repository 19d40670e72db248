"""The result file: whole lines, joined by id, in order, whatever was killed."""

from __future__ import annotations

import json

import pytest
from pipeline_rows import prune_row

from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.pipeline.results import ResultFiles
from sap2.pipeline.stages import stage_content
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import row_keywords


def result(id, reply="emily", **fields):
    row = prune_row(id)
    return {
        "id": id,
        "response": f"text of {id}",
        "messages": [*row["messages"], {"role": "assistant", "content": f"text of {id}"}],
        "audios": row["audios"],
        "replies": {"prune": reply, "asr": f"text of {id}"},
        "prune_labels": None,
        **fields,
    }


def open_files(path, settings=None, overwrite=False, rank=0, world=1):
    files = ResultFiles(path, rank, world)
    if rank == 0:
        files.start(settings or {"model": "m"}, overwrite)
    return files


def ids_in(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_results_are_there_as_they_come_and_in_order_at_the_end(tmp_path):
    path = tmp_path / "result.jsonl"
    files = open_files(path)
    files.append([result("b")])
    assert ids_in(path) == ["b"]
    files.append([result("a"), result("c")])
    files.finish(["a", "b", "c"])
    files.close()
    assert ids_in(path) == ["a", "b", "c"]


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path, cut):
    path = tmp_path / "result.jsonl"
    files = open_files(path)
    files.append([result("a"), result("b")])
    files.close()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + cut] if cut > 0 else whole[:cut])
    again = open_files(path)
    assert again.done(["a", "b"]) == {"a"}
    again.append([result("b")])
    again.finish(["a", "b"])
    again.close()
    assert path.read_bytes() == whole


def test_ranks_are_merged_and_a_run_with_other_ranks_goes_on(tmp_path):
    path = tmp_path / "result.jsonl"
    first, second = open_files(path, world=2), open_files(path, rank=1, world=2)
    second.append([result("a")])
    first.append([result("d")])
    second.append_errors([{"id": "x", "row": 9, "error": "no"}])
    first.close(), second.close()  # killed before the end
    third = open_files(path)
    assert third.done("abcd") == {"a", "d"}
    assert not third.errors.exists()  # the row is tried again
    third.append([result("c"), result("b")])
    third.append_errors([{"id": "x", "row": 9, "error": "no"}])
    third.finish("abcd")
    third.close()
    assert ids_in(path) == ["a", "b", "c", "d"]
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["result.errors.jsonl", "result.jsonl", "result.prune.jsonl", "result.settings.json"]


def test_errors_of_all_ranks_come_together_by_row(tmp_path):
    path = tmp_path / "result.jsonl"
    first, second = open_files(path, world=2), open_files(path, rank=1, world=2)
    second.append_errors([{"id": "x", "row": 2, "error": "no"}])
    first.append_errors([{"id": "y", "row": 1, "error": "no"}])
    first.finish([])
    first.close(), second.close()
    assert ids_in(tmp_path / "result.errors.jsonl") == ["y", "x"]


def test_what_was_made_with_other_settings_is_not_mixed(tmp_path):
    path = tmp_path / "result.jsonl"
    files = open_files(path, {"model": "m", "stages": "asr"})
    files.append([result("a")])
    files.close()
    with pytest.raises(ValueError, match=r"other settings: stages 'asr' \(now 'joint'\); --overwrite starts afresh"):
        open_files(path, {"model": "m", "stages": "joint"})
    with pytest.raises(ValueError, match=r"other settings: pruner None \(now 'spot'\)"):
        open_files(path, {"model": "m", "stages": "asr", "pruner": "spot"})
    files = open_files(path, {"model": "m", "stages": "joint"}, overwrite=True)
    assert files.done([]) == set()
    files.close()


def test_a_foreign_or_unknown_result_is_not_touched(tmp_path):
    path = tmp_path / "result.jsonl"
    path.write_text('{"response": "of swift infer"}\n')
    with pytest.raises(ValueError, match="was not written by sap2 pipeline; --overwrite replaces it"):
        open_files(path)
    assert path.read_text() == '{"response": "of swift infer"}\n'
    files = open_files(path, overwrite=True)
    files.append([result("a")])
    with pytest.raises(ValueError, match="1 ids that the test set lacks"):
        files.done(["b"])
    with pytest.raises(ValueError, match="another run is writing"):
        open_files(path)
    files.close()
    with pytest.raises(ValueError, match=r"allowed: a name that ends with \.jsonl"):
        ResultFiles(tmp_path / "result.txt")


def test_the_results_of_stage_one_can_be_extracted_from(tmp_path):
    """What the pipeline leaves beside its results is what ``swift infer`` leaves for the script between two runs."""
    files = open_files(tmp_path / "result.jsonl")
    files.append([result("a", "emily, ghost")])
    files.finish(["a"])
    files.close()
    rows = tmp_path / "asr.jsonl"
    write_rows(rows, [prune_row("a", content=stage_content("asr", ["emily", "steve wozniak"]))])
    report = extract_predicted_keywords(tmp_path / "result.prune.jsonl", rows, tmp_path / "out.jsonl")
    ((_, row),) = read_rows(tmp_path / "out.jsonl")
    assert row_keywords(row) == ["emily"] and report.unlisted == 1


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    open_files(tmp_path / "result.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    files = open_files(tmp_path / "result.jsonl", {"model": "other"})
    files.finish([])
    files.close()
    assert (tmp_path / "result.jsonl").read_bytes() == b""
