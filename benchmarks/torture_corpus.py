"""Some 580 odd images: every format, depth, colour and damage.

The same versions of encoders write the same bytes, with two exceptions: the AVIF animation holds the time, and the LERC
encoder leaves bytes unset.
"""

import base64
import io
import pickle
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from benchmarks import torture_formats as formats
from benchmarks.torture_encoders import save
from benchmarks.torture_formats import BROKEN, UNKNOWN, OddImage, smooth


def make_corpus() -> list[OddImage]:
    """Returns all images. JPEGs and lossy WebPs have neither pixels nor reasons: TensorFlow decides on their truth."""
    makers: tuple[Callable[[], Iterator[OddImage]], ...] = (
        formats.jpegs,
        formats.pngs,
        formats.gifs,
        formats.bmps,
        formats.webps,
        formats.tiffs,
        formats.avifs,
        formats.heifs,
        _others,
        _mistaken,
    )
    whole = [image for make in makers for image in make()]
    images = [*whole, *_damaged({image.name: image for image in whole})]
    assert len({image.name for image in images}) == len(images)
    return images


def _others() -> Iterator[OddImage]:
    rgb = Image.fromarray(smooth())
    for kind in ("JPEG2000", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "ICNS", "EPS", "QOI"):
        image = rgb.resize((64, 64)) if kind in ("ICO", "ICNS") else rgb
        yield OddImage(f"other {kind}", save(image, kind), reasons=UNKNOWN | BROKEN)
    for name, data in {
        "JPEG XL": b"\xff\x0a\x7f\0\0", "JPEG XL box": b"\0\0\0\x0cJXL \r\n\x87\n", "SVG": b"<svg xmlns='x'/>",
        "Photoshop": b"8BPS\0\1" + bytes(30), "OpenEXR": b"\x76\x2f\x31\x01" + bytes(30),
        "DICOM": bytes(128) + b"DICM", "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    }.items():  # fmt: skip
        yield OddImage(f"other {name}", data, reasons=UNKNOWN)


def _mistaken() -> Iterator[OddImage]:
    data = save(smooth(), "JPEG")
    array = io.BytesIO()
    np.save(array, smooth())
    for name, content in {
        "nothing": b"", "base64": base64.b64encode(data),
        "data address": b"data:image/jpeg;base64," + base64.b64encode(data),
        "pickle": pickle.dumps(data), "array": array.getvalue(), "raw pixels": smooth().tobytes(),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "html": b"<!DOCTYPE html><html>404",
        "json": b'{"image": 1}', "hex": data.hex().encode(), "utf-8": data.decode("latin-1").encode(),
        "replaced": data.decode("utf-8", "replace").encode(), "zeros": bytes(1000), "text": b"just a text",
        "address": b"https://example.com/a.jpg", "repr": repr(data).encode(), "zlib": zlib.compress(data),
        "line break first": b"\n" + data, "pdf": b"%PDF-1.7", "reversed": data[::-1],
    }.items():  # fmt: skip
        yield OddImage(f"mistaken {name}", content, reasons=BROKEN)


DAMAGED = (
    "jpeg 4:420 q75", "jpeg 4:444 q75 progressive", "jpeg 4:420 q75 restart", "jpeg grey", "jpeg cmyk adobe",
    "png colour 2 of 8 bits", "png colour 3 of 8 bits", "png colour 6 of 16 bits", "gif of 256 colours",
    "bmp of 24 bits",
    "bmp fields argb header 108", "webp q60 m4", "webp lossless alpha", "tiff < 8 bits 3  zlib",
    "tiff < 16 bits 2 unspecified zlib",
    "tiff >big 8 bits 3  lzw", "avif 4:2:0 q60", "heif 64x64 420",
)  # fmt: skip


def _damaged(whole: dict[str, OddImage]) -> Iterator[OddImage]:
    """Yields damaged versions; a decoder refuses them, or says that they are damaged, unless no pixel is wrong."""
    for name in DAMAGED:
        image = whole[name]
        size = len(image.data)
        middle = size * 6 // 10
        for share in (2, 10, 50, 90, 99):
            yield OddImage(
                f"{name}: {share} %", image.data[: size * share // 100], image.pixels, image.tolerance, BROKEN
            )
        for what, data in {
            "last byte missing": image.data[:-1],
            "zeros after the middle": image.data[:middle] + bytes(size - middle),
            "zeros in the middle": image.data[:middle] + bytes(20) + image.data[middle + 20 :],
            "bytes missing in the middle": image.data[:middle] + image.data[middle + 9 :],
            "bytes too many in the middle": image.data[:middle] + b"\x5a\xa5" * 5 + image.data[middle:],
        }.items():
            yield OddImage(f"{name}: {what}", data, image.pixels, image.tolerance, BROKEN)
        if name.startswith("jpeg"):
            yield OddImage(f"{name}: half, with an end", image.data[:middle] + b"\xff\xd9", reasons=BROKEN)
            zeros = image.data[:middle] + bytes(size - middle - 2) + b"\xff\xd9"
            yield OddImage(f"{name}: zeros after the middle, with an end", zeros, reasons=BROKEN)


def mutate(images: list[OddImage], count: int, seed: int) -> Iterator[OddImage]:
    """Yields randomly damaged images, without a truth; the same ones for the same images and seed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = images[rng.integers(len(images))]
        data = bytearray(image.data)
        for _ in range(rng.integers(1, 5)):
            size = max(1, len(data))
            # Headers are short, but decide most.
            place = int(rng.integers(min(size, 200)) if rng.random() < 0.4 else rng.integers(size))
            length = int(rng.integers(1, 40))
            kind = rng.integers(6)
            if kind == 0:
                data[place : place + 1] = bytes((int(rng.integers(256)),))
            elif kind == 1:
                data[place : place + 1] = bytes((data[place] ^ (1 << int(rng.integers(8))),)) if data else b"\0"
            elif kind == 2:
                del data[place : place + length]
            elif kind == 3:
                data[place:place] = data[place : place + length]
            elif kind == 4:
                data[place : place + length] = bytes(length)
            else:
                del data[len(data) - length :]
        yield OddImage(f"{number}: {image.name}", bytes(data))
