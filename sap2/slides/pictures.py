"""Pictures of slides, and the text in them through OCR (rapidocr, whose wheel carries its models).

Whatever a picture is made of, it becomes 8-bit RGB as a person sees it: transparency on white, palettes and CMYK
resolved, 16 bits scaled, turned as the camera says. Nothing is fetched.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sap2.errors import InputError, one_line, print_note
from sap2.slides.extras import import_extra

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".heic", ".heif"),
)
_LONGEST = 2600  # pixels of a side that OCR gets; it makes them smaller anyway
_SHORTEST = 12  # pixels of a side in which a letter may stand
_MAX_RATIO = 40  # of the sides of a picture that can be a slide


def read_pictures(source: Path | bytes, where: str) -> list[np.ndarray]:
    """The pages of a picture as (H, W, 3) RGB; one but for a TIFF of several pages.

    Args:
        source: the file, or what is in it.
        where: its name for the messages.

    Raises:
        InputError: it is not readable as a picture.
    """
    import PIL.Image

    _know_heic(where)
    try:
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            pages = []
            for number in range(count):
                image.seek(number)
                pages.append(_as_seen(image))
            return pages
    # Pillow's readers of damaged files raise what they come upon
    except Exception as error:
        raise InputError(f"{where}: not readable as a picture: {one_line(error)}") from None


def picture_text(pixels: np.ndarray, where: str) -> str:
    """The lines of text in a picture (H, W, 3) RGB; empty, and said, where it has no shape of a slide.

    Raises:
        ImportError: OCR is not installed; the message says how to install it.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _SHORTEST or max(height, width) > _MAX_RATIO * min(height, width):
        print_note(f"{where}: {width}×{height} pixels are no slide; passed over")
        return ""
    try:
        found = _ocr_engine()(_not_too_large(pixels)[:, :, ::-1])  # it takes BGR
    except ImportError:
        raise
    except Exception as error:  # of OpenCV and onnxruntime, about a picture that they cannot take
        print_note(f"{where}: OCR fails on this picture ({type(error).__name__}: {one_line(error)}); passed over")
        return ""
    return "\n".join(found.txts or ())


@functools.cache
def _ocr_engine() -> Callable[[Any], Any]:
    module = import_extra("rapidocr", "a slide without a text layer")
    return module.RapidOCR(params={"Global.log_level": "critical"})


def _know_heic(where: str) -> None:
    if where.lower().endswith((".heic", ".heif")):
        import_extra("pillow_heif", "a HEIC picture").register_heif_opener()


def _as_seen(image: Image) -> np.ndarray:
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(np.asarray(image, dtype=np.float64))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = PIL.Image.new("RGBA", above.size, "white")
        image.alpha_composite(above)
    return np.asarray(image.convert("RGB"))


def _not_too_large(pixels: np.ndarray) -> np.ndarray:
    import numpy as np
    import PIL.Image

    if max(pixels.shape) <= _LONGEST:
        return pixels
    image = PIL.Image.fromarray(pixels)
    image.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(image)


def _eight_bits(values: np.ndarray) -> Image:
    """16 or 32 bits a pixel in shades of grey to 8 bits, by the range that is used."""
    import numpy as np
    import PIL.Image

    values = np.nan_to_num(values)
    top = max(float(values.max(initial=0.0)), 1e-9)
    scale = 1.0 if 1.0 < top <= 255 else 255 / (65535 if 255 < top <= 65535 else top)
    return PIL.Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))
