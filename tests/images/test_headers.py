import io
import struct
import wave
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import ImageError
from pipeline.images.decoder import ImageHeader
from pipeline.images.headers import gif_first_frame, png_pixel_chunks, read_header
from tests import image_samples as samples


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_header(data)
    return caught.value


@pytest.mark.parametrize("name", samples.ALL)
def test_header_gives_format_and_size(name):
    assert read_header(samples.ALL[name]) == ImageHeader(name.split()[0], samples.HEIGHT, samples.WIDTH)


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_header_needs_no_pixels(name):
    sizes = {"jpeg": 700, "png": 33, "gif": 13, "bmp": 30, "webp": 0, "tiff": 0}
    data = samples.ONE_OF_EACH_FORMAT[name]
    header = read_header(data[: sizes[name] or None])
    assert (header.height, header.width) == (samples.HEIGHT, samples.WIDTH)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (1000, 2), (16383, 1)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_webp_size_in_each_of_its_three_headers(size, options):
    data = samples.save(Image.new("RGB", (size[1], size[0])), "WEBP", **options)
    assert (read_header(data).height, read_header(data).width) == size


def test_bmp_rows_from_the_top_and_old_header():
    data = samples.ONE_OF_EACH_FORMAT["bmp"]
    upside_down = data[:22] + struct.pack("<i", -samples.HEIGHT) + data[26:]
    assert read_header(upside_down).height == samples.HEIGHT
    old = b"BM" + struct.pack("<IHHIIHHHH", 26, 0, 0, 26, 12, 5, 6, 1, 24)
    assert read_header(old) == ImageHeader("bmp", 6, 5)


def test_tiff_of_either_byte_order():
    big_endian = b"MM\0*" + struct.pack(">IH", 8, 2)
    big_endian += struct.pack(">HHIHH", 256, 3, 1, 70, 0) + struct.pack(">HHII", 257, 4, 1, 90)
    assert read_header(big_endian) == ImageHeader("tiff", 90, 70)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
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
    error = refusal(data)
    assert error.reason == "unsupported_format"
    assert str(error) == f"a {name} image; expected JPEG, PNG, GIF, BMP, WebP or TIFF: convert it first"


def zip_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", samples.ONE_OF_EACH_FORMAT["jpeg"])
    return file.getvalue()


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
        b"<!DOCTYPE html><html><body>404 <svg></svg></body></html>",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"BMX bikes for sale, and more than thirty bytes of it",
        b"\n" + samples.ONE_OF_EACH_FORMAT["jpeg"],
        b"\xff\xd8",
        b"\0",
        bytes(1000),
        zip_file(),
        wav_file(),
        b"%PDF-1.7\n",
        b"\x1f\x8b\x08\0\0\0\0\0",
        b"GIF88a" + bytes(20),
    ],
)
def test_what_is_no_image(data):
    error = refusal(data)
    assert error.reason == "not_an_image"
    assert str(error) == f"no known image begins with {data[:8]!r}; expected JPEG, PNG, GIF, BMP, WebP or TIFF"


def test_no_bytes():
    error = refusal(b"")
    assert (error.reason, str(error)) == ("empty", "0 bytes; expected JPEG, PNG, GIF, BMP, WebP or TIFF")


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
    error = refusal(jpeg_with_frame(process, precision, components))
    assert error.reason == "unsupported_format"
    assert str(error) == (
        f"a JPEG of process {arrived} components; "
        "expected a lossy one of 8 bits and 1, 3 or 4 components: convert it first"
    )


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
    error = refusal(data)
    assert (error.reason, str(error)) == ("not_an_image", message)


def test_jpeg_header_skips_what_libjpeg_skips():
    data = samples.JPEGS["jpeg 4:4:4"]
    padded = data[:2] + b"\xff\xff\xff" + data[3:20] + b"stray\xff\0bytes\xff\xd0\xff\x01" + data[20:]
    assert read_header(padded) == read_header(data)


def test_tiff_tags_that_would_take_more_memory_than_the_file():
    many = samples.tiff({256: (3, 1, b"\5\0\0\0"), 282: (5, 200_000, b"\x40\0\0\0")}, bytes(2_000_000))
    assert str(refusal(many)) == "corrupt tiff: tag 282 has 200000 values"
    overlapping = {tag: (1, 900, struct.pack("<I", 100)) for tag in range(40_000, 40_050)}
    assert refusal(samples.tiff(overlapping, bytes(1000))).reason == "truncated"


@pytest.mark.parametrize("directory", [100, 1 << 40, (1 << 64) - 1])
def test_big_tiff_whose_directory_lies_beyond_its_end(directory):
    error = refusal(b"II+\0\x08\0\0\0" + struct.pack("<Q", directory))
    assert (error.reason, str(error)) == ("truncated", "the tiff data ends before the image does: fetch the file again")


def test_tiff_whose_directories_form_a_circle():
    data = bytearray(samples.ONE_OF_EACH_FORMAT["tiff"])
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    assert read_header(bytes(data)).width == samples.WIDTH


def test_png_keeps_only_what_matters():
    text = samples.png_chunk(b"zTXt", b"comment\0\0" + bytes(1000))
    pixels = samples.pixels()
    plain = samples.png(pixels, 8, 2)
    assert png_pixel_chunks(samples.png(pixels, 8, 2, text, text) + b"trailing bytes") == plain


@pytest.mark.parametrize("place", [20, 40, -20, -6])
def test_png_with_a_wrong_checksum(place):
    data = bytearray(samples.png(np.zeros((9, 9), np.uint8), 8, 0))
    data[place] ^= 1
    with pytest.raises(ImageError, match=r"^corrupt png: the checksum of chunk b'\w+' at \d+ is wrong$") as caught:
        png_pixel_chunks(bytes(data))
    assert caught.value.reason == "not_an_image"


def test_gif_loses_what_comes_before_its_first_frame():
    data = samples.ONE_OF_EACH_FORMAT["gif"]
    start = 13 + 3 * 256
    assert data[start] == ord(",")
    comments = b"\x21\xfe\x02ab\x01c\0" * 2 + b"stray" + b"\x21\xf9\x04\0\0\0\0\0"
    assert gif_first_frame(data[:start] + comments + data[start:]) == data
    for cut in (3, 8, 12):
        with pytest.raises(ImageError, match="the gif data ends"):
            gif_first_frame(data[:start] + comments[:cut])
    with pytest.raises(ImageError, match="corrupt gif: it ends without a frame"):
        gif_first_frame(data[:start] + b";")


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
