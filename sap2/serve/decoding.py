"""What the worker processes do: untrusted files to samples and to keywords, within limits.

A function here runs in a process of its own (:mod:`sap2.serve.workers`), which may die without harm.
"""

from __future__ import annotations

import dataclasses
import errno
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sap2.audio import open_recording
from sap2.audio_blocks import UnreadableError, claimed_seconds
from sap2.errors import InputError
from sap2.pipeline.segmentation import Cutting, cut_at_pauses
from sap2.pipeline.voice_activity import choose_detector
from sap2.serve.errors import TOO_LARGE, ApiError
from sap2.serve.kinds import TEXT
from sap2.serve.options import Limits
from sap2.slides.common import common_words
from sap2.slides.decks import read_deck
from sap2.slides.keywords import slide_keywords
from sap2.slides.pictures import IMAGE_SUFFIXES

_STEP = 1 << 20


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file of a request: where it lies, what the caller calls it, and what it is (:mod:`sap2.serve.kinds`)."""

    path: str
    name: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A recording, decoded and cut: a file of float32 samples, their number, and the pieces with speech."""

    path: str
    count: int
    spans: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Slide:
    """A slide: its text, and the words of it that are keywords."""

    text: str
    keywords: list[str]


def warm_up(vad: str | None) -> None:
    """Load what decoding needs, so that the first recording does not wait for it."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    cut_at_pauses(noise, 16_000, Cutting(1.0), choose_detector(vad))


def decode_recording(upload: Upload, rate: int, cutting: Cutting, vad: str | None, limits: Limits) -> Decoded:
    """Decode a recording and cut it at pauses.

    Raises:
        InputError: it cannot be read, or is silent.
        ApiError: it is too long.
    """
    _check_claim(upload, limits)
    try:
        samples = open_recording(upload.path, rate, name=upload.name)
        if not len(samples):
            raise InputError(f"{upload.name}: the audio is empty")
        if len(samples) > limits.audio_seconds * rate:
            raise _too_long(upload, limits)
        spans = cut_at_pauses(samples, rate, cutting, choose_detector(vad))
        raw = f"{upload.path}.samples"
        with Path(raw).open("wb") as stream:
            for first in range(0, len(samples), _STEP):
                stream.write(np.ascontiguousarray(samples[first : first + _STEP]).tobytes())
    except OSError as error:  # what is decoded has the limit of a file's size (sap2.serve.workers)
        if error.errno == errno.EFBIG:
            raise _too_long(upload, limits) from None
        raise
    return Decoded(raw, len(samples), spans)


def _check_claim(upload: Upload, limits: Limits) -> None:
    """Refuse a recording whose header says that it is too long, before it is decoded."""
    try:
        claimed = claimed_seconds(upload.path)
    except UnreadableError:
        return  # the reader will say why
    if claimed is not None and claimed > limits.audio_seconds + 1:
        raise _too_long(upload, limits)


def _too_long(upload: Upload, limits: Limits) -> ApiError:
    return ApiError(
        TOO_LARGE, f"{upload.name} is too long; allowed: {limits.audio_seconds / 60:g} minutes of audio", "file"
    )


def read_slides(upload: Upload, language: str, limits: Limits) -> list[Slide]:
    """The slides of a deck, a picture or a text.

    Raises:
        InputError: it cannot be read.
        ApiError: it is too large.
    """
    path = Path(upload.path)
    if path.suffix == ".pdf":
        _check_pdf(upload, limits)
    elif path.suffix == ".pptx":
        _check_pptx(upload, limits)
    elif upload.kind != TEXT and path.suffix in IMAGE_SUFFIXES:
        _check_picture(upload, limits)
    _limit_pictures(limits)
    texts = read_deck(path)
    if len(texts) > limits.pages:
        raise _too_many_pages(upload, len(texts), limits)
    common = common_words(language)
    found = slide_keywords(texts, common)
    return [Slide(text, keywords) for text, keywords in zip(texts, found, strict=True)]


def _check_pdf(upload: Upload, limits: Limits) -> None:
    from sap2.slides.extras import import_extra

    pdfium = import_extra("pypdfium2", "a PDF deck")
    try:
        with pdfium.PdfDocument(upload.path) as document:
            pages = len(document)
    except pdfium.PdfiumError:
        return  # the reader will say why
    if pages > limits.pages:
        raise _too_many_pages(upload, pages, limits)


def _too_many_pages(upload: Upload, pages: int, limits: Limits) -> ApiError:
    return ApiError(TOO_LARGE, f"{upload.name} has {pages} pages; allowed: {limits.pages}", "slides")


def _check_pptx(upload: Upload, limits: Limits) -> None:
    """Refuse what unpacks to too much, by the sizes in the archive; Python's reader reads no more than those say."""
    try:
        with zipfile.ZipFile(upload.path) as archive:
            entries: Sequence[zipfile.ZipInfo] = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.unpacked_bytes or len(entries) > 50 * limits.pages:
        raise ApiError(
            TOO_LARGE,
            f"{upload.name} unpacks to {unpacked >> 20} MiB in {len(entries)} parts; allowed: "
            f"{limits.unpacked_bytes >> 20} MiB in {50 * limits.pages}",
            "slides",
        )
    slides = sum(entry.filename.startswith("ppt/slides/slide") for entry in entries)
    if slides > limits.pages:
        raise _too_many_pages(upload, slides, limits)


def _check_picture(upload: Upload, limits: Limits) -> None:
    import PIL.Image

    _limit_pictures(limits)
    try:
        with PIL.Image.open(upload.path) as image:
            width, height = image.size
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise ApiError(
            TOO_LARGE, f"{upload.name} has too many pixels; allowed: {limits.pixels // 1_000_000} million", "slides"
        ) from None
    except Exception:  # of a damaged file: the reader will say why
        return
    if width * height > limits.pixels:
        raise ApiError(
            TOO_LARGE,
            f"{upload.name} has {width}×{height} pixels; allowed: {limits.pixels // 1_000_000} million",
            "slides",
        )
    if pages > limits.pages:
        raise _too_many_pages(upload, pages, limits)


def _limit_pictures(limits: Limits) -> None:
    """Pictures within a deck have the same limit: Pillow refuses them before it decodes them."""
    import warnings

    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = limits.pixels
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
