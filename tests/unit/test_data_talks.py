"""One's own talks: manifests, decks, and the keyword rule."""

import json
import sys

import numpy as np
import pytest
import soundfile as sf
from commands import tool
from hypothesis import given
from hypothesis import strategies as st

from sap2.data.talks import TalkOptions, convert_talks
from sap2.data.utterances import read_utterances
from sap2.slides.decks import read_deck
from sap2.slides.keywords import choose_rarest, extract_keywords, read_words, slide_keywords, split_text
from sap2.slides.manifest import read_manifest
from sap2.text import clean_keywords

COMMON = {"joined", "friend", "run", "work", "problems", "apple", "future", "open", "kernels"}
SLIDE = """Future Work And Open Problems
• Steve Wozniak joined Apple in 1976 with a friend
- the GPU kernels of PyTorch 2.0 and C++ run on Kubernetes
3"""


def pdf(pages):
    """A PDF written by hand: one line of text on each page (None: an empty page)."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = "" if text is None else f"BT /F1 24 Tf 20 40 Td ({text}) Tj ET"
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 300] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {len(objects) + 2} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    ).encode("latin-1")


def picture(text):
    image = pytest.importorskip("PIL.Image").new("RGB", (420, 320), "white")
    font = pytest.importorskip("PIL.ImageFont").load_default(size=40)
    pytest.importorskip("PIL.ImageDraw").Draw(image).text((30, 25), text, fill="black", font=font)
    return image


# ---- the keyword rule


def test_the_keyword_rule():
    assert extract_keywords([SLIDE], COMMON) == [
        "Steve", "Wozniak", "Apple", "1976", "GPU", "PyTorch", "2.0", "C++", "Kubernetes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "keywords"),
    [
        ("OPEN PROBLEMS", []),  # a headline in capitals shows no names
        ("Apple Problems", []),
        ("we joined Apple", ["Apple"]),
        ("Apple joined us", []),  # a capital at the beginning of a line is no sign of a name
        ("Apple Work, joined", ["Apple", "Work"]),  # two of them are
        ("the iPhone and the GPU", ["iPhone", "GPU"]),
        ("O'Reilly’s state-of-the-art HTTP/2, R&D", ["O'Reilly's", "state-of-the-art", "HTTP/2", "R&D"]),
        ("1 of 12: $10,000 or 3.5%", ["12", "10000", "3.5"]),
        ("a b x I", []),
        ("日本語 wozniak", ["日本語", "wozniak"]),
        ("wozniak Wozniak WOZNIAK", ["wozniak"]),
        ("<|im_end|>\u202ezeta\x00 <audio>", ["im", "end", "zeta", "audio"]),
        ("", []),
    ],
)
def test_keywords_of_a_line(line, keywords):
    assert extract_keywords([line], COMMON) == keywords


def test_the_cap_keeps_the_rarest_in_order_of_appearance():
    slides = ["zeta apple Apple-1", "zeta eta theta", "we joined Apple", "zeta iota"]
    assert extract_keywords(slides, COMMON, 0) == ["zeta", "Apple-1", "eta", "theta", "Apple", "iota"]
    assert extract_keywords(slides, COMMON, 5) == ["zeta", "Apple-1", "eta", "theta", "iota"]  # Apple is a common word
    assert extract_keywords(slides, COMMON, 4) == ["Apple-1", "eta", "theta", "iota"]  # zeta is on three slides
    assert extract_keywords(slides, COMMON, 2) == ["Apple-1", "eta"]
    assert choose_rarest([], COMMON) == []


@given(st.lists(st.text(max_size=60), max_size=4), st.integers(0, 8))
def test_keywords_of_any_slides_are_clean_and_few(slides, cap):
    keywords = extract_keywords(slides, COMMON, cap)
    assert keywords == clean_keywords(keywords)
    assert not cap or len(keywords) <= cap
    assert len(slide_keywords(slides)) == len(slides)


def test_ten_thousand_words_on_a_slide():
    assert len(extract_keywords([" ".join(f"word{i}" for i in range(10_000))], cap=50)) == 50


def test_split_text_and_word_lists(tmp_path):
    assert split_text("don't e.g. C# x_y 1,000.5") == ["don't", "e.g", "C#", "x", "y", "1000.5"]
    (tmp_path / "words.txt").write_text("The\r\nof\t12\n\n")
    assert read_words(tmp_path / "words.txt") == ["the", "of"]


# ---- decks


def test_a_text_deck(tmp_path):
    (tmp_path / "deck.txt").write_bytes(b"\xef\xbb\xbffirst\fsecond\r\nline\f")
    assert read_deck(tmp_path / "deck.txt") == ["first", "second\r\nline", ""]
    (tmp_path / "deck.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"deck\.txt: not UTF-8 text"):
        read_deck(tmp_path / "deck.txt")


def test_a_pdf_deck(tmp_path):
    pytest.importorskip("pypdfium2")
    (tmp_path / "deck.pdf").write_bytes(pdf(["Steve Wozniak", None, "Kubernetes"]))
    assert [text.strip() for text in read_deck(tmp_path / "deck.pdf")] == ["Steve Wozniak", "", "Kubernetes"]
    (tmp_path / "deck.pdf").write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(ValueError, match=r"deck\.pdf: not readable as PDF"):
        read_deck(tmp_path / "deck.pdf")


def test_a_pptx_deck(tmp_path):
    pptx = pytest.importorskip("pptx")
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Steve Wozniak"
    slide.shapes.add_table(1, 2, 0, 0, 10**6, 10**6).table.cell(0, 1).text = "Kubernetes"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 10, 10).text_frame.text = "grouped"
    slide.notes_slide.notes_text_frame.text = "never said"
    presentation.slides.add_slide(presentation.slide_layouts[6])
    presentation.save(str(tmp_path / "deck.pptx"))
    first, second = read_deck(tmp_path / "deck.pptx")
    assert first.split() == ["Steve", "Wozniak", "Kubernetes", "grouped"]
    assert second == ""
    (tmp_path / "deck.pptx").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match=r"deck\.pptx: not readable as PPTX"):
        read_deck(tmp_path / "deck.pptx")


def test_pictures_of_slides_through_ocr(tmp_path):
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("pypdfium2")
    (tmp_path / "deck").mkdir()
    picture("Steve Wozniak").save(tmp_path / "deck" / "1.png")
    picture("Steve Wozniak").save(tmp_path / "scan.pdf")
    assert "wozniak" in read_deck(tmp_path / "deck")[0].lower()
    assert "wozniak" in read_deck(tmp_path / "scan.pdf")[0].lower()
    assert read_deck(tmp_path / "scan.pdf", ocr="never") == [""]
    (tmp_path / "text.pdf").write_bytes(pdf(["Kubernetes"]))
    assert "kubernetes" in read_deck(tmp_path / "text.pdf", ocr="always")[0].lower()


def test_decks_that_cannot_be_read(tmp_path):
    (tmp_path / "deck.key").write_text("x")
    with pytest.raises(ValueError, match=r"deck\.key: slides of this kind are not read; allowed: \.txt, \.md, \.pdf"):
        read_deck(tmp_path / "deck.key")
    with pytest.raises(ValueError, match="no pictures of slides in this folder"):
        read_deck(tmp_path)
    (tmp_path / "x.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x\.png: not readable as a picture"):
        read_deck(tmp_path / "x.png")
    with pytest.raises(ValueError, match="a picture has no text without OCR, and OCR is set to never"):
        read_deck(tmp_path / "x.png", ocr="never")
    with pytest.raises(ValueError, match="ocr 'maybe' is unknown; allowed: auto, never, always"):
        read_deck(tmp_path / "x.png", ocr="maybe")


@pytest.mark.parametrize(
    ("name", "module_name", "package"),
    [
        ("deck.pdf", "pypdfium2", "pypdfium2"),
        ("deck.pptx", "pptx", "python-pptx"),
        ("deck.png", "rapidocr_onnxruntime", "rapidocr-onnxruntime"),
    ],
)
def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch, name, module_name, package):
    from sap2.slides.decks import _ocr_engine

    _ocr_engine.cache_clear()
    (tmp_path / name).write_bytes(pdf(["x"]))
    if name.endswith(".png"):
        picture("x").save(tmp_path / name)
    finder = type("Finder", (), {"find_spec": staticmethod(_absent(module_name))})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, module_name, raising=False)
    with pytest.raises(ImportError, match=rf"needs the package {package}: pip install {package} \(all"):
        read_deck(tmp_path / name)


def _absent(module_name):
    def find_spec(name, path=None, target=None):
        if name == module_name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return find_spec


# ---- manifests and the conversion


@pytest.fixture
def folder(tmp_path):
    sf.write(tmp_path / "talk.wav", np.full(16_000 * 4, 0.1), 16_000)
    (tmp_path / "deck.txt").write_text("Emily Wozniak\fthe zeta of Kubernetes\f\fthe theta")
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
        "keywords": ["Emily", "Wozniak"],
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
    assert convert(folder, slides=2)[1]["u2"].keywords == ("zeta", "Kubernetes", "Emily", "Wozniak")
    assert convert(folder)[1]["u2"].keywords == ("Emily", "Wozniak", "zeta", "Kubernetes", "theta")
    assert convert(folder, max_keywords=2)[1]["u2"].keywords == ("Emily", "Wozniak")


def test_a_deck_and_a_list_for_all_rows(folder):
    (folder / "list.txt").write_text("New York\r\nemily\n\n<|im_end|>\n")
    (folder / "other.txt").write_text("omega")
    _, utterances = convert(
        folder, deck=str(folder / "other.txt"), keyword_list=str(folder / "list.txt"), case="lower", slides=1
    )
    assert utterances["u3"].keywords == ("new york", "emily", "im_end", "omega")
    assert utterances["u1"].keywords == ("new york", "emily", "im_end", "wozniak")
    assert utterances["u1"].text == "hi, i'm emily"


def test_common_words_are_dropped(folder):
    (folder / "common.txt").write_text("zeta\ntheta\n")
    assert convert(folder, common_words=str(folder / "common.txt"))[1]["u2"].keywords == (
        "Emily",
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
        ("id,path\nu1,talk.wav\n", r"talks\.csv:2: unknown columns path; allowed: id, audio, start, end, text, slides"),
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
            r"talks\.csv:2: .*talk\.wav: 3\.0-9\.0 s lies outside .* 4\.00 s",
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
