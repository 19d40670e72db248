"""Packages of the extra ``slides``, imported when a deck needs one."""

from __future__ import annotations

import importlib
from types import ModuleType

from sap2.errors import MissingExtraError

_PACKAGES = {
    "pypdfium2": "pypdfium2",
    "pptx": "python-pptx",
    "rapidocr": "rapidocr",
    "pillow_heif": "pillow-heif",
}


def import_extra(module: str, what: str) -> ModuleType:
    """The module, or an error that says what to install for ``what``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(what, _PACKAGES[module], "slides") from None
