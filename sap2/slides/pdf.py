"""The text of PDF slides: their text layer, or OCR where that holds less than is to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sap2.errors import InputError, list_some, one_line, print_note
from sap2.slides.extras import import_extra
from sap2.slides.pictures import picture_text

_DPI = 144  # of page pictures: letters of 10 pt get 20 pixels, which OCR reads well
_LONGEST = 5000  # pixels of a side of a page's picture, whatever size the page claims
_MUCH_TEXT = 200  # letters of a page that has a text layer, whatever else is on it
_EDGES_A_LETTER = 60  # at 72 dpi; a letter of 14 pt has about 30
_FEW_EDGES = 400  # of frames, lines and bullets
_MORE = 1.5  # times as many letters must OCR find to be taken instead of the text layer


def read_pdf(path: Path, ocr: str) -> list[str]:
    """The text of each page. Which pages were read through OCR is said.

    A page whose only text is a number or a stamp is a scan, and so is one whose letters are drawn as outlines: with
    ``ocr`` auto, pages that show more than their few letters account for go through OCR, and what finds more is taken.

    Raises:
        InputError: the file is no PDF, or needs a password.
    """
    pdfium = import_extra("pypdfium2", "a PDF deck")
    texts, scanned = [], []
    try:
        with pdfium.PdfDocument(path) as document:
            for number, page in enumerate(document, 1):
                text, by_ocr = _page_text(page, f"{path} page {number}", ocr)
                texts.append(text)
                scanned += [str(number)] if by_ocr else []
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise InputError(f"{path}: this PDF needs a password; save a copy without one") from None
        raise InputError(f"{path}: not readable as PDF: {one_line(error)}") from None
    if scanned:
        how = "have next to no text, and OCR is off" if ocr == "never" else "were read through OCR"
        print_note(f"{path}: pages {list_some(scanned, 20)} {how}")
    return texts


def _page_text(page: Any, where: str, ocr: str) -> tuple[str, bool]:
    """The text, and whether it is (or would have to be) of OCR."""
    text = page.get_textpage().get_text_range()
    letters = _letters(text)
    if ocr != "always" and (letters >= _MUCH_TEXT or not _shows_more(page, letters)):
        return text, False
    if ocr == "never":
        return text, True
    try:
        read = picture_text(page.render(scale=_scale(page, _DPI / 72)).to_numpy()[:, :, 2::-1], where)
    except ImportError:
        if ocr == "always" or not letters:
            raise
        return text, False
    better = ocr == "always" or _letters(read) > _MORE * letters
    return (read, True) if better else (text, False)


def _scale(page: Any, scale: float) -> float:
    return min(scale, _LONGEST / max(1.0, *page.get_size()))


def _letters(text: str) -> int:
    return sum(c.isalpha() for c in text)


def _shows_more(page: Any, letters: int) -> bool:
    """Whether a page shows more edges than its letters have: a scan, a picture, or letters drawn as outlines."""
    grey = page.render(scale=_scale(page, 1), grayscale=True).to_numpy().astype(np.int16)
    edges = int((np.abs(np.diff(grey.reshape(grey.shape[0], -1), axis=1)) > 64).sum())
    return edges > _EDGES_A_LETTER * letters + _FEW_EDGES
