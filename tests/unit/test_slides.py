"""Decks of every kind, and the keyword rule."""

import sys

import pytest
from decks import pdf, picture
from hypothesis import given
from hypothesis import strategies as st

from sap2.slides.common import read_words
from sap2.slides.decks import read_deck
from sap2.slides.keywords import choose_rarest, extract_keywords, slide_keywords, split_text
from sap2.text import clean_keywords

COMMON = {"joined", "friend", "run", "work", "problems", "apple", "future", "open", "kernels"}
SLIDE = """Future Work And Open Problems
• Steve Wozniak joined Apple in 1976 with a friend
- the GPU kernels of PyTorch 2.0 and C++ run on Kubernetes
3"""


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
    assert read_deck(tmp_path / "deck.txt") == ["first", "second\nline", ""]
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
    pytest.importorskip("rapidocr")
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
        ("deck.png", "rapidocr", "rapidocr"),
    ],
)
def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch, name, module_name, package):
    from sap2.slides.pictures import _ocr_engine

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
