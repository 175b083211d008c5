"""Measures the processor time of each step, in microseconds per image: `python -m benchmarks.stages`."""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks import data
from benchmarks.run import DEFAULT_MODULE
from pipeline.core.records import ImageRecord
from pipeline.embedding.embedder import Embedder
from pipeline.images.decoder import ImageDecoder
from pipeline.tfrecords.examples import embedding_rows, encode_rows, parse_example
from pipeline.tfrecords.framing import frame
from pipeline.tfrecords.tfrecord import Record, read_records

GROUP = 16
REPEATS = 5


def cost_us(function: Callable[[], object], images: int) -> float:
    """Returns the processor time of a call per image, in microseconds: the minimum of `REPEATS` calls."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times) / images * 1e6


def each(function: Callable[[bytes], object], images: Sequence[bytes]) -> Callable[[], None]:
    """Returns a function that calls another for each image and keeps no result."""

    def call() -> None:
        for image in images:
            function(image)

    return call


def read(paths: Sequence[str]) -> list[ImageRecord]:
    records = []
    for path in paths:
        with open(path, "rb") as stream:
            for item in read_records(stream):
                if isinstance(item, Record):
                    record = parse_example(
                        item.data, address="", source="", image_feature="image/encoded", key_feature="id"
                    )
                    if isinstance(record, ImageRecord):
                        records.append(record)
    return records


def measure_stages(images: Sequence[bytes], module: str) -> dict[str, float]:
    """Returns the cost of each step in microseconds."""
    found: dict[str, float] = {}
    count = len(images)
    with tempfile.TemporaryDirectory() as scratch:
        paths = data.write_tfrecords(images, count, Path(scratch, "records"))
        found["read and parse"] = cost_us(lambda: read(paths), count)
        records = read(paths)
    for precision in ("float32", "bfloat16"):
        embedder = Embedder.from_module(module, engine="openvino", precision=precision)
        assert embedder.spec is not None
        exact = embedder.spec.decoder
        batch = np.zeros((1, exact.height, exact.width, 3), np.float32)
        found[f"inference, {precision}"] = cost_us(each(lambda _: embedder.engine.infer(batch), images), count)  # noqa: B023
    fast = ImageDecoder(height=exact.height, width=exact.width, decode="fast")
    sizes = {"exact": {}, "fast": {"min_height": exact.height, "min_width": exact.width}}
    for decoder in (exact, fast):
        smallest = sizes[decoder.decode]
        jpeg = cost_us(each(lambda image: simplejpeg.decode_jpeg(image, "RGB", **smallest), images), count)  # noqa: B023
        whole = cost_us(each(lambda image: decoder(image, out=batch[0]), images), count)  # noqa: B023
        found[f"JPEG to pixels, {decoder.decode}"] = jpeg
        found[f"check, resize and scale, {decoder.decode}"] = whole - jpeg
    vectors = np.random.default_rng(0).random((GROUP, embedder.engine.dimension), np.float32)
    group = (records * GROUP)[:GROUP]

    def write() -> None:
        file = io.BytesIO()
        for _ in range(100):
            for rows in embedding_rows(group, vectors):
                file.write(b"".join(map(frame, encode_rows(rows))))

    found["write"] = cost_us(write, 100 * GROUP)
    return found


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="JPEGs; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    options = parser.parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images()
    print("| step | µs per image |\n| --- | --- |")
    for step, cost in measure_stages(images, options.module).items():
        print(f"| {step} | {cost:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
