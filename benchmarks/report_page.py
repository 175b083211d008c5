"""Measures the page about a data set: `python -m benchmarks.report_page [--images N] [--map umap]`.

Prints how long the command takes, the size of the page, and how long a browser takes until the search and the map work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import pipeline
from benchmarks import data
from benchmarks.report import describe_machine
from pipeline.core.config import RunConfig

MODULE = "untrained:mobilenet_v2_050_160"


@dataclass(frozen=True)
class PageCost:
    """The cost of a page.

    Attributes:
      images: number of vectors of the data set.
      seconds: duration of the command.
      size_bytes: of the page.
      search_s: from the opening of the page until the search works.
      map_s: likewise, until the map is drawn.
    """

    images: int
    seconds: float
    size_bytes: int
    search_s: float
    map_s: float


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--map", choices=("pca", "umap"), default="pca", help="default: pca")
    parser.add_argument("--chromium", default="/usr/bin/chromium", metavar="FILE", help="default: /usr/bin/chromium")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def write_crops(directory: Path, count: int) -> None:
    """Writes JPEG files that all differ: crops of generated images."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    images = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in data.generate_images()]
    for index in range(count):
        image = images[index % len(images)]
        top, left = (int(rng.integers(0, side // 3)) for side in image.shape[:2])
        _, encoded = cv2.imencode(".jpg", image[top : top + 250, left : left + 250], [cv2.IMWRITE_JPEG_QUALITY, 92])
        (directory / f"{index:06d}.jpg").write_bytes(encoded.tobytes())


def measure_page(output: Path, images: int, map_name: str, chromium: str) -> PageCost:
    """Makes the page of a data set and opens it."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipeline.report", output, f"--map={map_name}"], check=True)
    seconds = time.monotonic() - started
    page = output / "report.html"
    marks = read_marks(page, chromium)
    return PageCost(images, seconds, page.stat().st_size, marks["search-ready"], marks["map-ready"])


def read_marks(path: Path, chromium: str) -> dict[str, float]:
    """Opens a page in a browser; returns the seconds from there to each of its marks."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=map]", timeout=120_000)
        marks = page.evaluate("performance.getEntriesByType('mark').map((mark) => [mark.name, mark.startTime / 1000])")
        browser.close()
    return dict(marks)


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    with tempfile.TemporaryDirectory() as scratch:
        photos, output = Path(scratch, "photos"), Path(scratch, "out")
        write_crops(photos, options.images)
        pipeline.run(RunConfig.from_flags(input=str(photos), module=MODULE, output=str(output)))
        cost = measure_page(output, options.images, options.map, options.chromium)
    print(
        "| vectors | seconds | MB | search works after s | map after s |", "| --- | --- | --- | --- | --- |", sep="\n"
    )
    megabytes = cost.size_bytes / 1e6
    print(f"| {cost.images:,} | {cost.seconds:.1f} | {megabytes:.1f} | {cost.search_s:.2f} | {cost.map_s:.2f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"machine": describe_machine(), **dataclasses.asdict(cost)}
    (options.output / "report_page.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
