"""Lists of keywords as people write them, and values of ``--keywords`` that mean a file."""

from __future__ import annotations

import pytest

from sap2.errors import InputError
from sap2.prompts import parse_keywords
from sap2.scoring.inputs import Problems, read_keyword_file
from sap2.slides.sources import read_keywords
from sap2.tables import find_divider, read_keyword_list
from sap2.tables import read_keywords as read_keyword_table
from sap2.text import clean_keyword, clean_text, spoken_keywords

WANTED = ["emily", "steve wozniak", "kubernetes"]


@pytest.mark.parametrize(
    "text",
    [
        "emily\nsteve wozniak\nkubernetes\n",
        "emily, steve wozniak, kubernetes",
        "emily; steve wozniak; kubernetes\n",
        "emily$steve wozniak$kubernetes",
        "emily\tsteve wozniak\tkubernetes",
        "emily，steve wozniak，kubernetes",
        "emily、steve wozniak、kubernetes",
        "emily\rsteve wozniak\rkubernetes\r",
        "emily\r\nsteve wozniak\r\nkubernetes",
        "emily\t12\nsteve wozniak\t3\nkubernetes\t1\n",
        "emily, steve wozniak\nkubernetes\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_in_every_form(tmp_path, text, encoding):
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    assert read_keywords(str(tmp_path / "list.txt")) == WANTED


def test_what_divides_the_keywords_is_said(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("emily; wozniak")
    read_keywords(str(tmp_path / "list.txt"))
    assert capsys.readouterr().err == f"sap2: note: {tmp_path}/list.txt: keywords are divided at ';'\n"


def test_a_comma_in_one_line_of_many_divides_nothing(tmp_path):
    (tmp_path / "list.txt").write_text("Paris, France\nSan Francisco\nNew York\nLondon\nOsaka Castle\n")
    assert read_keyword_list(tmp_path / "list.txt").divider is None
    assert read_keywords(str(tmp_path / "list.txt"))[0] == "Paris France"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no keyword in this file"),
        (" \n\n", "no keyword in this file"),
        ("emily wozniak kubernetes docker helm", "one line of 5 words; allowed: a keyword a line, or commas between"),
        (b"\xff\xfa\xfb", "not UTF-8 text"),
    ],
)
def test_lists_that_cannot_be_told_are_refused(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"list\.txt: {message}"):
        read_keywords(str(path))


@pytest.mark.parametrize(
    "value",
    [
        "slides.pdf",
        "my talk, part 1.pptx",
        "./list",
        "/data/list, final",
        "~/words",
        "emily, wozniak.txt",
        "",
        "a.docx",
    ],
)
def test_a_mistyped_path_is_no_keyword(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_keywords(value)


def test_a_mistyped_name_in_a_folder_that_is_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_keywords(f"{tmp_path}/lst, of words")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("zolden", ["zolden"]),
        ("emily, steve wozniak", ["emily", "steve wozniak"]),
        ("emily；wozniak、GPU", ["emily", "wozniak", "GPU"]),
        ("TCP/IP, node.js, U.S.", ["TCP/IP", "node.js", "U.S."]),
        ("x" * 300 + ", y" * 2000, ["x" * 300, "y"]),
    ],
)
def test_keywords_on_the_command_line(value, expected):
    assert read_keywords(value) == expected


def test_a_text_of_sentences_is_slide_text(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text(
        "emily wozniak\nToday we will talk about the Kubernetes scheduler and how it places pods.\n"
    )
    words = tmp_path / "common"
    words.write_text("today\nwe\nwill\ntalk\nabout\nplaces\n")
    from sap2.slides.sources import KeywordOptions

    found = read_keywords(str(tmp_path / "notes.txt"), KeywordOptions(common_words=str(words)))
    assert found == ["emily wozniak", "Kubernetes", "scheduler", "pods"]
    assert "1 of 2 entries are sentences" in capsys.readouterr().err


def test_slides_with_form_feeds_are_slides(tmp_path):
    (tmp_path / "deck.txt").write_text("The GPU of Wozniak\fThe TPU")
    assert read_keywords(str(tmp_path / "deck.txt")) == ["GPU", "Wozniak", "TPU"]


# ---- SlideSpeech's table


@pytest.mark.parametrize("divider", ["$", ";", ", ", "\t", "、"])
def test_tables_with_other_dividers(tmp_path, divider):
    path = tmp_path / "keywords"
    path.write_text(f"u1 emily{divider}steve wozniak\nu2\nu3 kubernetes\n")
    expected = {"u1": ["emily", "steve wozniak"], "u2": [], "u3": ["kubernetes"]}
    assert read_keyword_table(path) == expected
    assert read_keyword_file(path, Problems()) == expected


def test_a_table_without_dividers_is_refused(tmp_path):
    path = tmp_path / "keywords"
    path.write_text("u1 emily steve wozniak kubernetes docker\nu2 gpu\n")
    for read in (read_keyword_table, lambda p: read_keyword_file(p, Problems())):
        with pytest.raises(InputError, match=r"keywords: nothing divides the keywords of 'u1'; allowed: \$ between"):
            read(path)


def test_dollar_is_the_surest():
    assert find_divider(["Paris, France$London", "a, b", "c, d"]) == "$"
    assert find_divider(["one", "two"]) is None


# ---- texts


@pytest.mark.parametrize("separator", [",", "，", "、", "；", ";"])
def test_separators_of_other_scripts_divide_a_row_s_list(separator):
    assert parse_keywords(f"语音识别{separator}Zürich{separator} steve wozniak") == [
        "语音识别",
        "Zürich",
        "steve wozniak",
    ]
    assert parse_keywords(clean_keyword(f"a{separator}b") + ", c") == ["a b", "c"]


def test_letters_stay_whole():
    assert clean_text("Zu\u0308rich don’t हिन्दी") == "Zürich don't हिन्दी"
    assert clean_text("हिन्दी").split() == ["हिन्दी"]


@pytest.mark.parametrize("normalizer", ["none", "basic", "whisper-en"])
def test_a_keyword_is_found_however_it_is_written(normalizer):
    assert spoken_keywords(["Zu\u0308rich", "don’t"], "i don't live in zürich", normalizer) == ["Zu\u0308rich", "don’t"]
