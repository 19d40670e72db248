"""The text of slides: plain text, PDF, PPTX, or pictures of slides through OCR.

PDF, PPTX and OCR need the packages of the extra ``slides``. Nothing here runs or fetches what a deck holds.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sap2.errors import InputError, MissingExtraError
from sap2.tables import read_text

if TYPE_CHECKING:
    import numpy as np

TEXT_SUFFIXES = (".txt", ".md")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
DECK_SUFFIXES = (*TEXT_SUFFIXES, ".pdf", ".pptx", *IMAGE_SUFFIXES)
"""Names of files that are decks of slides, or slides."""
OCR_MODES = ("auto", "never", "always")
"""OCR of a PDF: of pages without a text layer, of none, of all. A picture always needs it."""

_DPI = 144  # of page pictures: letters of 10 pt get 20 pixels, which OCR reads well
_PACKAGES = {"pypdfium2": "pypdfium2", "pptx": "python-pptx", "rapidocr_onnxruntime": "rapidocr-onnxruntime"}


def read_deck(path: str | os.PathLike[str], ocr: str = "auto") -> list[str]:
    """The text of each slide, in order; a folder of pictures is a deck in the order of their names.

    Args:
        path: .txt or .md (a form feed divides slides), .pdf, .pptx, a picture, or a folder of pictures.
        ocr: one of :data:`OCR_MODES`.

    Raises:
        InputError: the file is not what its name says, of no known kind, or needs OCR that ``ocr`` forbids.
        ImportError: the extra is not installed; the message says how to install it.
    """
    if ocr not in OCR_MODES:
        raise InputError(f"ocr {ocr!r} is unknown; allowed: {', '.join(OCR_MODES)}")
    path = Path(path)
    if path.is_dir():
        pictures = sorted((p for p in path.iterdir() if _is_picture(p)), key=natural_order)
        if not pictures:
            raise InputError(f"{path}: no pictures of slides in this folder ({', '.join(IMAGE_SUFFIXES)})")
        return [_read_picture(picture, ocr) for picture in pictures]
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _read_text(path)
    if suffix in IMAGE_SUFFIXES:
        return [_read_picture(path, ocr)]
    if suffix in (".pdf", ".pptx"):
        return (_read_pdf if suffix == ".pdf" else _read_pptx)(path, ocr)
    raise InputError(
        f"{path}: slides of this kind are not read; allowed: {', '.join(DECK_SUFFIXES)}, or a folder of pictures"
    )


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts names as a person counts: Slide2 before Slide10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def _is_picture(path: Path) -> bool:
    """Whether a file of a folder is a slide: a picture by its name, and none of the hidden files of some systems."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _extra(module: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(what, _PACKAGES[module], "slides") from None


def _read_text(path: Path) -> list[str]:
    return read_text(path).split("\f")


def _read_pdf(path: Path, ocr: str) -> list[str]:
    pdfium = _extra("pypdfium2", "a PDF deck")
    try:
        with pdfium.PdfDocument(path) as document:
            return [_page_text(page, f"{path} page {number}", ocr) for number, page in enumerate(document, 1)]
    except pdfium.PdfiumError as error:
        raise InputError(f"{path}: not readable as PDF: {error}") from None


def _page_text(page: Any, where: str, ocr: str) -> str:
    text = page.get_textpage().get_text_range()
    # a page with neither text nor pictures is an empty slide, not a scan
    scanned = not text.strip() and any(True for _ in page.get_objects(filter=[_IMAGE_OBJECT]))
    if ocr == "always" or (ocr == "auto" and scanned):
        return _ocr(page.render(scale=_DPI / 72).to_numpy(), where)
    return text


_IMAGE_OBJECT = 3  # FPDF_PAGEOBJ_IMAGE


def _read_pptx(path: Path, ocr: str) -> list[str]:
    pptx = _extra("pptx", "a PPTX deck")
    try:
        presentation = pptx.Presentation(str(path))
        return ["\n".join(_shape_texts(slide.shapes)) for slide in presentation.slides]
    except Exception as error:  # python-pptx lets zip, XML and key errors through
        raise InputError(f"{path}: not readable as PPTX: {error}") from None


def _shape_texts(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if shape.has_text_frame:
            yield shape.text_frame.text
        if getattr(shape, "has_table", False) and shape.has_table:
            yield from (cell.text_frame.text for row in shape.table.rows for cell in row.cells)
        yield from _shape_texts(getattr(shape, "shapes", ()))


def _read_picture(path: Path, ocr: str) -> str:
    if ocr == "never":
        raise InputError(f"{path}: a picture has no text without OCR, and OCR is set to never")
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]  # OCR takes BGR
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not readable as a picture: {error}") from None
    return _ocr(pixels, str(path))


def _ocr(pixels: np.ndarray, where: str) -> str:
    """The lines of text in a picture (H, W, 3)."""
    try:
        lines, _ = _ocr_engine()(pixels)
    except ImportError as error:
        raise ImportError(f"{where}: {error}") from None
    return "\n".join(line[1] for line in lines or [])


@functools.cache
def _ocr_engine() -> Callable[[Any], tuple[list | None, Any]]:
    return _extra("rapidocr_onnxruntime", "a slide without a text layer").RapidOCR()
