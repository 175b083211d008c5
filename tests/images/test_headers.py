import io
import struct
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import ImageError
from pipeline.images.headers import ImageHeader, read_header
from tests import image_samples as samples
from tests.images.decoding import header_refusal


@pytest.mark.parametrize("name", samples.ALL)
def test_header_gives_format_and_size(name):
    assert read_header(samples.ALL[name]) == ImageHeader(name.split()[0], samples.HEIGHT, samples.WIDTH)


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_header_needs_no_pixels(name):
    sizes = {"jpeg": 700, "png": 33, "gif": 13, "bmp": 30, "webp": 0, "tiff": 0, "avif": 0, "heif": 0}
    data = samples.ONE_OF_EACH_FORMAT[name]
    header = read_header(data[: sizes[name] or None])
    assert (header.height, header.width) == (samples.HEIGHT, samples.WIDTH)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon CR3"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f\0\0", "JPEG 2000"),
        (b"\xff\x0a\xfa\x1f\x41\x91", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\x01\0\0\0\0\0\0\0\x03", "Photoshop"),
        (samples.save(Image.new("RGBA", (16, 16)), "ICO"), "ICO or CUR"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', "SVG"),
        (b'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<svg width="4" height="4"></svg>', "SVG"),
        (samples.save(Image.new("RGB", (2, 2)), "PPM"), "PNM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"\x76\x2f\x31\x01\x02\0\0\0", "OpenEXR"),
        (samples.save(Image.new("RGB", (4, 4)), "DDS"), "DDS"),
        (b"qoif\0\0\0\x04\0\0\0\x04\x03\0", "QOI"),
        (b"icns\0\0\0\x08", "ICNS"),
        (b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0", "DICOM"),
    ],
)
def test_other_image_formats_are_named(data, name):
    error = header_refusal(data)
    assert error.reason == "unsupported_format"
    assert str(error) == f"a {name} image; expected JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC: convert it first"


def wav_file() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(100))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"just some text, named photo.jpg",
        b"BMX bikes for sale, and more than thirty bytes of it",
        b"\n" + samples.ONE_OF_EACH_FORMAT["jpeg"],
        b"\xff\xd8",
        b"\0",
        wav_file(),
        b"GIF88a" + bytes(20),
    ],
)
def test_what_is_no_image(data):
    error = header_refusal(data)
    assert error.reason == "not_an_image"
    assert (
        str(error) == f"no known image begins with {data[:8]!r}; expected JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC"
    )


def test_no_bytes():
    error = header_refusal(b"")
    assert (error.reason, str(error)) == ("empty", "0 bytes; expected JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xd9", "corrupt jpeg: no frame header comes before the image data"),
        (b"\xff\xd8\xff\xda\0\x02", "corrupt jpeg: no frame header comes before the image data"),
        (
            b"\x89PNG\r\n\x1a\n" + samples.png_chunk(b"CgBI", bytes(8)),
            "corrupt png: the first chunk is b'CgBI'; expected b'IHDR'",
        ),
        (b"RIFF\x20\0\0\0WEBPANIM" + bytes(30), "corrupt webp: the first chunk is b'ANIM'; expected VP8, VP8L or VP8X"),
        (b"GIF89a" + bytes(7), "the gif header gives a size of 0x0 pixels"),
        (samples.tiff({256: (3, 1, b"\5\0\0\0")}), "the tiff header gives a size of 0x5 pixels"),
        (samples.tiff({256: (7, 1, b"\5\0\0\0")}), "the tiff header gives a size of 0x0 pixels"),
        (b"BM" + bytes(12) + b"\x28\0\0\0" + struct.pack("<ii", -4, 9), "the bmp header gives a size of 9x-4 pixels"),
    ],
)
def test_damaged_headers(data, message):
    error = header_refusal(data)
    assert (error.reason, str(error)) == ("not_an_image", message)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(samples.ALL)), st.data())
def test_header_of_a_damaged_image(name, draw):
    data = bytearray(samples.ALL[name])
    for place in draw.draw(st.lists(st.integers(0, min(len(data), 400) - 1), max_size=5)):
        data[place] = draw.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    except ImageError as error:
        outcome = error.reason
    else:
        outcome = "decodable" if min(header.height, header.width) > 0 else "without pixels"
    assert outcome in ("decodable", "empty", "not_an_image", "unsupported_format", "truncated")
