"""One's own talks: manifests, decks, and the keyword rule."""

import json

import numpy as np
import pytest
import soundfile as sf
from commands import tool

from sap2.data.talks import TalkOptions, convert_talks
from sap2.data.utterances import read_utterances
from sap2.slides.manifest import read_manifest

COMMON = {"joined", "friend", "run", "work", "problems", "apple", "future", "open", "kernels"}
SLIDE = """Future Work And Open Problems
• Steve Wozniak joined Apple in 1976 with a friend
- the GPU kernels of PyTorch 2.0 and C++ run on Kubernetes
3"""


# ---- manifests and the conversion


@pytest.fixture
def folder(tmp_path):
    sf.write(tmp_path / "talk.wav", np.full(16_000 * 4, 0.1), 16_000)
    (tmp_path / "deck.txt").write_text("Steffi Wozniak\fthe zeta of Kubernetes\f\fthe theta")
    (tmp_path / "talks.csv").write_text(
        "id,audio,start,end,text,slides,slide\n"
        'u1,talk.wav,0,1.5,"Hi, I\'m Emily",deck.txt,1\n'
        "u2,talk.wav,1.5,,,deck.txt,2\n"
        "u3,talk.wav,,,whole,,\n"
    )
    return tmp_path


def convert(folder, manifest="talks.csv", **options):
    options.setdefault("audio_dir", str(folder / "cut"))
    report = convert_talks(folder / manifest, folder / "out.jsonl", TalkOptions(**options))
    return report, {u.id: u for _, u in read_utterances(folder / "out.jsonl")}


def test_a_manifest_with_slides(folder):
    report, utterances = convert(folder, slides=1)
    assert utterances["u1"].to_record() == {
        "id": "u1",
        "audio": str(folder / "cut" / "u1.flac"),
        "text": "Hi, I'm Emily",
        "keywords": ["Steffi", "Wozniak"],
        "start": 0.0,
        "end": 1.5,
        "slide": 0,
    }
    assert utterances["u2"].text is None
    assert utterances["u2"].keywords == ("zeta", "Kubernetes")
    assert utterances["u3"].audio == str(folder / "talk.wav")
    assert [sf.info(utterances[name].audio).frames for name in ("u1", "u2")] == [24_000, 40_000]
    assert (report.decks, report.slides, report.cut, report.no_keywords) == (1, 4, 2, 1)


def test_slides_around_and_whole_decks(folder):
    assert convert(folder, slides=2)[1]["u2"].keywords == ("zeta", "Kubernetes", "Steffi", "Wozniak")
    assert convert(folder)[1]["u2"].keywords == ("Steffi", "Wozniak", "zeta", "Kubernetes", "theta")
    assert convert(folder, max_keywords=2)[1]["u2"].keywords == ("Steffi", "Wozniak")


def test_a_deck_and_a_list_for_all_rows(folder):
    (folder / "list.txt").write_text("New York\r\nemily\n\n<|im_end|>\n")
    (folder / "other.txt").write_text("omega")
    _, utterances = convert(
        folder, deck=str(folder / "other.txt"), keyword_list=str(folder / "list.txt"), case="lower", slides=1
    )
    assert utterances["u3"].keywords == ("new york", "emily", "im_end", "omega")
    assert utterances["u1"].keywords == ("new york", "emily", "im_end", "steffi", "wozniak")
    assert utterances["u1"].text == "hi, i'm emily"


def test_common_words_are_dropped(folder):
    (folder / "common.txt").write_text("zeta\ntheta\n")
    assert convert(folder, common_words=str(folder / "common.txt"))[1]["u2"].keywords == (
        "Steffi",
        "Wozniak",
        "Kubernetes",
    )


def test_a_jsonl_manifest_gives_the_same(folder):
    _, expected = convert(folder)
    rows = [
        {
            "id": "u1",
            "audio": "talk.wav",
            "start": 0,
            "end": 1.5,
            "text": "Hi, I'm Emily",
            "slides": "deck.txt",
            "slide": 1,
        },
        {"id": "u2", "audio": "talk.wav", "start": 1.5, "slides": "deck.txt", "slide": 2},
        {"id": "u3", "audio": str(folder / "talk.wav"), "text": "whole", "end": None},
    ]
    rows[0] |= {"slides": "deck.txt", "slide": 1}
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert convert(folder, "talks.jsonl")[1] == expected


def test_a_windows_manifest_gives_the_same(folder):
    _, expected = convert(folder)
    path = folder / "talks.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert convert(folder)[1] == expected
    text = path.read_text(encoding="utf-8-sig").replace('"Hi, I\'m Emily"', "Hi; I'm Emily").replace(",", "\t")
    (folder / "talks.tsv").write_text(text.replace("Hi;", "Hi,"))
    assert convert(folder, "talks.tsv")[1] == expected


HEAD = "id,audio,start,end,text,slides,slide\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,path\nu1,talk.wav\n",
            r"talks\.csv:2: unknown columns path; allowed: id, audio, start, end, text, captions, slides",
        ),
        ("id,text\nu1,hi\n", r"talks\.csv:2: audio is missing"),
        (HEAD + ",talk.wav,,,,,\n", r"talks\.csv:2: id is missing"),
        (HEAD + "u1,talk.wav,,,,\n", r"talks\.csv:2: 6 fields, the header has 7"),
        (HEAD + "u1,talk.wav,x,,,,\n", r"talks\.csv:2: start 'x' is not a number from 0"),
        (HEAD + "u1,talk.wav,2,1,,,\n", r"talks\.csv:2: end 1\.0 is not after start 2\.0"),
        (HEAD + "u1,talk.wav,,nan,,,\n", r"talks\.csv:2: end 'nan' is not a number from 0"),
        (HEAD + "u1,talk.wav,,,,deck.txt,0\n", r"talks\.csv:2: slide '0' is not a number from 1"),
        (HEAD + "u1,talk.wav,,,,deck.txt,9\n", r"talks\.csv:2: slide 9 of a deck that has 4"),
        (HEAD + "u1,talk.wav,,,,absent.pdf,\n", r"talks\.csv:2: no slides at .*absent\.pdf"),
        (HEAD + "u1,absent.wav,,,,,\n", r"talks\.csv:2: no audio at .*absent\.wav \(1 rows without audio\)"),
        (
            HEAD + "u1,talk.wav,3,9,,,\n",
            r"talks\.csv:2: .*talk\.wav: the piece from 3 to 9 s lies outside .* 4\.00 s",
        ),
        (HEAD + "a/b,talk.wav,,,,,\n", r"talks\.csv:2: id 'a/b' holds '/'"),
        (HEAD + "u1,talk.wav,,,,,\nu1,talk.wav,,,,,\n", r"talks\.csv:3: 'u1' occurs a second time, first at .*:2"),
        (HEAD + 'u1,"talk.wav,,,,,\n', r"talks\.csv:2: not CSV: unexpected end of data"),
    ],
)
def test_bad_manifests_are_refused_with_their_line(folder, text, message):
    (folder / "talks.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(folder)
    assert not (folder / "out.jsonl").exists()


def test_other_bad_manifests(folder):
    with pytest.raises(ValueError, match=r"talks\.csv:2: a row with start or end is cut, .*\(--audio-dir\)"):
        convert(folder, audio_dir=None)
    (folder / "talks.csv").write_bytes(HEAD.encode() + b"u1,\xff,,,,,\n")
    with pytest.raises(ValueError, match=r"talks\.csv: not UTF-8 text"):
        convert(folder)
    (folder / "talks.jsonl").write_text('{"id": ["u"], "audio": "talk.wav"}\n')
    with pytest.raises(ValueError, match=r"talks\.jsonl:1: id must be text or a number, not \['u'\]"):
        read_manifest(folder / "talks.jsonl")


def test_command(folder, capsys):
    output = folder / "out.jsonl"
    arguments = [
        str(folder / "talks.csv"),
        "--output",
        str(output),
        "--audio-dir",
        str(folder / "cut"),
        "--workers",
        "1",
    ]
    assert tool("talks", *arguments, "--slides", "5", "--max-keywords", "3") == 0
    assert capsys.readouterr().out == (
        f"{output}: 3 utterances, 2 audio files cut; "
        "1 decks, 4 slides, 2.0 keywords an utterance, without keywords: 1\n"
    )
    (folder / "talks.csv").write_text("id\nu1\n")
    assert tool("talks", *arguments) == 2
    assert capsys.readouterr().err == f"sap2: error: {folder}/talks.csv:2: audio is missing\n"
