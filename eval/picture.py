"""A picture of a page of sap2 score or sap2 explain, such as docs/images/report.png.

    make quickstart
    python eval/picture.py runs/quickstart/report.html docs/images/report.png

Needs chromium in PATH and playwright (an extra: dev).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from sap2.commands.shared import Parser, positive, run_parser
from sap2.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-zygote", "--single-process")


def find_browser() -> str | None:
    """The program of a browser, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def take_picture(page: Path, picture: Path, width: int = 1240, height: int = 1500) -> None:
    """Write the first ``height`` pixels of a page that is ``width`` pixels wide as a PNG file.

    Raises:
        InputError: there is no such page, or no browser.
    """
    from playwright.sync_api import sync_playwright

    browser = find_browser()
    if browser is None:
        raise InputError(f"no browser: none of {', '.join(BROWSERS)} is in PATH")
    if not page.is_file():
        raise InputError(f"{page} does not exist; allowed: a page of sap2 score --html or sap2 explain --html")
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=browser, args=list(FLAGS), timeout=30_000)
        view = chromium.new_page(viewport={"width": width, "height": height})
        view.goto(page.absolute().as_uri())
        view.screenshot(path=picture)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="picture.py", description=__doc__)
    parser.add_argument("page", type=Path, help="page of sap2 score or explain --html")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=positive, default=1240, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=positive, default=1500, help="pixels (default: %(default)s)")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


def run(args: argparse.Namespace) -> None:
    """Take the picture."""
    take_picture(args.page, args.picture, args.width, args.height)


if __name__ == "__main__":
    sys.exit(main())
