"""The text of PowerPoint slides: shapes, tables, groups, charts, SmartArt, pictures through OCR, and notes."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sap2.errors import InputError, list_some, one_line, print_note
from sap2.slides.extras import import_extra
from sap2.slides.pictures import picture_text, read_pictures

PPTX_SUFFIXES = (".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what begins an old .ppt, and a protected .pptx
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_EMBED = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}embed"
_SMALL = 0.03  # of the slide's area: a logo or an icon, of which no text is taken
_NEVER_SAID = {"slidenum", "datetime", "footer", "header"}


def read_pptx(path: Path, ocr: str, notes: bool) -> list[str]:
    """The text of each slide. Hidden slides count, and are left empty; that, and what went through OCR, is said.

    Args:
        ocr: of pictures on slides: ``never`` leaves them out.
        notes: take the speaker's notes too.

    Raises:
        InputError: the file is damaged, protected, or of an older format.
    """
    import_extra("pptx", "a PPTX deck")
    from pptx.package import Package  # unlike pptx.Presentation, it opens slide shows and templates too

    _check_container(path)
    try:
        presentation = Package.open(str(path)).main_document_part.presentation
        area = (presentation.slide_width or 1) * (presentation.slide_height or 1)
        slides = list(presentation.slides)
        texts = ["" if _hidden(slide) else "\n".join(_slide_texts(slide, notes)) for slide in slides]
        pictures = [[] if _hidden(slide) or ocr == "never" else list(_pictures(slide, area)) for slide in slides]
    except Exception as error:  # python-pptx lets zip, XML and key errors through
        raise InputError(f"{path}: not readable as PPTX: {one_line(error)}") from None
    hidden = [str(number) for number, slide in enumerate(slides, 1) if _hidden(slide)]
    if hidden:
        print_note(f"{path}: hidden slides {list_some(hidden, 20)} are left out")
    return _with_pictures(path, texts, pictures)


def _check_container(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(8)
        rest = file.read(1 << 20) if head == _OLE else b""
    if "EncryptedPackage".encode("utf-16-le") in rest:
        raise InputError(f"{path}: not readable as PPTX: it is protected with a password; save a copy without one")
    if head == _OLE:
        raise InputError(f"{path}: not readable as PPTX: it is of an older format; save it as .pptx")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not readable as PPTX: damaged, or another kind of file")


def _hidden(slide: Any) -> bool:
    return slide.element.get("show") in ("0", "false")


def _slide_texts(slide: Any, notes: bool) -> Iterator[str]:
    yield from _paragraphs(slide.element)
    for relation in slide.part.rels.values():
        if relation.is_external:
            continue
        if relation.reltype.endswith("/chart"):
            yield from _chart_texts(relation.target_part)
        elif relation.reltype.endswith("/diagramData"):
            yield from _paragraphs(_xml(relation.target_part.blob))
    if notes and slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield slide.notes_slide.notes_text_frame.text


def _paragraphs(root: Any) -> Iterator[str]:
    """The paragraphs below an element; of what is there in two versions (AlternateContent), the newer one."""
    for paragraph in root.iter(f"{_DRAWING}p"):
        if any(True for _ in paragraph.iterancestors(_FALLBACK)):
            continue
        pieces = []
        for node in paragraph.iter(f"{_DRAWING}t", f"{_DRAWING}br"):
            kind = node.getparent().get("type", "") if node.getparent().tag == f"{_DRAWING}fld" else ""
            if kind.rstrip("0123456789") not in _NEVER_SAID:
                pieces.append("\n" if node.tag == f"{_DRAWING}br" else node.text or "")
        if text := "".join(pieces).strip():
            yield text


def _chart_texts(part: Any) -> Iterator[str]:
    """Titles, and names of series and categories; numbers are values, which nobody says as they stand."""
    root = _xml(part.blob)
    yield from _paragraphs(root)
    seen: dict[str, None] = {}
    for value in root.iter(f"{_CHART}v"):
        text = (value.text or "").strip()
        if any(True for _ in value.iterancestors(f"{_CHART}tx", f"{_CHART}cat")) and any(c.isalpha() for c in text):
            seen.setdefault(text)
    yield from seen


def _xml(data: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _pictures(slide: Any, area: int) -> Iterator[bytes]:
    """What is in the pictures of a slide that are large enough to hold text."""
    for blip in slide.element.iter(f"{_DRAWING}blip"):
        frame = blip.getparent().getparent()
        sizes = [int(ext.get("cx", 0)) * int(ext.get("cy", 0)) for ext in frame.iter(f"{_DRAWING}ext") if ext.get("cx")]
        if sizes and max(sizes) < _SMALL * area:
            continue
        relation = slide.part.rels.get(blip.get(_EMBED))
        if relation is not None and not relation.is_external:
            yield relation.target_part.blob


def _with_pictures(path: Path, texts: list[str], pictures: list[list[bytes]]) -> list[str]:
    """The texts with those of the pictures, each read once, though it may be on every slide."""
    read: dict[str, str] = {}
    found: list[str] = []
    failed: list[str] = []
    for number, blobs in enumerate(pictures, 1):
        for blob in blobs:
            key = hashlib.sha256(blob).hexdigest()
            if key not in read:
                read[key] = _picture_text(blob, f"{path} slide {number}", bool(texts[number - 1]), failed)
            if read[key]:
                texts[number - 1] = f"{texts[number - 1]}\n{read[key]}".strip()
                found.append(str(number))
    if found:
        print_note(f"{path}: pictures on slides {list_some(list(dict.fromkeys(found)), 20)} were read through OCR")
    if failed:
        print_note(f"{path}: {len(failed)} pictures are not read: {failed[0]}")
    return texts


def _picture_text(blob: bytes, where: str, has_text: bool, failed: list[str]) -> str:
    try:
        return "\n".join(picture_text(page, where) for page in read_pictures(blob, where))
    except InputError as error:  # a drawing (EMF, WMF), or damaged
        failed.append(str(error))
    except ImportError as error:
        if not has_text:
            raise
        failed.append(str(error))
    return ""
