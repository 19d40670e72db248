"""Self-contained HTML pages: a template, its style and script, and what they show as JSON.

The pages show texts that come from models and slides. They go into a page as JSON in which no character can end the
script element, and the page's own script puts them on screen as text, never as markup.
"""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any

from sap2.files import atomic_write

SHARED = Path(__file__).with_name("pages")
"""Style and script that all pages begin with, without their suffixes."""
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def write_page(path: str | os.PathLike[str], template: Path, title: str, data: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        template: with ``@@TITLE@@``, ``@@STYLE@@``, ``@@SCRIPT@@`` and ``@@DATA@@``; its style and script are in the
            files of the same name.
        data: what the page's script reads, as JSON.
    """
    page = template.read_text(encoding="utf-8")
    for mark, suffix in (("@@STYLE@@", ".css"), ("@@SCRIPT@@", ".js")):
        parts = [base.with_suffix(suffix).read_text(encoding="utf-8") for base in (SHARED, template)]
        page = page.replace(mark, "".join(parts))
    before, after = page.split("@@DATA@@")
    with atomic_write(path) as stream:
        stream.write(before.replace("@@TITLE@@", escape(title)))
        stream.write(script_json(data))
        stream.write(after)


def script_json(data: Any) -> str:
    """JSON that is safe inside a script element: ASCII only, and without the characters of markup."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return text
