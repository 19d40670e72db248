"""Rows: reading and writing files as streams, contexts, ids."""

import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap2 import rowfiles as records
from sap2.files import atomic_write
from sap2.prompts import CONTEXT_TOKEN
from sap2.rowfiles import open_writer, read_rows, row_format, write_rows
from sap2.rows import find_contexts, row_audios, row_id, row_keywords

ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "<audio>hi"}, {"role": "assistant", "content": "ho ß\u2028"}],
    "audios": ["/a.flac"],
}


def rows_of(path, **options):
    return [row for _, row in read_rows(path, **options)]


@pytest.mark.parametrize("suffix", records.FORMATS)
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_what_is_written_is_read(tmp_path, suffix, count):
    path = tmp_path / f"rows.{suffix}"
    rows = [{**ROW, "id": str(number)} for number in range(count)]
    assert write_rows(path, iter(rows)) == count
    assert list(read_rows(path)) == list(enumerate(rows, 1))


@pytest.mark.parametrize("suffix", records.FORMATS)
def test_datasets_loads_every_format(tmp_path, suffix):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / f"rows.{suffix}"
    write_rows(path, [ROW, {**ROW, "id": "b", "audios": []}])
    kind = "parquet" if suffix == "parquet" else "json"
    data = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert data[0]["messages"] == ROW["messages"]
    assert data["id"][:] == ["a", "b"]


def test_parquet_whose_first_batch_has_only_empty_lists(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [{**ROW, "audios": []}] * 5000 + [ROW]
    write_rows(path, rows)
    assert rows_of(path)[-1] == ROW


def test_parquet_refuses_a_column_that_would_be_lost(tmp_path):
    path = tmp_path / "rows.parquet"
    with pytest.raises(ValueError, match=r"columns \['late'\] begin after the first 4096 rows"):
        write_rows(path, [ROW] * 5000 + [{**ROW, "late": 1}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", records.FORMATS)
def test_same_rows_same_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        write_rows(path, [ROW, ROW])
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_json_arrays_are_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(records, "_CHUNK", chunk)
    rows = [
        {"text": 'a "quoted" \\ [1, {"x": 2}] \u00e9\U0001f600', "n": [-1.5e-3, True, None]},
        {},
        {"a": {"b": ["]"]}},
    ]
    path = tmp_path / "rows.json"
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=2),
        "\ufeff \n" + json.dumps(rows, ensure_ascii=False) + "\r\n",
    ):
        path.write_text(text, encoding="utf-8")
        assert rows_of(path) == rows
    path.write_text(" [ ] ")
    assert rows_of(path) == []


ITEMS = st.one_of(
    st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=3), ITEMS, max_size=3), max_size=4), st.integers(1, 50), st.booleans())
def test_json_arrays_equal_the_whole_document_read_at_once(tmp_path_factory, rows, chunk, indent):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_text(json.dumps(rows, indent=1 if indent else None), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        assert rows_of(path) == rows


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1} {"b": 2}]', "not a JSON array of rows: Expecting ',' delimiter"),
        ('[{"a": 1}, ', "rows.json:2: not a JSON array"),
        ('[{"a": 1}', "rows.json:2: not a JSON array"),
        ('[{"a": 1}, {"b": nope}, {}]', "rows.json:2: not a JSON array"),
        ('[{"a": 1}, 5]', "rows.json:2: not a JSON object: '5'"),
        ('[{"a": 1}] more', "Extra data after the array"),
        ('[{"a": "open', "rows.json:1: not a JSON array"),
        ("[,]", "rows.json:1: not a JSON array"),
    ],
)
def test_broken_json_arrays_are_refused(tmp_path, monkeypatch, chunk, text, message):
    monkeypatch.setattr(records, "_CHUNK", chunk)
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        rows_of(path)


def test_jsonl_with_mark_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "x\xe2\x80\xa8y"}')
    assert list(read_rows(path)) == [(1, {"a": 1}), (4, {"a": "x\u2028y"})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "rows.jsonl:2: not JSON"),
        (b"[1]", "rows.jsonl:2: not a JSON object"),
        (b'{"a": "\xff"}', "rows.jsonl:2: not UTF-8 text"),
        (b"[" * 100_000, "rows.jsonl:2: not JSON"),
    ],
)
def test_broken_lines_are_refused_with_their_number(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=message):
        rows_of(path)


def test_broken_lines_can_be_collected(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n{"a": 2}\nx\n')
    found = []
    assert rows_of(path, on_error=lambda number, error: found.append(number)) == [{"a": 1}, {"a": 2}]
    assert found == [2, 4]


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a parquet file"):
        rows_of(path)


def test_format_goes_by_the_name():
    assert row_format("a/b.json") == "json"
    assert row_format("x.jsonl", "jsonl") == "jsonl"
    with pytest.raises(ValueError, match=r"ends with \.jsonl, \.json, \.parquet"):
        row_format("rows.txt")
    with pytest.raises(ValueError, match=r"format parquet needs a name that ends with \.parquet"):
        row_format("rows.json", "parquet")


def test_reading_a_json_array_holds_little_of_it(tmp_path):
    path = tmp_path / "rows.json"
    write_rows(path, ({**ROW, "id": str(number), "pad": "x" * 500} for number in range(60_000)))
    code = (
        "import resource, sys; from sap2.rowfiles import read_rows\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(1 for _ in read_rows(sys.argv[1])) == 60000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    output = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    kilobytes = int(output) / (1024 if sys.platform == "darwin" else 1)
    assert path.stat().st_size > 30e6
    assert kilobytes < 20_000


def test_atomic_write_leaves_nothing_after_an_error(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []


def test_atomic_write_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with atomic_write(path) as stream:
        stream.write("new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_open_writer_takes_rows_one_by_one(tmp_path):
    with open_writer(tmp_path / "rows.json") as write:
        write({"a": 1})
        write({"b": "é"})
    assert (tmp_path / "rows.json").read_text(encoding="utf-8") == '[\n{"a": 1},\n{"b": "é"}\n]\n'


def test_row_audios():
    assert row_audios({}) == []
    assert row_audios({"audios": "/a.wav"}) == ["/a.wav"]
    assert row_audios({"audios": [{"bytes": None, "path": "/a.wav"}, "/b.wav"]}) == ["/a.wav", "/b.wav"]


def test_row_id():
    assert row_id({"id": 7, "audios": ["/a.wav"]}) == "7"
    assert row_id({"id": 0}) == "0"
    assert row_id({"id": "", "audios": "/a.wav"}) == "/a.wav"
    assert row_id({}) is None


def test_row_keywords_of_the_users_turns_only():
    messages = [
        {
            "role": "user",
            "content": "<|startofcontext|>a b<|endofcontext|> and <|startofcontext|>c d, e<|endofcontext|>",
        },
        {"role": "assistant", "content": "<|startofcontext|>x<|endofcontext|>"},
    ]
    assert row_keywords({"messages": messages}) == ["a", "b", "c d", "e"]


def test_find_contexts():
    text = "x<|startofcontext|>a, b<|endofcontext|>y<|startofcontext|><|endofcontext|>"
    first, second = find_contexts(text)
    assert first.body == "a, b"
    assert second.body == ""
    assert text[: first.start] == "x"
    assert text[first.end : second.start] == "y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<|startofcontext|>a", "at character 0 is never closed"),
        ("a<|endofcontext|>", "at character 1 without <|startofcontext|> before it"),
        ("<|endofcontext|><|startofcontext|>", "without"),
        (
            "<|startofcontext|>a<|startofcontext|>b<|endofcontext|>",
            "at character 19 inside the context that opened at 0",
        ),
        (CONTEXT_TOKEN, "placeholder"),
    ],
)
def test_broken_delimiters_are_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        find_contexts(text)


@given(st.lists(st.sampled_from(["<|startofcontext|>", "<|endofcontext|>", "a", CONTEXT_TOKEN])).map("".join))
def test_contexts_never_overlap(text):
    try:
        contexts = find_contexts(text)
    except ValueError:
        return
    rebuilt, position = "", 0
    for context in contexts:
        rebuilt += text[position : context.start] + f"<|startofcontext|>{context.body}<|endofcontext|>"
        position = context.end
    assert rebuilt + text[position:] == text
    assert "<|" not in "".join(context.body for context in contexts)


def test_a_huge_row_is_decoded_in_linear_time(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_CHUNK", 64)
    rng = random.Random(0)
    row = {"keywords": [f"k{rng.random()}" for _ in range(20_000)]}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row, row]))
    assert rows_of(path) == [row, row]
