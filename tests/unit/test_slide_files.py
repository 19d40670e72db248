"""Slides as people have them: every kind of picture, scans with a page number, all that PowerPoint puts on a slide."""

from __future__ import annotations

import io
import zipfile

import pytest
from decks import pdf, picture

from sap2.errors import InputError
from sap2.slides.decks import natural_order, read_deck
from sap2.slides.pictures import picture_text, read_pictures

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")
pptx = pytest.importorskip("pptx")
pytest.importorskip("rapidocr")
pytest.importorskip("pypdfium2")

WORD = "Wozniak"


def squeezed(text):
    return text.lower().replace(" ", "")


# ---- pictures


def rgba():
    image = picture(WORD).convert("RGBA")
    pixels = np.asarray(image).copy()
    pixels[..., 3] = np.where(pixels[..., 0] > 128, 0, 255)  # what is not a letter is transparent
    pixels[pixels[..., 3] == 0] = 0  # and black below
    return Image.fromarray(pixels)


def sixteen_bits():
    return Image.fromarray(np.asarray(picture(WORD).convert("L")).astype(np.uint16) * 257)


PICTURES = {
    "plain.png": lambda: picture(WORD),
    "transparent.png": rgba,
    "transparent.webp": rgba,
    "grey_alpha.png": lambda: rgba().convert("LA"),
    "palette.png": lambda: picture(WORD).convert("P"),
    "palette.gif": lambda: picture(WORD).convert("P"),
    "print.jpg": lambda: picture(WORD).convert("CMYK"),
    "scan.tif": lambda: picture(WORD).convert("1"),
    "deep.png": sixteen_bits,
    "deep.tiff": sixteen_bits,
    "float.tiff": lambda: Image.fromarray(np.asarray(picture(WORD).convert("L"), np.float32) / 255),
    "new.avif": lambda: picture(WORD),
    "upper.JPEG": lambda: picture(WORD),
    "huge.png": lambda: picture(WORD).resize((8000, 6000)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_is_read_as_it_is_seen(tmp_path, name):
    PICTURES[name]().save(tmp_path / name)
    (page,) = read_pictures(tmp_path / name, name)
    assert page.dtype == np.uint8 and page.shape[2] == 3
    assert page[-1, -1].min() > 200, "what is around the letters is white"
    assert page.min() < 60, "the letters are black"
    assert WORD.lower() in squeezed(read_deck(tmp_path / name)[0])


def test_a_picture_of_a_phone(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    picture(WORD).save(tmp_path / "photo.heic")
    assert WORD.lower() in squeezed(read_deck(tmp_path / "photo.heic")[0])


def test_a_picture_is_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture(WORD).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    assert WORD.lower() in squeezed(read_deck(tmp_path / "turned.jpg")[0])


def test_every_page_of_a_tiff_is_a_slide(tmp_path):
    pages = [picture(word) for word in ("Wozniak", "Kubernetes")]
    pages[0].save(tmp_path / "scan.tiff", save_all=True, append_images=pages[1:])
    texts = [squeezed(text) for text in read_deck(tmp_path / "scan.tiff")]
    assert "wozniak" in texts[0] and "kubernetes" in texts[1]


@pytest.mark.parametrize("shape", [(10, 4000), (4000, 10), (3, 3), (30, 3000)])
def test_shapes_that_are_no_slide_are_passed_over_with_a_word(tmp_path, capsys, shape):
    Image.new("RGB", shape, "white").save(tmp_path / "line.png")
    assert read_deck(tmp_path / "line.png") == [""]
    assert f"line.png: {shape[0]}×{shape[1]} pixels are no slide; passed over" in capsys.readouterr().err


def test_a_folder_in_the_order_in_which_a_person_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("sap2.slides.decks.picture_text", lambda pixels, where: where.rpartition("/")[2])
    names = ["Slide1.png", "Slide2.png", "slide10.png", "Slide11.png", "Slide100.png"]
    for name in reversed(names):
        picture("x").save(tmp_path / name)
    for junk in ("._Slide1.png", ".DS_Store", "Thumbs.db", ".hidden.png"):
        (tmp_path / junk).write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.png").mkdir()
    assert read_deck(tmp_path) == names
    assert sorted(tmp_path.glob("S*1*.png"), key=natural_order)[0].name == "Slide1.png"


def test_what_ocr_cannot_take_is_said(monkeypatch, capsys):
    def fails(pixels):
        raise RuntimeError("no memory")

    monkeypatch.setattr("sap2.slides.pictures._ocr_engine", lambda: fails)
    assert picture_text(np.zeros((100, 100, 3), np.uint8), "x.png") == ""
    assert "x.png: OCR fails on this picture (RuntimeError: no memory); passed over" in capsys.readouterr().err


# ---- PDF


def drawn_pdf(text, drawing):
    """A page with a text layer and vector graphics."""
    data = pdf([text]).decode("latin-1")
    stream = f"BT /F1 10 Tf 380 10 Td ({text}) Tj ET" if text else ""
    old = f"BT /F1 24 Tf 20 40 Td ({text}) Tj ET"
    body = f"{drawing}\n{stream}"
    data = data.replace(f"<< /Length {len(old)} >>\nstream\n{old}", f"<< /Length {len(body)} >>\nstream\n{body}")
    return data[: data.index("xref")].encode("latin-1") + b"trailer << /Root 1 0 R >>\n%%EOF\n"


def outlines(word):
    """The letters of a word as filled shapes, which no text layer knows."""
    pixels = np.asarray(picture(word).convert("L")) < 128
    runs = []
    for y, line in enumerate(pixels):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        runs += [f"{x} {300 - y} {end - x} 1 re" for x, end in edges.reshape(-1, 2)]
    return "\n".join(runs) + " f"


@pytest.mark.parametrize("stamp", ["7", "Page 7 of 20", "CONFIDENTIAL 2024"])
def test_a_page_whose_only_text_is_a_number_or_a_stamp_is_a_scan(tmp_path, capsys, stamp):
    (tmp_path / "scan.pdf").write_bytes(drawn_pdf(stamp, outlines("Kubernetes Wozniak")))
    assert "kuberneteswozniak" in squeezed(read_deck(tmp_path / "scan.pdf")[0])
    assert "scan.pdf: pages 1 were read through OCR" in capsys.readouterr().err
    assert squeezed(read_deck(tmp_path / "scan.pdf", ocr="never")[0]) == squeezed(stamp)
    assert "pages 1 have next to no text, and OCR is off" in capsys.readouterr().err


def test_a_text_layer_and_an_empty_page_are_taken_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sap2.slides.pdf.picture_text", lambda *args: pytest.fail("OCR of a page with text"))
    (tmp_path / "text.pdf").write_bytes(pdf(["Kubernetes and Wozniak", None, "Agenda"]))
    assert [text.strip() for text in read_deck(tmp_path / "text.pdf")] == ["Kubernetes and Wozniak", "", "Agenda"]
    assert capsys.readouterr().err == ""


def test_a_pdf_with_a_password_says_so(tmp_path, monkeypatch):
    import pypdfium2

    (tmp_path / "x.pdf").write_bytes(pdf(["x"]))

    def refuses(path):
        raise pypdfium2.PdfiumError("Failed to load document (PDFium: Incorrect password error).")

    monkeypatch.setattr(pypdfium2, "PdfDocument", refuses)
    with pytest.raises(InputError, match=r"x\.pdf: this PDF needs a password"):
        read_deck(tmp_path / "x.pdf")


# ---- PowerPoint

DIAGRAM = (
    '<dgm:dataModel xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><dgm:ptLst><dgm:pt><dgm:t><a:bodyPr/>'
    "<a:p><a:r><a:t>Terraform</a:t></a:r></a:p></dgm:t></dgm:pt></dgm:ptLst></dgm:dataModel>"
)
ALTERNATE = (
    '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">'
    '<mc:Choice Requires="p14"><p:sp><p:txBody><a:p><a:r><a:t>Ansible</a:t></a:r></a:p></p:txBody></p:sp></mc:Choice>'
    "<mc:Fallback><p:sp><p:txBody><a:p><a:r><a:t>Older</a:t></a:r></a:p></p:txBody></p:sp></mc:Fallback>"
    "</mc:AlternateContent>"
)


@pytest.fixture
def deck(tmp_path):
    """A deck whose first slide has all that PowerPoint can put on one; the second is hidden."""
    from lxml import etree
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI
    from pptx.util import Inches

    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Steve Wozniak"
    data = CategoryChartData()
    data.categories = ["Grafana", "Prometheus"]
    data.add_series("Latency", (0.25, 17.5))
    box = (Inches(1), Inches(1), Inches(4), Inches(3))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *box, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Kafka"
    diagram = Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", slide.part.package, DIAGRAM.encode())
    slide.part.relate_to(diagram, "http://schemas.openxmlformats.org/officeDocument/2006/relationships/diagramData")
    slide.shapes.title._element.getparent().append(etree.fromstring(ALTERNATE))
    stream = io.BytesIO()
    picture("Zookeeper").save(stream, "PNG")
    slide.shapes.add_picture(stream, Inches(4), Inches(4), Inches(5), Inches(3))
    slide.shapes.add_picture(stream, 0, 0, Inches(0.3), Inches(0.2))  # a logo
    slide.notes_slide.notes_text_frame.text = "Clickhouse"
    hidden = presentation.slides.add_slide(presentation.slide_layouts[5])
    hidden.shapes.title.text = "Backup"
    hidden.element.set("show", "0")
    presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = "Third"
    presentation.save(str(tmp_path / "deck.pptx"))
    return tmp_path / "deck.pptx"


def test_all_that_is_on_a_slide(deck, capsys):
    first, second, third = read_deck(deck)
    assert set(first.split()) >= {
        "Steve",
        "Wozniak",
        "Kafka",
        "Grafana",
        "Prometheus",
        "Latency",
        "Terraform",
        "Ansible",
    }
    assert "zookeeper" in first.lower()
    assert "Older" not in first and "Clickhouse" not in first and "17.5" not in first
    assert (second, third) == ("", "Third")
    said = capsys.readouterr().err
    assert "deck.pptx: hidden slides 2 are left out" in said
    assert "deck.pptx: pictures on slides 1 were read through OCR" in said
    assert "Clickhouse" in read_deck(deck, notes=True)[0]
    assert "zookeeper" not in read_deck(deck, ocr="never")[0].lower()


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".pptm", "application/vnd.ms-powerpoint.presentation.macroEnabled.main+xml"),
        (".ppsx", "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml"),
        (".potx", "application/vnd.openxmlformats-officedocument.presentationml.template.main+xml"),
    ],
)
def test_relatives_of_pptx(deck, suffix, kind):
    path = deck.with_suffix(suffix)
    plain = "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"
    with zipfile.ZipFile(deck) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(plain.encode(), kind.encode()) if name == "[Content_Types].xml" else data)
    assert "Wozniak" in read_deck(path, ocr="never")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "protected with a password"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "of an older format; save it as .pptx"),
        (b"PK\x03\x04 half a download", "damaged, or another kind of file"),
    ],
)
def test_decks_that_cannot_be_opened_say_why(tmp_path, content, message):
    (tmp_path / "deck.pptx").write_bytes(content)
    with pytest.raises(InputError, match=rf"deck\.pptx: not readable as PPTX: .*{message}"):
        read_deck(tmp_path / "deck.pptx")
