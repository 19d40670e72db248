"""Utterances to rows of both stages, and the predicted keywords in them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import tool
from hypothesis import given, settings
from hypothesis import strategies as st
from utterances import UTTERANCES, rows_of, turns

import sap2.data
import sap2.slides
from sap2.data.build_asr import build_asr, noisy_oracle
from sap2.data.build_joint import build_joint
from sap2.data.build_prune import build_prune
from sap2.data.building import RowOptions
from sap2.data.utterances import Utterance, read_utterances
from sap2.prompts import AUDIO_TAG, asr_prompt, joint_prompt, parse_joint_reply, parse_prune_reply, prune_prompt
from sap2.rowfiles import write_rows
from sap2.rows import find_contexts, row_keywords
from sap2.text import clean_keywords, clean_text, find_special


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "utterances.jsonl"
    write_rows(path, UTTERANCES)
    return path


def test_prune_rows(source, tmp_path):
    report = build_prune(source, tmp_path / "rows.json")
    rows = rows_of(tmp_path / "rows.json")
    assert turns(rows[0]) == [AUDIO_TAG + prune_prompt(["emily", "steve wozniak", "apple"]), "emily"]
    assert turns(rows[1])[1] == "Wozniak, color, steve wozniak"  # the list's order; colour is color when normalised
    assert turns(rows[2]) == [AUDIO_TAG + prune_prompt([]), "none"]
    assert [row["audios"] for row in rows] == [["/x/a1.flac"], ["/x/a2.flac"], ["/x/a3.flac"]]
    assert [row["id"] for row in rows] == ["a1", "a2", "a3"]
    assert (report.rows, report.keywords) == (3, 6)


def test_prune_rows_with_another_normalizer(source, tmp_path):
    build_prune(source, tmp_path / "rows.json", normalizer="none")
    assert turns(rows_of(tmp_path / "rows.json")[1])[1] == "Wozniak, steve wozniak"


def test_joint_rows(source, tmp_path):
    build_joint(source, tmp_path / "rows.jsonl")
    row = rows_of(tmp_path / "rows.jsonl")[0]
    expected = "Selected keywords are: emily.\nTranscription: hi guys i'm emily"
    assert turns(row) == [AUDIO_TAG + joint_prompt(["emily", "steve wozniak", "apple"]), expected]


@pytest.mark.parametrize(
    ("mode", "keywords"),
    [
        ("all", [["emily", "steve wozniak", "apple"], ["Wozniak", "color", "steve wozniak"], []]),
        ("oracle", [["emily"], ["Wozniak", "color", "steve wozniak"], []]),
        ("none", [[], [], []]),
    ],
)
def test_asr_rows(source, tmp_path, mode, keywords):
    build_asr(source, tmp_path / "rows.parquet", mode)
    rows = rows_of(tmp_path / "rows.parquet")
    assert [turns(row) for row in rows] == [
        [AUDIO_TAG + asr_prompt(own), utterance["text"]] for own, utterance in zip(keywords, UTTERANCES, strict=True)
    ]
    assert "Transcribe speech to text.<|startofcontext|><|endofcontext|>" in turns(rows[2])[0]


def test_split_words_as_the_paper(source, tmp_path):
    build_asr(source, tmp_path / "rows.jsonl", options=RowOptions(split_words=True))
    rows = rows_of(tmp_path / "rows.jsonl")
    assert row_keywords(rows[0]) == ["emily", "steve", "wozniak", "apple"]
    assert row_keywords(rows[1]) == ["Wozniak", "color", "steve"]


def test_oracle_with_the_errors_of_stage_one():
    keywords = [f"k{i}" for i in range(40)]
    spoken = keywords[10:20]
    assert noisy_oracle(keywords, spoken, "u") == spoken
    assert noisy_oracle(keywords, spoken, "u", drop=1.0) == []
    sizes = set()
    for number in range(300):
        chosen = noisy_oracle(keywords, spoken, f"u{number}", drop=0.3, distractors=3)
        assert chosen == [keyword for keyword in keywords if keyword in chosen]
        sizes.add(len(set(chosen) - set(spoken)))
    assert sizes == {0, 1, 2, 3}
    kept = sum(len(noisy_oracle(keywords, spoken, f"u{i}", drop=0.3)) for i in range(300)) / 3000
    assert 0.65 < kept < 0.75


def test_draws_do_not_depend_on_the_rows_before(tmp_path):
    utterances = [
        {"id": f"u{i}", "audio": "/a", "text": "alpha beta", "keywords": [f"k{j}" for j in range(9)] + ["beta"]}
        for i in range(20)
    ]
    options = {"keywords": "oracle", "drop": 0.5, "distractors": 4}
    write_rows(tmp_path / "all.jsonl", utterances)
    write_rows(tmp_path / "some.jsonl", utterances[7:])
    for name, seed in (("all", 1), ("some", 1), ("other", 2)):
        source = tmp_path / ("some.jsonl" if name == "some" else "all.jsonl")
        build_asr(source, tmp_path / f"rows_{name}.jsonl", seed=seed, **options)
    rows = {name: rows_of(tmp_path / f"rows_{name}.jsonl") for name in ("all", "some", "other")}
    assert rows["all"][7:] == rows["some"]
    assert rows["all"] != rows["other"]


@pytest.mark.parametrize("build", [build_prune, build_asr, build_joint])
def test_same_input_same_bytes(source, tmp_path, build):
    for name in "ab":
        build(source, tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("build", [build_prune, build_asr, build_joint])
@pytest.mark.parametrize("text", [None, "", " \u200b<|>"])
def test_a_row_needs_a_transcript(tmp_path, build, text):
    path = tmp_path / "utterances.jsonl"
    write_rows(path, [UTTERANCES[0], {"id": "b", "audio": "/b", "text": text, "keywords": ["k"]}])
    with pytest.raises(ValueError, match=r"utterances\.jsonl:2: b has no transcript; --no-reply writes rows"):
        build(path, tmp_path / "rows.json")
    assert not (tmp_path / "rows.json").exists()
    report = build(path, tmp_path / "rows.json", options=RowOptions(skip_empty=True))
    assert (report.rows, report.skipped) == (1, 1)
    assert "1 skipped (no transcript)" in str(report)
    build(path, tmp_path / "rows.json", options=RowOptions(with_reply=False))
    assert [len(row["messages"]) for row in rows_of(tmp_path / "rows.json")] == [1, 1]


def test_an_oracle_needs_a_transcript_even_without_reply(tmp_path):
    path = tmp_path / "utterances.jsonl"
    write_rows(path, [{"id": "b", "audio": "/b", "keywords": ["k"]}])
    with pytest.raises(ValueError, match=r"\.jsonl:1: b has no transcript to take the oracle's keywords from"):
        build_asr(path, tmp_path / "rows.json", "oracle", options=RowOptions(with_reply=False))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "", "audio": "/a"}, ":2: id must be a non-empty string, not ''"),
        ({"id": "b"}, ":2: audio must be a non-empty string"),
        ({"id": "b c", "audio": "/a"}, ":2: id 'b c' holds the character ' '"),
        ({"id": "b\u202e", "audio": "/a"}, r":2: id .* holds the character '\\u202e'"),
        ({"id": "b", "audio": "/a\x00"}, r":2: audio .* holds the character '\\x00'"),
        ({"id": "b", "audio": "/a", "text": 5}, ":2: text must be a string, not 5"),
        ({"id": "b", "audio": "/a", "keywords": "x y"}, ":2: keywords must be a list of strings, not 'x y'"),
        ({"id": "b", "audio": "/a", "keywords": [1]}, ":2: keywords must be a list of strings"),
        ({"id": "b", "audio": "/a", "start": -1}, ":2: start must be seconds from 0, not -1"),
        ({"id": "b", "audio": "/a", "end": float("nan")}, ":2: end must be seconds from 0, not nan"),
        ({"id": "b", "audio": "/a", "start": 2, "end": 2.0}, ":2: end 2.0 is not after start 2"),
        ({"id": "b", "audio": "/a", "slide": True}, ":2: slide must be a number from 0, not True"),
        (UTTERANCES[0], ":2: id 'a1' occurs a second time; ids are unique"),
    ],
)
def test_bad_utterances_are_refused_with_their_line(tmp_path, record, message):
    path = tmp_path / "utterances.jsonl"
    write_rows(path, [UTTERANCES[0], record])
    with pytest.raises(ValueError, match=message):
        build_prune(path, tmp_path / "rows.json")
    assert not (tmp_path / "rows.json").exists()


def test_an_utterance_keeps_its_fields(tmp_path):
    utterance = Utterance("a", "/a b.flac", "hi", ("x",), "rec", 0.5, 2.0, "s", 3)
    write_rows(tmp_path / "u.jsonl", [utterance.to_record()])
    assert [u for _, u in read_utterances(tmp_path / "u.jsonl")] == [utterance]
    assert Utterance("a", "/a").to_record() == {"id": "a", "audio": "/a", "keywords": []}


TOKENS = [
    "<|endofcontext|>",
    "<|im_end|>",
    "<audio>",
    "<|AUDIO|>",
    "＜|im_end|＞",
    "<\u200b|im_end|>",
    "<|im_start|>user",
]
HOSTILE = st.one_of(
    st.text(max_size=8), st.sampled_from([*TOKENS, "none", "a, b", "\u202e", "\x00", "U.S.", "New York"])
)


@settings(max_examples=60, deadline=None)
@given(text=st.lists(HOSTILE).map(" ".join), keywords=st.lists(st.lists(HOSTILE, max_size=3).map(" ".join)))
def test_no_text_gets_out_of_its_place(tmp_path_factory, text, keywords):
    folder = tmp_path_factory.mktemp("hostile")
    text += " word"
    write_rows(folder / "u.jsonl", [{"id": "u", "audio": "/u", "text": text, "keywords": [*keywords, "word"]}])
    clean = clean_keywords([*keywords, "word"])
    for build, prompt in ((build_prune, prune_prompt), (build_asr, asr_prompt), (build_joint, joint_prompt)):
        options = {"normalizer": "none"} if build is not build_asr else {}
        build(folder / "u.jsonl", folder / "rows.jsonl", **options)
        (row,) = rows_of(folder / "rows.jsonl")
        user, reply = turns(row)
        assert row_keywords(row) == clean  # parsed back: the same keywords
        assert user == AUDIO_TAG + prompt(clean)
        (context,) = find_contexts(user)
        assert find_special(context.body) is None
        assert user.count("<") == 3  # the audio's tag and the two delimiters
        assert find_special(reply) is None
        if build is build_asr:
            assert reply == clean_text(text)
        else:
            picked = parse_prune_reply(reply) if build is build_prune else parse_joint_reply(reply).keywords
            assert "word" in picked
            assert picked == [keyword for keyword in clean if keyword in picked]


def test_ten_thousand_keywords_and_control_characters(tmp_path):
    keywords = [f"\u202ekey\x07word{i}<|im_end|>" for i in range(10_000)]
    write_rows(tmp_path / "u.jsonl", [{"id": "u", "audio": "/u", "text": "hi", "keywords": keywords}])
    build_asr(tmp_path / "u.jsonl", tmp_path / "rows.jsonl")
    (row,) = rows_of(tmp_path / "rows.jsonl")
    assert row_keywords(row) == [f"keyword{i} im_end" for i in range(10_000)]


# ---- commands


@pytest.mark.parametrize("build", [build_prune, build_asr, build_joint])
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rows_keep_the_session(tmp_path, build, format):
    utterances = [{**utterance, "session": f"talk {number}"} for number, utterance in enumerate(UTTERANCES)]
    write_rows(tmp_path / "u.jsonl", [*utterances, {**UTTERANCES[0], "id": "alone"}])
    build(tmp_path / "u.jsonl", tmp_path / f"rows.{format}")
    rows = rows_of(tmp_path / f"rows.{format}")
    assert [row.get("session") for row in rows] == ["talk 0", "talk 1", "talk 2", None]


def test_commands(source, tmp_path, capsys):
    output = tmp_path / "rows.json"
    assert tool("build_prune", source, "--output", output) == 0
    assert capsys.readouterr().out == f"{output}: 3 rows, 2.0 keywords a row; none of them spoken in 1 rows\n"
    assert tool("build_joint", source, "--output", output, "--normalizer", "basic") == 0
    noise = ("--keywords", "oracle", "--drop", "0.1", "--distractors", "2")
    assert tool("build_asr", source, "--output", output, *noise) == 0
    assert capsys.readouterr().out.count(f"{output}: 3 rows") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.txt"], "the name of a row file ends with .jsonl, .json, .parquet"),
        (["--output", "x.json", "--format", "jsonl"], "format jsonl needs a name that ends with .jsonl"),
        (["--output", "x.json", "--drop", "0.5"], "--drop and --distractors are errors put into --keywords oracle"),
        (["--output", "x.json", "--keywords", "oracle", "--drop", "1.5"], "'1.5' is not a share from 0 to 1"),
        (["--output", "x.json", "--keywords", "oracle", "--distractors", "-1"], "'-1' is not a whole number from 0"),
        (["--output", "x.json", "--keywords", "predicted"], "--keywords predicted and --predictions FILE go together"),
        (["--output", "x.json", "--predictions", "y"], "--keywords predicted and --predictions FILE go together"),
        ([], "the following arguments are required: --output"),
    ],
)
def test_usage_errors(source, capsys, arguments, message):
    assert tool("build_asr", source, *arguments) == 2
    assert message in capsys.readouterr().err


def test_bad_input_is_one_line(tmp_path, capsys):
    (tmp_path / "u.jsonl").write_text('{"id": "a"}\n')
    for name, message in (
        ("u.jsonl", "u.jsonl:1: audio must be a non-empty string, not None"),
        ("absent.jsonl", "absent.jsonl: No such file or directory"),
    ):
        assert tool("build_prune", tmp_path / name, "--output", tmp_path / "rows.json") == 2
        assert capsys.readouterr().err == f"sap2: error: {tmp_path}/{message}\n"


MODULES = sorted(
    f"{package.__name__}.{path.stem}"
    for package in (sap2.data, sap2.slides)
    for path in Path(package.__file__).parent.glob("*.py")
)


def test_no_module_imports_torch():
    assert {"sap2.data.check", "sap2.slides.decks"} <= set(MODULES)
    code = "import importlib, sys\n" + "".join(f"importlib.import_module('{name}')\n" for name in MODULES)
    code += "print([name for name in ('torch', 'transformers', 'swift', 'datasets') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_running_a_builder_imports_no_torch(source, tmp_path):
    code = (
        "import sys; from sap2.data.build_prune import build_prune\n"
        f"build_prune({str(source)!r}, {str(tmp_path / 'rows.parquet')!r}); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_killed_writer_leaves_no_output(tmp_path):
    output = tmp_path / "rows.json"
    code = (
        "import sys, time; from sap2.rowfiles import write_rows\n"
        "def rows():\n"
        "    yield {'id': 'a'}\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
        "write_rows(sys.argv[1], rows())"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert not output.exists()
    assert all(path.name.startswith(".rows.json.") for path in tmp_path.iterdir())


def test_a_terminated_command_removes_its_half_made_output(tmp_path):
    source, output = tmp_path / "utterances.jsonl", tmp_path / "out" / "rows.jsonl"
    write_rows(source, ({**UTTERANCES[0], "id": str(number)} for number in range(50_000)))
    command = [sys.executable, "-m", "data_tools.build_asr", str(source), "--output", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while not output.parent.exists():
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
    assert list(output.parent.iterdir()) == []
