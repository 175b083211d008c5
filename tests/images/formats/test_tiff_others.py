"""TIFFs that Pillow does not decode, or decodes wrongly."""

import io
import struct
import sys

import cv2
import numpy as np
import pytest
import tifffile

from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import bytes_of, refusal

AS_IT_IS = ImageDecoder(samples.HEIGHT, samples.WIDTH)


def write(pixels: np.ndarray, *, byteorder: str = "<", bigtiff: bool = False, **tags: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=bigtiff) as tiff:
        tiff.write(pixels, metadata=None, **tags)
    return file.getvalue()


def random(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """The colours of samples [H, W, S], by definition."""
    upper = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return np.repeat(upper[..., :1], 3, axis=-1) if upper.shape[-1] < 3 else upper[..., :3]


SHAPE = (samples.HEIGHT, samples.WIDTH)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_byte_orders_depths_and_channels(byteorder, bigtiff, compression, dtype, channels):
    pixels = random((*SHAPE, channels), dtype)
    tags = {"photometric": "minisblack" if channels < 3 else "rgb", "compression": compression}
    if channels in (2, 4):
        tags["extrasamples"] = ["unassalpha"]
    data = write(pixels[..., 0] if channels == 1 else pixels, byteorder=byteorder, bigtiff=bigtiff, **tags)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), as_rgb(pixels))


@pytest.mark.parametrize("extra", ["assocalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_another_channel_is_opencvs(extra, dtype):
    pixels = random((*SHAPE, 2), dtype)
    data = write(pixels, photometric="minisblack", extrasamples=[extra], compression="zlib")
    decoded = bytes_of(AS_IT_IS(data))
    np.testing.assert_array_equal(decoded, as_rgb(pixels))
    np.testing.assert_array_equal(decoded[..., 0], cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes(byteorder, dtype, channels, compression):
    pixels = random((*SHAPE, channels), dtype)
    tags = {"photometric": "minisblack" if channels == 2 else "rgb", "compression": compression}
    if channels != 3:
        tags["extrasamples"] = ["unassalpha"]
    data = write(np.moveaxis(pixels, -1, 0), byteorder=byteorder, planarconfig="separate", **tags)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), as_rgb(pixels))


LOSSLESS = ["webp", "jpeg2000", "jpegxl", "lerc", "png", "zstd", "lzma"]


@pytest.mark.parametrize(
    ("compression", "white_is_zero"),
    [*((name, False) for name in LOSSLESS), *((name, True) for name in LOSSLESS if name != "webp")],  # has no grey
)
def test_rare_compressions(compression, white_is_zero):
    if white_is_zero:
        pixels, photometric = random(SHAPE, np.uint8), "miniswhite"
    else:
        pixels, photometric = random((*SHAPE, 3), np.uint8), "rgb"
    options = {"lossless": True} if compression in ("webp", "jpegxl") else {}
    data = write(pixels, photometric=photometric, compression=compression, compressionargs=options)
    expected = ~np.repeat(pixels[..., None], 3, axis=-1) if white_is_zero else pixels
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), expected)


def with_compression(code: int) -> bytes:
    data = bytearray(write(samples.pixels(), photometric="rgb"))
    entry = data.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", data, entry + 8, code)
    return bytes(data)


@pytest.mark.parametrize(
    ("code", "name"), [(50013, "unknown"), (34713, "Nikon NEF"), (32908, "PixarFilm"), (65000, "unknown")]
)
def test_compressions_without_a_decoder_are_named(code, name):
    error = refusal(with_compression(code))
    assert (error.reason, str(error)) == (
        "unsupported_format",
        f"a TIFF of compression {code} ({name}), 3 samples of 8 bits; convert it to PNG or JPEG",
    )


@pytest.mark.parametrize("package", ["tifffile", "imagecodecs"])
def test_the_extra_is_named(package, monkeypatch):
    data = write(samples.pixels(), photometric="rgb", compression="jpegxl")
    if package == "tifffile":
        monkeypatch.setitem(sys.modules, package, None)
    else:  # as tifffile says without imagecodecs
        error = ValueError("<COMPRESSION.JPEGXL: 50002> requires the 'imagecodecs' package")
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: (_ for _ in ()).throw(error))
    error = refusal(data)
    assert (error.reason, str(error)) == (
        "unsupported_format",
        "a TIFF of compression 50002 (JPEG XL), 3 samples of 8 bits: "
        "pip install 'embedding-pipeline[tiff]', or convert it to PNG or JPEG",
    )


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("channels", [2, 3])
def test_truncated_and_damaged(compression, channels):
    photometric = "minisblack" if channels == 2 else "rgb"
    extra = {"extrasamples": ["unspecified"]} if channels == 2 else {}
    data = write(random((*SHAPE, channels), np.uint16), photometric=photometric, compression=compression, **extra)
    assert refusal(data[:-3000]).reason == "truncated"
    if compression == "zlib":
        middle = len(data) * 3 // 4
        assert refusal(data[:middle] + bytes(100) + data[middle + 100 :]).reason == "not_an_image"


def test_orientation_of_what_tifffile_decodes():
    pixels = random((*SHAPE, 3), np.uint8)
    data = write(pixels, photometric="rgb", compression="png", extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), pixels)
    upright = ImageDecoder(samples.WIDTH, samples.HEIGHT, exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(upright(data)), np.rot90(pixels, -1))
