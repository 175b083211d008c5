"""Input that is broken in every way we could think of: each is told, and costs its neighbours nothing."""

import dataclasses
import gzip
import os
import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.failures import Failure
from pipeline.dataset.reader import read_embeddings, read_failures
from pipeline.job.summary import Summary
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord, png_bytes
from tests.image_samples import ONE_OF_EACH_FORMAT, pixels, png_chunk, save
from tests.inputs.archives import make_tar

MAX_IMAGE_BYTES = 200_000
GOOD = [jpeg_bytes(seed=seed) for seed in range(20)]
JPEG = save(pixels(height=60, width=80), "JPEG")
PNG = png_bytes()


def flip(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def jpeg_of(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    return JPEG[: start + 5] + struct.pack(">HH", height, width) + JPEG[start + 9 :]


TENTHS = range(1, 10)
IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    **{f"jpeg-{n}-tenths.jpg": (JPEG[: len(JPEG) * n // 10], "truncated") for n in TENTHS},
    **{f"png-{n}-tenths.png": (PNG[: len(PNG) * n // 10], "truncated") for n in TENTHS},
    **{
        f"half-{name}.{name}": (data[: len(data) // 2], "truncated")
        for name, data in ONE_OF_EACH_FORMAT.items()
        if name not in ("jpeg", "png")
    },
    "one-byte.jpg": (JPEG[:1], "not_an_image"),
    "text.jpg": (b"This is not an image.\n", "not_an_image"),
    "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
    "zeros.png": (bytes(5000), "not_an_image"),
    "noise.jpg": (np.random.default_rng(0).bytes(5000), "not_an_image"),
    "drawing.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
    "header.heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "not_an_image"),
    "photo.jxl.jpg": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200), "unsupported_format"),
    "bad-header-checksum.png": (flip(PNG, PNG.index(b"IHDR") + 13 + 4), "not_an_image"),
    "bad-pixels-checksum.png": (flip(PNG, PNG.index(b"IEND") - 8), "not_an_image"),
    "damaged-pixels.png": (flip(PNG, PNG.index(b"IDAT") + 30), "not_an_image"),
    "no-pixels.png": (png_of(40, 40)[: -16 - len(zlib.compress(b"\0" * 1000))], "truncated"),
    "60000x60000.png": (png_of(60_000, 60_000), "too_large"),
    "60000x60000.jpg": (jpeg_of(60_000, 60_000), "too_large"),
    "no-width.jpg": (jpeg_of(0, 40), "not_an_image"),
    "too-many-bytes.jpg": (JPEG + bytes(MAX_IMAGE_BYTES), "too_large"),
}
RECORDS: dict[str, tuple[bytes, str]] = {
    "no image": (make_example({"key": "no image"}), "missing_feature"),
    "no key": (make_example({"image": JPEG}), "missing_feature"),
    "a number for an image": (make_example({"key": "a number for an image", "image": 5}), "missing_feature"),
    "a fraction for an image": (make_example({"key": "a fraction for an image", "image": 0.5}), "missing_feature"),
    "two images": (make_example({"key": "two images", "image": [JPEG, JPEG]}), "missing_feature"),
    "image without values": (make_example({"key": "image without values", "image": []}), "missing_feature"),
    "two keys": (make_example({"key": ["a", "b"], "image": JPEG}), "missing_feature"),
    "zero bytes": (b"", "missing_feature"),
    "no Example": (b"\xff" * 40, "corrupt_record"),
    "half an Example": (make_example({"key": "half", "image": JPEG})[:500], "corrupt_record"),
    "empty image": (make_example({"key": "empty image", "image": b""}), "empty"),
    "text": (make_example({"key": "text", "image": "This is not an image."}), "not_an_image"),
    "half an image": (make_example({"key": "half an image", "image": JPEG[:700]}), "truncated"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    summary: Summary
    keys: list[str]
    failures: dict[str, Failure]


def run(folder: Path, module: Path, **flags: object) -> Outcome:
    output = str(folder / "out")
    summary = pipeline.run(
        RunConfig.from_flags(
            input=str(folder / "in"),
            output=output,
            module=str(module),
            engine="tensorflow",
            image_feature="image",
            key_feature="key",
            max_image_bytes=MAX_IMAGE_BYTES,
            max_failure_rate=1.0,
            **flags,
        )
    )
    keys = [key.decode() for batch in read_embeddings(output) for key in batch["key"].to_pylist()]
    failures = list(read_failures(output))
    by_key = {failure.key.decode(): failure for failure in failures}
    assert len(by_key) == len(failures)
    assert summary.records == summary.embedded + summary.failed
    assert (summary.embedded, summary.failed) == (len(keys), len(failures))
    assert summary.failures_by_reason == Counter(failure.reason for failure in failures)
    assert not any("\n" in failure.message or not failure.message for failure in failures)
    return Outcome(summary, sorted(keys), by_key)


def good_example(name: str, index: int = 0) -> bytes:
    return make_example({"key": name, "image": GOOD[index]})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, tiny_module: Path) -> Outcome:
    """A directory of broken images, each with a good neighbour."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "in").mkdir()
    for index, (name, (data, _)) in enumerate(IMAGES.items()):
        (folder / "in" / name).write_bytes(data)
        (folder / "in" / f"good-{index:02d}.jpg").write_bytes(GOOD[index % len(GOOD)])
    os.symlink("nowhere", folder / "in/dangling.jpg")
    return run(folder, tiny_module)


@pytest.mark.parametrize("name", IMAGES)
def test_a_broken_image_is_a_failure(images, name):
    failure = images.failures[name]
    assert failure.reason == IMAGES[name][1]
    assert failure.stage == ("read" if name == "too-many-bytes.jpg" else "decode")
    assert failure.source.endswith(f"/in/{name}")


def test_an_image_that_cannot_be_read_is_a_failure(images):
    failure = images.failures["dangling.jpg"]
    assert (failure.stage, failure.reason, failure.message) == ("read", "read_error", "No such file or directory")


def test_the_images_beside_broken_ones_are_embedded(images):
    assert images.keys == [f"good-{index:02d}.jpg" for index in range(len(IMAGES))]
    assert len(images.failures) == len(IMAGES) + 1


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, tiny_module: Path) -> tuple[Outcome, dict[str, str]]:
    """Broken records, each with a good neighbour, and the key that each one's failure should have."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "in").mkdir()
    content, keys = b"", {}
    for index, (name, (data, _)) in enumerate(RECORDS.items()):
        has_key = name.encode() in data
        keys[name] = name if has_key else f"broken.tfrecord@{len(content)}"
        content += make_tfrecord([data, good_example(f"good {index:02d}", index)])
    (folder / "in/broken.tfrecord").write_bytes(content)
    return run(folder, tiny_module), keys


@pytest.mark.parametrize("name", RECORDS)
def test_a_broken_record_is_a_failure(records, name):
    outcome, keys = records
    failure = outcome.failures[keys[name]]
    assert failure.reason == RECORDS[name][1]
    assert failure.stage == ("decode" if failure.reason in ("empty", "not_an_image", "truncated") else "read")
    assert re.search(r"/in/broken\.tfrecord@\d+$", failure.source)


def test_the_records_beside_broken_ones_are_embedded(records):
    outcome, keys = records
    assert outcome.keys == [f"good {index:02d}" for index in range(len(RECORDS))]
    assert outcome.failures.keys() == set(keys.values())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_module: Path) -> Outcome:
    """TFRecord files that are damaged, and whole ones beside them."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "in").mkdir()

    def four(name: str) -> list[bytes]:
        return [make_tfrecord([good_example(f"{name} {index}", index)]) for index in range(4)]

    def damaged(name: str, offset: int) -> bytes:
        first, second, third, fourth = four(name)
        return first + flip(second, offset) + third + fourth

    contents = {
        "whole.tfrecord": b"".join(four("whole")),
        "empty.tfrecord": b"",
        "text.tfrecord": b"This is not a TFRecord, whatever its name says.\n" * 20,
        "damaged-length.tfrecord": damaged("damaged-length", 3),
        "damaged-data.tfrecord": damaged("damaged-data", 300),
        "damaged-start.tfrecord": flip(b"".join(four("damaged-start")), 8),
        "truncated.tfrecord": b"".join(four("truncated"))[:-100],
        "zeros.tfrecord": b"".join(four("zeros")) + bytes(4096),
        "whole.tfrecord.gz": gzip.compress(b"".join(four("whole.gz"))),
        "truncated.tfrecord.gz": gzip.compress(b"".join(four("truncated.gz")), 0)[:-600],
        "not-gzip.tfrecord.gz": b"".join(four("not-gzip")),
        "empty.tfrecord.gz": b"",
        "damaged.tfrecord.gz": gzip.compress(damaged("damaged.gz", 300)),
    }
    for name, content in contents.items():
        (folder / "in" / name).write_bytes(content)
    return run(folder, tiny_module)


@pytest.mark.parametrize(
    ("name", "embedded", "key"),
    [
        ("whole", [0, 1, 2, 3], None),
        ("whole.gz", [0, 1, 2, 3], None),
        ("damaged-length", [0, 2, 3], "damaged-length.tfrecord@"),
        ("damaged-data", [0, 2, 3], "damaged-data.tfrecord@"),
        ("damaged-start", [1, 2, 3], "damaged-start.tfrecord@0"),
        ("truncated", [0, 1, 2], "truncated.tfrecord@"),
        ("zeros", [0, 1, 2, 3], "zeros.tfrecord@"),
        ("truncated.gz", [0, 1, 2], "truncated.tfrecord.gz@"),
        ("damaged.gz", [0, 2, 3], "damaged.tfrecord.gz@"),
        ("text", [], "text.tfrecord@0"),
        ("not-gzip", [0, 1, 2, 3], ""),
    ],
)
def test_what_can_be_made_out_of_a_damaged_file_is_embedded(files, name, embedded, key):
    assert [found for found in files.keys if found.rpartition(" ")[0] == name] == [f"{name} {i}" for i in embedded]
    file = key.partition("@")[0] if key else f"{name}.tfrecord"
    failures = [failure for found, failure in files.failures.items() if found.partition("@")[0] == file]
    assert len(failures) == (1 if key else 0)
    for failure in failures:
        assert failure.key.decode().startswith(key)
        assert (failure.stage, failure.reason) == ("read", "corrupt_record")


def test_there_are_no_other_failures(files):
    assert sorted(found.partition("@")[0] for found in files.failures) == [
        "damaged-data.tfrecord",
        "damaged-length.tfrecord",
        "damaged-start.tfrecord",
        "damaged.tfrecord.gz",
        "empty.tfrecord.gz",
        "text.tfrecord",
        "truncated.tfrecord",
        "truncated.tfrecord.gz",
        "zeros.tfrecord",
    ]


NO_RECORDS = {
    "text.tfrecord": (b"This is not a TFRecord.", "is no TFRecord"),
    "empty.tfrecord": (b"", "is empty"),
    "photo.tfrecord": (JPEG, "is no TFRecord, but for --input_format=images by its first bytes"),
    "text.tfrecord.gz": (gzip.compress(b"This is not a TFRecord."), "is no TFRecord"),
    "tar.tfrecord": (
        make_tar([("a.jpg", JPEG)]),
        "is no TFRecord, but for --input_format=webdataset by its first bytes",
    ),
    "header.tfrecord": (make_tfrecord([good_example("a")])[:12], "is no TFRecord"),
}


@pytest.mark.parametrize("name", NO_RECORDS)
def test_where_no_record_can_be_made_out_the_run_is_refused(tmp_path, tiny_module, name):
    content, what = NO_RECORDS[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    text = (
        f"no records: {tmp_path}/in/{name} {what}; expected image files, TFRecords of tf.train.Example, tar or Parquet "
        "files; see --input_format"
    )
    with pytest.raises(InputError, match=f"^{re.escape(text)}$") as error:
        run(tmp_path, tiny_module)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()
