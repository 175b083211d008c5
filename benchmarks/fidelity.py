"""Measures the effect of engine, precision and decoding on the vectors: `python -m benchmarks.fidelity`.

The reference is `--engine=tensorflow --decode=exact`. For a classifier, `--signature` and `--output_key` name its
logits; the table then shows how often the first class stays the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import data
from benchmarks.run import DEFAULT_MODULE
from benchmarks.vectors import relative_differences
from pipeline import Embedder
from pipeline.core.records import ImageRecord

VARIANTS: Mapping[str, Mapping[str, str]] = {
    "openvino, float32, exact": {"engine": "openvino"},
    "openvino, bfloat16, exact": {"engine": "openvino", "precision": "bfloat16"},
    "openvino, float32, fast": {"engine": "openvino", "decode": "fast"},
    "openvino, bfloat16, fast": {"engine": "openvino", "precision": "bfloat16", "decode": "fast"},
}
REFERENCE = {"engine": "tensorflow"}


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """The difference of vectors from the reference.

    Attributes:
      median: of the images' relative L2 differences.
      largest: of the same.
      nearest_kept: share of images with the same nearest other image, by cosine similarity, as in the reference.
      first_kept: share of images with the largest value at the same index as in the reference.
    """

    median: float
    largest: float
    nearest_kept: float
    first_kept: float


def compare(vectors: np.ndarray, reference: np.ndarray) -> Fidelity:
    """Compares vectors float32 [N, D] with those of the reference, row by row."""
    relative = relative_differences(vectors, reference)
    same = _nearest(vectors) == _nearest(reference)
    first = vectors.argmax(axis=1) == reference.argmax(axis=1)
    return Fidelity(float(np.median(relative)), float(relative.max()), float(same.mean()), float(first.mean()))


def _nearest(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


def embed(images: Sequence[bytes], module: str, **settings: str) -> np.ndarray:
    """Returns the vectors float32 [N, D] of images; all must be decodable."""
    records = [ImageRecord(str(number).encode(), "", image) for number, image in enumerate(images)]
    with Embedder.from_module(module, **settings) as embedder:
        rows = [rows for batch in embedder.stream(records) for rows in batch.rows]
    return np.concatenate([item.column("embedding").flatten().to_numpy().reshape(item.num_rows, -1) for item in rows])


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--signature", metavar="NAME")
    parser.add_argument("--output_key", metavar="NAME")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images()
    function = {name: getattr(options, name) for name in ("signature", "output_key") if getattr(options, name)}
    reference = embed(images, options.module, **function, **REFERENCE)
    print("| variant | relative L2, median (max) | nearest image kept | largest value kept |")
    print("| --- | --- | --- | --- |")
    for label, settings in VARIANTS.items():
        found = compare(embed(images, options.module, **function, **settings), reference)
        kept = f"{found.nearest_kept:.1%} | {found.first_kept:.1%}"
        print(f"| {label} | {found.median:.1e} ({found.largest:.1e}) | {kept} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
