"""Decoders and checks that the tests of images share."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.core.errors import ImageError
from pipeline.core.failures import FAILURE_REASONS
from pipeline.images.decoder import ImageDecoder
from pipeline.images.headers import read_header
from tests import image_samples as samples

DECODER = ImageDecoder(20, 24)
AS_IT_IS = ImageDecoder(samples.HEIGHT, samples.WIDTH)


def refusal(data: bytes, decoder: ImageDecoder = DECODER) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decoder(data)
    assert caught.value.reason in FAILURE_REASONS
    assert "\n" not in str(caught.value)
    return caught.value


def bytes_of(decoded: np.ndarray) -> np.ndarray:
    """The decoded samples of 8 bits, from a result that was not resized."""
    scaled = decoded * 255
    assert np.abs(scaled - np.round(scaled)).max() < 1e-4
    return np.round(scaled).astype(np.uint8)


def tensorflow_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    scaled = tf.cast(pixels, tf.float32) / 255
    return tf.image.resize(scaled, (height, width), method="bilinear", antialias=False).numpy()


def tensorflow_jpeg(data: bytes) -> np.ndarray:
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()


def oriented(image_format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(image_format, {})
    return samples.save(samples.pixels(), image_format, exif=exif, **lossless)


def in_the_middle(data: bytes, damage: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + damage + data[middle + len(damage) :]


def claim_size(name: str, height: int, width: int) -> bytes:
    data = bytearray(samples.ONE_OF_EACH_FORMAT[name])
    if name == "jpeg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif name == "png":
        return bytes(data[:8]) + samples.png_chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]
    elif name == "gif":
        struct.pack_into("<HH", data, 6, width, height)
    elif name == "bmp":
        struct.pack_into("<ii", data, 18, width, height)
    elif name == "webp":
        content = b"\0" * 4 + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        riff = b"WEBPVP8X" + struct.pack("<I", 10) + content + data[12:]
        return b"RIFF" + struct.pack("<I", len(riff)) + riff
    elif name in ("avif", "heif"):
        struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
        while (crop := data.find(b"clap")) >= 0:  # it would bound the size
            data[crop : crop + 4] = b"free"
    else:
        return samples.tiff({256: (4, 1, struct.pack("<I", width)), 257: (4, 1, struct.pack("<I", height))})
    return bytes(data)


def header_refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_header(data)
    return caught.value
