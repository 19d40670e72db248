"""The text of slides: plain text, PDF, PPTX, or pictures of slides through OCR.

PDF, PPTX and OCR need the packages of the extra ``slides``. Nothing here runs or fetches what a deck holds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sap2.errors import InputError
from sap2.slides.pictures import IMAGE_SUFFIXES, picture_text, read_pictures
from sap2.slides.presentations import PPTX_SUFFIXES, read_pptx
from sap2.tables import read_text

TEXT_SUFFIXES = (".txt", ".md")
DECK_SUFFIXES = (*TEXT_SUFFIXES, ".pdf", *PPTX_SUFFIXES, *IMAGE_SUFFIXES)
"""Names of files that are decks of slides, or slides."""
OCR_MODES = ("auto", "never", "always")
"""OCR of a deck: where its text layer holds less than is to be seen, never, or of everything. A picture needs it."""
_JUNK = {"thumbs.db", "desktop.ini"}


def read_deck(path: str | os.PathLike[str], ocr: str = "auto", notes: bool = False) -> list[str]:
    """The text of each slide, in order; a folder of pictures is a deck in the order in which a person counts.

    Args:
        path: .txt or .md (a form feed divides slides), .pdf, .pptx and its relatives, a picture, or a folder of them.
        ocr: one of :data:`OCR_MODES`.
        notes: take the speaker's notes of PPTX slides too.

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
        return [text for picture in pictures for text in _read_picture(picture, ocr)]
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return read_text(path).split("\f")
    if suffix in IMAGE_SUFFIXES:
        return _read_picture(path, ocr)
    if suffix == ".pdf":
        from sap2.slides.pdf import read_pdf

        return read_pdf(path, ocr)
    if suffix in PPTX_SUFFIXES:
        return read_pptx(path, ocr, notes)
    raise InputError(
        f"{path}: slides of this kind are not read; allowed: {', '.join(DECK_SUFFIXES)}, or a folder of pictures"
    )


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts names as a person counts: Slide2 before Slide10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def is_junk(path: Path) -> bool:
    """Whether a system put this file beside others: ``._slide1.png``, ``.DS_Store``, ``Thumbs.db``."""
    return path.name.startswith(".") or path.name.lower() in _JUNK


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_junk(path) and path.is_file()


def _read_picture(path: Path, ocr: str) -> list[str]:
    if ocr == "never":
        raise InputError(f"{path}: a picture has no text without OCR, and OCR is set to never")
    return [picture_text(page, str(path)) for page in read_pictures(path, str(path))]
