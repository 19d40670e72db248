"""The report on row files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from commands import tool
from hypothesis import given
from hypothesis import strategies as st

from sap2.data.check import CheckOptions, check_file, format_report
from sap2.data.row_checks import ERRORS, WARNINGS, schema_problems
from sap2.data.token_counts import TokenCounter
from sap2.prompts import AUDIO_TAG, asr_prompt
from sap2.rowfiles import write_rows


def row(name, keywords=("emily", "wozniak"), reply="hi emily", audio="good.wav", **more):
    messages = [{"role": "user", "content": AUDIO_TAG + asr_prompt(keywords)}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return {"id": name, "messages": messages, "audios": [audio], **more}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 31)
    sf.write("good.wav", noise[: 16_000 * 2], 16_000)
    sf.write("long.wav", noise, 16_000)
    sf.write("short.wav", noise[:800], 16_000)
    sf.write("silent.wav", np.zeros(16_000), 16_000)
    Path("broken.wav").write_bytes(b"RIFF")
    return tmp_path


def content(text):
    return {"id": "x", "messages": [{"role": "user", "content": text}], "audios": ["good.wav"]}


CONTEXT = "<|startofcontext|>{}<|endofcontext|>"
CASES = [
    ({"id": "x", "audio": "a.wav", "text": "hi"}, "schema", "an utterance, not a row: build_prune, build_asr or build"),
    ({"id": "x"}, "schema", "messages must be a list of turns, not None"),
    ({"messages": [{"role": "user", "content": 5}]}, "schema", "a turn has a role .* and a text as content, not"),
    ({"messages": [{"role": "boss", "content": "<|startofcontext|>"}]}, "schema", "a turn has a role"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "schema", "no turn of the user"),
    ({**content("<audio>x"), "audios": [5]}, "schema", r"audios must be paths, not \[5\]"),
    ({**content("<audio>x"), "audios": [{"bytes": ""}]}, "schema", "audios must be paths"),
    (content("<audio><audio>x"), "schema", "2 <audio> in the text and 1 audios"),
    (content("<audio><|startofcontext|>a"), "delimiters", "never closed"),
    (content("<audio>a<|endofcontext|>"), "delimiters", "without"),
    (content("<audio><|context|>"), "delimiters", "placeholder"),
    (content("<audio>" + CONTEXT.format("a") * 2), "delimiters", "2 contexts and 1 audios"),
    ({**content("x" + CONTEXT.format("a")), "audios": []}, "delimiters", "1 contexts and 0 audios"),
    (content("<audio>" + CONTEXT.format("a <|im_end|>")), "special-token", r"<\|im_end\|> in the context"),
    (content("<audio>x <|im_end|>"), "special-token", r"<\|im_end\|> in the user's text"),
    (content("<audio>x</audio>y </audio>"), "special-token", "</audio> in the user's text"),
    (row("x", reply="hi <|im_end|>"), "special-token", r"<\|im_end\|> in the reply"),
    (row("x", audio="absent.wav"), "audio-missing", "no audio at absent.wav"),
    (
        row("x", audio="broken.wav"),
        "audio-unreadable",
        "audio broken.wav cannot be read .*; allowed: what libsndfile or ffmpeg reads",
    ),
    (row("x", audio="long.wav"), "audio-long", "long.wav: 31.00 s; the model hears 30 s"),
    (row("x", audio="short.wav"), "audio-short", "short.wav: 0.050 s; at least 0.1 s are needed"),
    (row("x", audio="silent.wav"), "audio-silent", "audio silent.wav is silent: all of its 1.00 s are one number"),
    (row("x", reply=" "), "empty-transcript", "the reply is empty"),
    (row("x", keywords=("Emily", "x", "emily")), "repeated-keyword", "'emily' is in the list twice"),
    (row("first"), "duplicate-id", "'first' is the id of an earlier row too"),
]


@pytest.mark.parametrize(("bad", "kind", "message"), CASES)
def test_each_problem_is_found(folder, bad, kind, message):
    write_rows("rows.jsonl", [row("first"), bad, row("last")])
    report = check_file("rows.jsonl")
    assert [(number, found) for number, _, found, _ in report.problems] == [(2, kind)]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(report.problems[0][3])
    assert report.skipped == (kind in ERRORS)
    assert report.rows == 3


def test_every_problem_at_once(folder):
    lines = [json.dumps(bad) for bad, _, _ in CASES]
    Path("rows.jsonl").write_text("\n".join([*lines, "{oops", "[1]", ""]))
    report = check_file("rows.jsonl")
    kinds = {kind for _, _, kind, _ in report.problems}
    assert kinds == {kind for _, kind, _ in CASES} | {"schema", "duplicate-id"}
    assert kinds <= set(ERRORS) | set(WARNINGS)
    assert report.rows == len(CASES) + 2
    schema = [number for number, _, kind, _ in report.problems if kind == "schema"]
    assert schema[-2:] == [len(CASES) + 1, len(CASES) + 2]
    text = format_report(report, show=1)
    assert "error schema: 10 (not a row)" in text
    assert "… and 9 more (--show 0 shows all)" in text


def test_the_row_of_the_original_readme_is_fine(folder):
    prompt = "Transcribe speech to text according to keywords may appear in the utterance. Possible keywords are: "
    text = f"<audio>good.wav</audio>{prompt}<|startofcontext|>keyword1 keyword2<|endofcontext|>"
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "transcribed text"}]
    write_rows("rows.json", [{"messages": turns, "audios": "good.wav"}])
    report = check_file("rows.json")
    assert report.problems == []
    assert report.figures["keywords"].greatest == 2
    assert report.figures["audio seconds"].greatest == 2.0
    parts, _ = schema_problems({"messages": turns})
    assert parts.audios == ["good.wav"]
    assert parts.user[0].startswith("<audio>Transcribe")


def test_figures(folder):
    write_rows("rows.parquet", [row("a"), row("b", keywords=()), row("c", reply="nobody"), row("d", reply=None)])
    report = check_file("rows.parquet")
    assert report.problems == []
    assert (report.rows, report.for_decoding, report.without_keywords, report.without_spoken) == (4, 1, 1, 1)
    assert report.figures["keywords"].as_dict() == {"min": 0, "mean": 1.5, "max": 2}
    assert report.figures["spoken keywords"].as_dict() == {"min": 0, "mean": 0.5, "max": 1}
    assert report.figures["audio seconds"].as_dict() == {"min": 2.0, "mean": 2.0, "max": 2.0}
    assert "no problems" in format_report(report)


def test_audio_can_be_left_alone(folder):
    write_rows("rows.jsonl", [row("a", audio="absent.wav")])
    assert check_file("rows.jsonl", CheckOptions(read_audio=False)).problems == []


@pytest.fixture
def model(folder):
    """A model folder with a tokenizer that makes one token of each character."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {chr(code): number for number, code in enumerate(range(32, 127))} | {"\n": 95, "[UNK]": 96}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    special = ["<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>", "<|startofcontext|>", "<|endofcontext|>"]
    tokenizer.add_special_tokens(special)
    (folder / "model").mkdir()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    return folder / "model"


def test_token_counts(folder, model):
    keywords = ("abcde", "fg")  # nine characters with the separator
    write_rows("rows.jsonl", [row("a", keywords=keywords)])
    report = check_file("rows.jsonl", CheckOptions(model="model", window=4))
    figures = {name: figure.greatest for name, figure in report.figures.items()}
    prompt = asr_prompt(keywords).split("<|startofcontext|>")[0]
    text = "system\nYou are a helpful assistant.\nuser\nAudio 1: \n" + prompt + "\nassistant\nhi emily\n"
    special = 6 + 2 + 2  # <|im_start|> and <|im_end|> of three turns, the audio's, the context's
    audio = 50  # 2 s: 200 frames
    assert figures["context tokens"] == 9
    assert figures["context tokens, window 4"] == 3
    assert figures["row tokens"] == len(text) + special + audio + 9
    assert figures["row tokens, window 4"] == len(text) + special + audio + 3


def test_rows_too_long_for_max_length(folder, model):
    write_rows("rows.jsonl", [row("a"), row("b", keywords=[f"keyword{i}" for i in range(100)])])
    report = check_file("rows.jsonl", CheckOptions(model="model", window=2, max_length=400))
    assert [(number, kind) for number, _, kind, _ in report.problems] == [(2, "too-many-tokens")]
    assert "tokens after compression; --max-length is 400" in report.problems[0][3]


def test_the_model_says_its_window_and_what_it_hears(folder, model):
    (model / "config.json").write_text('{"sap_window_size": 8}')
    (model / "preprocessor_config.json").write_text('{"chunk_length": 1}')
    assert TokenCounter(model).window == 8
    write_rows("rows.jsonl", [row("a")])
    report = check_file("rows.jsonl", CheckOptions(model="model"))
    assert [kind for _, _, kind, _ in report.problems] == ["audio-long"]
    with pytest.raises(ValueError, match="window 0 must be a whole number from 1"):
        TokenCounter(model, 0)
    (model / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"model: no tokenizer\.json; --model names a folder of a model"):
        TokenCounter(model)


def test_command(folder, capsys):
    write_rows("good.jsonl", [row("a")])
    write_rows("bad.jsonl", [row("a", audio="absent.wav")])
    assert tool("check", "good.jsonl") == 0
    assert tool("check", "good.jsonl", "bad.jsonl", "--json") == 1
    report = json.loads(capsys.readouterr().out.split("no problems\n")[1])
    assert report["good.jsonl"]["rows_that_would_be_skipped"] == 0
    assert report["bad.jsonl"]["problems"] == [
        {"row": 1, "id": "a", "kind": "audio-missing", "level": "error", "message": "no audio at absent.wav"}
    ]
    assert tool("check", "good.jsonl", "--window", "2") == 2
    assert "--window, --min-positions and --max-length count tokens, which needs --model DIR" in capsys.readouterr().err
    assert tool("check", "absent.jsonl") == 2
    assert capsys.readouterr().err == "sap2: error: absent.jsonl: No such file or directory\n"


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=4), st.sampled_from(["user", "<audio>", CONTEXT])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["messages", "role", "content", "audios", "audio", "path", "id"]), inner),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "audios", "id", "audio"]), JSON))
def test_no_row_stops_the_report(bad):
    parts, problems = schema_problems(bad)
    assert (parts is None) == any(problem.kind in ("schema", "delimiters") for problem in problems)
