"""Makes the pictures of docs/report.md: pages about the sample data set of scripts/make_sample.py.

Usage: python scripts/make_screenshots.py OUT, where OUT is the data set of the sample's records; see docs/report.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.report.report import ReportSettings, write_report

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
COLOURS = 128


def take(browser: Browser, page_file: Path, name: str, size: tuple[int, int], scheme: str) -> None:
    """Writes a picture of the beginning of a page to docs/images."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=map]")
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(output: str) -> None:
    """Takes all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page_file = Path(write_report(output, ReportSettings(), f"{scratch}/report.html").path)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        take(browser, page_file, "report", (1280, 1000), "light")
        take(browser, page_file, "report-dark", (1280, 1000), "dark")
        take(browser, page_file, "report-narrow", (390, 844), "light")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
