import struct

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from PIL import Image

from pipeline.images.decoder import ImageDecoder
from pipeline.images.headers import read_header
from tests import image_samples as samples
from tests.images.decoding import (
    AS_IT_IS,
    DECODER,
    bytes_of,
    header_refusal,
    in_the_middle,
    refusal,
    tensorflow_jpeg,
    tensorflow_resize,
)


@pytest.mark.parametrize("name", samples.JPEGS)
def test_jpeg_pixels_are_tensorflows(name):
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(samples.JPEGS[name])), tensorflow_jpeg(samples.JPEGS[name]))


@pytest.mark.parametrize(
    ("source", "target", "eighths"),
    [
        ((160, 320), (20, 24), 1),
        ((160, 320), (21, 24), 2),
        ((160, 320), (20, 81), 3),
        ((160, 320), (100, 100), 5),
        ((160, 320), (141, 20), 8),
        ((160, 320), (161, 20), 8),
        ((160, 320), (400, 400), 8),
    ],
)
def test_fast_takes_the_smallest_scale_that_is_not_below(source, target, eighths):
    data = samples.save(samples.pixels(height=source[0], width=source[1]), "JPEG")
    height, width = (side * eighths // 8 for side in source)
    reduced = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    assert reduced.shape == (height, width, 3)
    expected = tensorflow_resize(reduced, *target)
    np.testing.assert_allclose(ImageDecoder(*target, decode="fast")(data), expected, atol=5e-5, rtol=0)


def test_fast_scale_of_a_turned_image():
    exif = Image.Exif()
    exif[274] = 6
    data = samples.save(samples.pixels(height=80, width=320), "JPEG", exif=exif)
    reduced = simplejpeg.decode_jpeg(data, "RGB", min_height=10, min_width=40)
    decoder = ImageDecoder(40, 10, decode="fast", exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(decoder(data)), np.rot90(reduced, -1))


@pytest.mark.parametrize("name", samples.JPEGS)
@pytest.mark.parametrize("missing", [1, 2, 3, 30, 300])
def test_truncated_jpeg_of_every_kind(name, missing):
    assert refusal(samples.JPEGS[name][:-missing]).reason == "truncated"


def test_truncated_after_other_damage():
    data = samples.JPEGS["jpeg 4:4:4"]
    scan = data.index(b"\xff\xda")
    stray_bytes = data[:scan] + b"stray" + data[scan:]
    assert refusal(stray_bytes[:-100]).reason == "truncated"


@pytest.mark.parametrize("name", ["jpeg 4:4:4", "jpeg 4:2:0", "jpeg grey", "jpeg restart markers", "jpeg cmyk adobe"])
@pytest.mark.parametrize("damage", [b"\x55" * 20, b"\xff\x00" * 10, b"\xff\xd3", b"\xff\xd9"])
def test_jpeg_damage_that_tensorflow_tolerates(name, damage):
    data = in_the_middle(samples.JPEGS[name], damage)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), tensorflow_jpeg(data))


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc0", b"\xff\xda"])
def test_jpeg_with_stray_bytes_before_a_marker(marker):
    data = samples.JPEGS["jpeg 4:2:0"]
    place = data.index(marker)
    damaged = data[:place] + b"\x01\x02\x03" + data[place:]
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(damaged)), tensorflow_jpeg(damaged))


@pytest.mark.parametrize("damage", [b"\xff\xc0\0\x05", b"\xff\xd8", b"\xff\xc4\0\3\xff"])
def test_jpeg_damage_that_tensorflow_refuses(damage):
    data = in_the_middle(samples.JPEGS["jpeg 4:4:4"], damage)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tensorflow_jpeg(data)
    error = refusal(data)
    assert error.reason == "not_an_image"
    assert str(error).startswith("corrupt jpeg: ")


def test_progressive_jpeg_of_endless_scans():
    data = samples.JPEGS["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    assert DECODER(data[:-2] + data[last:-2] * 10 + b"\xff\xd9").shape == (20, 24, 3)
    error = refusal(data[:-2] + data[last:-2] * 500 + b"\xff\xd9")
    assert (error.reason, str(error)) == ("too_large", "a JPEG of more than 500 scans: save it again with fewer")


def test_jpeg_of_endless_exif_segments():
    data = samples.JPEGS["jpeg cmyk"]
    segment = b"\xff\xe1\0\x09Exif\0\0a"
    np.testing.assert_array_equal(DECODER(data[:2] + segment * 100 + data[2:]), DECODER(data))
    error = refusal(data[:2] + segment * 101 + data[2:])
    assert (error.reason, str(error)) == ("not_an_image", "corrupt jpeg: more than 100 EXIF segments")


def jpeg_with_frame(process: int, precision: int, components: int) -> bytes:
    frame = struct.pack(">HBHHB", 8 + 3 * components, precision, 8, 8, components) + bytes(3 * components)
    return b"\xff\xd8\xff" + bytes([process]) + frame


@pytest.mark.parametrize(
    ("process", "precision", "components", "arrived"),
    [
        (0xC3, 8, 3, "SOF3, 8 bits and 3"),  # lossless
        (0xC7, 8, 1, "SOF7, 8 bits and 1"),  # hierarchical
        (0xC1, 12, 3, "SOF1, 12 bits and 3"),
        (0xC0, 8, 2, "SOF0, 8 bits and 2"),
    ],
)
def test_jpeg_processes_that_are_not_taken(process, precision, components, arrived):
    error = header_refusal(jpeg_with_frame(process, precision, components))
    assert error.reason == "unsupported_format"
    assert str(error) == (
        f"a JPEG of process {arrived} components; "
        "expected a lossy one of 8 bits and 1, 3 or 4 components: convert it first"
    )


def test_jpeg_header_skips_what_libjpeg_skips():
    data = samples.JPEGS["jpeg 4:4:4"]
    padded = data[:2] + b"\xff\xff\xff" + data[3:20] + b"stray\xff\0bytes\xff\xd0\xff\x01" + data[20:]
    assert read_header(padded) == read_header(data)


def damage_of(data: bytes) -> list[str]:
    reports: list[str] = []
    AS_IT_IS(data, report_damage=reports.append)
    return reports


def second_half(data: bytes, content: bytes) -> bytes:
    """A JPEG whose pixel data ends in its middle, and goes on with `content` and an end marker."""
    scan = data.index(b"\xff\xda")
    return data[: (scan + len(data)) // 2] + content + b"\xff\xd9"


@pytest.mark.parametrize("name", samples.JPEGS)
def test_whole_images_are_not_reported(name):
    data = samples.JPEGS[name]
    assert damage_of(data) == []
    assert damage_of(data + b"more") == []
    assert damage_of(data.replace(b"JFIF\0\1", b"JFIF\0\7")) == []


@pytest.mark.parametrize("name", samples.JPEGS)
@pytest.mark.parametrize("content", [b"", bytes(400), b"\xff\x00" * 200], ids=["missing", "zeros", "ones"])
def test_half_an_image_is_decoded_and_reported(name, content):
    data = second_half(samples.JPEGS[name], content)
    (damage,) = damage_of(data)
    assert damage.startswith("damaged jpeg: Corrupt JPEG data: ")
    if name != "jpeg progressive":  # libjpeg smooths the blocks of incomplete scans, each version in its own way
        np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), tensorflow_jpeg(data))
    error = refusal(data, ImageDecoder(20, 24, on_damaged="fail"))
    assert (error.reason, str(error)) == ("truncated", f"{damage}; fetch the file again")


def test_missing_scans_are_reported():
    data = samples.JPEGS["jpeg progressive"]
    scans = [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)]
    assert len(scans) > 5
    for scan in scans[1:]:
        (damage,) = damage_of(data[:scan] + b"\xff\xd9")
        assert damage == "damaged jpeg: it ends before its last scan, so details are missing"


def test_stray_bytes_count_as_damage_only_among_pixels():
    data = samples.JPEGS["jpeg 4:2:0"]
    scan = data.index(b"\xff\xda")
    assert damage_of(data[:scan] + b"stray" + data[scan:]) == []
    (damage,) = damage_of(data[:-2] + bytes(50) + data[-2:])  # how many of them count depends on the machine
    assert damage.endswith("extraneous bytes before marker 0xd9")
