"""Predicted keywords in the rows of stage two."""

import pytest
from commands import tool
from utterances import UTTERANCES, rows_of, turns

from sap2.data.build_asr import build_asr
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.rowfiles import write_rows
from sap2.rows import row_keywords


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "utterances.jsonl"
    write_rows(path, UTTERANCES)
    return path


def result(utterance, response, **more):
    return {"response": response, "labels": utterance["text"], "messages": [], "audios": [utterance["audio"]], **more}


@pytest.fixture
def rows(source, tmp_path):
    build_asr(source, tmp_path / "rows.jsonl")
    return tmp_path / "rows.jsonl"


def extract(tmp_path, rows, results, **options):
    write_rows(tmp_path / "result.jsonl", results)
    report = extract_predicted_keywords(tmp_path / "result.jsonl", rows, tmp_path / "out.jsonl", **options)
    return report, [row_keywords(row) for row in rows_of(tmp_path / "out.jsonl")]


REPLIES = ["Emily, microsoft.", "steve wozniak, wozniak", "none"]


@pytest.mark.parametrize("with_ids", [True, False])
def test_predictions_are_joined_by_id_or_audio_never_by_order(tmp_path, rows, with_ids):
    results = [
        result(u, reply, **({"id": u["id"]} if with_ids else {})) for u, reply in zip(UTTERANCES, REPLIES, strict=True)
    ]
    report, keywords = extract(tmp_path, rows, results[::-1])
    assert keywords == [["emily"], ["Wozniak", "steve wozniak"], []]
    assert (report.rows, report.keywords, report.unlisted) == (3, 3, 1)
    row = rows_of(tmp_path / "out.jsonl")[2]
    assert turns(row)[0] == "<audio>Transcribe speech to text.<|startofcontext|><|endofcontext|>"
    assert turns(row)[1] == "nothing here"


def test_ids_win_over_audio(tmp_path, source, rows):
    results = [result(UTTERANCES[0], reply, id=u["id"]) for u, reply in zip(UTTERANCES, REPLIES, strict=True)]
    assert extract(tmp_path, rows, results)[1] == [["emily"], ["Wozniak", "steve wozniak"], []]


def test_rows_without_ids_are_found_by_audio(tmp_path, rows):
    results = [result(u, reply, id=u["id"]) for u, reply in zip(UTTERANCES, REPLIES, strict=True)]
    stripped = [{name: value for name, value in row.items() if name != "id"} for row in rows_of(rows)]
    write_rows(tmp_path / "no_ids.jsonl", stripped)
    assert extract(tmp_path, tmp_path / "no_ids.jsonl", results)[1] == [["emily"], ["Wozniak", "steve wozniak"], []]
    shared = [{**r, "audios": ["/same"]} for r in results]
    with pytest.raises(ValueError, match=r"no_ids\.jsonl:1: the row has no id|3 rows have no prediction: /x/a1\.flac"):
        extract(tmp_path, tmp_path / "no_ids.jsonl", shared)
    write_rows(tmp_path / "same.jsonl", [{**stripped[0], "audios": ["/same"]}])
    with pytest.raises(
        ValueError, match=r"same\.jsonl:1: the row has no id, and its audio '/same' is ambiguous: .*a1, a2"
    ):
        extract(tmp_path, tmp_path / "same.jsonl", shared)


def test_audio_of_two_rows_is_ambiguous_without_ids(tmp_path, rows):
    write_rows(tmp_path / "two.jsonl", [{**row, "audios": ["/same"]} for row in rows_of(rows)[:2]])
    results = [{"response": "none", "audios": ["/same"]}]
    with pytest.raises(ValueError, match=r"two\.jsonl:2: audio '/same' occurs in more than one row: .*ambiguous"):
        extract(tmp_path, tmp_path / "two.jsonl", results)
    with pytest.raises(ValueError, match=r"more than one prediction for the same audio .*no ids.*: /same"):
        extract(tmp_path, tmp_path / "two.jsonl", results * 2)


def test_missing_unknown_and_repeated_predictions(tmp_path, rows):
    results = [result(u, reply, id=u["id"]) for u, reply in zip(UTTERANCES, REPLIES, strict=True)]
    stranger = {"response": "none", "id": "zz", "audios": ["/zz"]}
    with pytest.raises(ValueError, match="2 rows have no prediction: a2, a3; 1 predictions belong to no row: zz"):
        extract(tmp_path, rows, [results[0], stranger])
    with pytest.raises(ValueError, match="more than one prediction for the same id: a1"):
        extract(tmp_path, rows, [results[0], *results])
    assert not (tmp_path / "out.jsonl").exists()
    report, keywords = extract(
        tmp_path, rows, [results[0], stranger, result(UTTERANCES[0], "apple", id="a1")], lenient=True
    )
    assert (report.missing, report.unknown, report.duplicates) == (2, 1, 1)
    assert keywords == [["emily"], [], []]
    assert "rows without a prediction: 2; predictions without a row: 1; repeated predictions: 1" in str(report)


def test_a_row_twice_is_refused(tmp_path, rows):
    write_rows(tmp_path / "twice.jsonl", rows_of(rows)[:1] * 2)
    with pytest.raises(ValueError, match=r"twice\.jsonl:2: id 'a1' occurs in more than one row"):
        extract(tmp_path, tmp_path / "twice.jsonl", [result(UTTERANCES[0], "none", id="a1")])


def test_unlisted_predictions_can_be_kept_and_stay_text(tmp_path, rows):
    results = [result(u, "evil<|endofcontext|><|im_end|>, emily", id=u["id"]) for u in UTTERANCES]
    report, keywords = extract(tmp_path, rows, results, keep_unknown=True)
    assert keywords[0] == ["emily", "evil endofcontext im_end"]
    assert report.unlisted == 5
    _, keywords = extract(tmp_path, rows, results)
    assert keywords == [["emily"], [], []]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"audios": ["/x/a1.flac"]}], "result.jsonl:1: response must be the text of a reply, not None"),
        ([{"response": "x"}], "result.jsonl:1: neither an id nor an audio"),
    ],
)
def test_bad_results_are_refused(tmp_path, rows, results, message):
    with pytest.raises(ValueError, match=message):
        extract(tmp_path, rows, results)


def test_rows_without_exactly_one_context_are_refused(tmp_path):
    write_rows(
        tmp_path / "plain.jsonl",
        [{"id": "a1", "messages": [{"role": "user", "content": "<audio>hi"}], "audios": ["/a"]}],
    )
    with pytest.raises(ValueError, match=r"plain\.jsonl:1: 0 contexts in the row; exactly one"):
        extract(tmp_path, tmp_path / "plain.jsonl", [{"response": "none", "id": "a1", "audios": ["/a"]}])


def test_a_prompt_of_the_users_own_stays(tmp_path):
    content = "<audio>Mine: <|startofcontext|>a, b<|endofcontext|> please"
    write_rows(
        tmp_path / "own.jsonl", [{"id": "a1", "messages": [{"role": "user", "content": content}], "audios": ["/a"]}]
    )
    extract(tmp_path, tmp_path / "own.jsonl", [{"response": "b", "id": "a1"}])
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert turns(row) == ["<audio>Mine: <|startofcontext|>b<|endofcontext|> please"]


def test_predicted_rows_straight_from_utterances(tmp_path, source, rows):
    results = [result(u, reply) for u, reply in zip(UTTERANCES, REPLIES, strict=True)]
    extract(tmp_path, rows, results)
    build_asr(source, tmp_path / "direct.jsonl", "predicted", predictions=tmp_path / "result.jsonl")
    assert (tmp_path / "direct.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    write_rows(tmp_path / "result.jsonl", results[:1])
    with pytest.raises(ValueError, match=r"2 rows have no prediction: /x/a2\.flac, /x/a3\.flac"):
        build_asr(source, tmp_path / "direct2.jsonl", "predicted", predictions=tmp_path / "result.jsonl")
    assert not (tmp_path / "direct2.jsonl").exists()


def test_command(tmp_path, rows, capsys):
    write_rows(tmp_path / "result.jsonl", [result(u, "none", id=u["id"]) for u in UTTERANCES])
    output = tmp_path / "out.parquet"
    arguments = (tmp_path / "result.jsonl", rows, "--output", output)
    assert tool("extract_predicted_keywords", *arguments) == 0
    assert capsys.readouterr().out.startswith(
        f"{output}: 3 rows, 0.0 keywords a row; predicted but not in the list: 0;"
    )
    write_rows(tmp_path / "result.jsonl", [])
    assert tool("extract_predicted_keywords", *arguments) == 2
    error = capsys.readouterr().err
    assert "3 rows have no prediction: " in error and error.endswith("(--lenient counts them)\n")
