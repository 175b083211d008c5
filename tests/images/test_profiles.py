"""Colour profiles."""

import functools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.core.errors import UsageError
from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, bytes_of

SRGB = ImageDecoder(samples.HEIGHT, samples.WIDTH, icc="srgb")


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


@functools.cache
def profile_of(space: bytes, primaries: tuple[tuple[float, float, float], ...]) -> bytes:
    """An ICC profile (version 2) of a gamma of 2.2, with the XYZ of its primaries under D50; or of grey ink."""
    curve = b"curv" + struct.pack(">IIHH", 0, 1, round(2.2 * 256), 0)
    tags = [(b"wtpt", b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249))]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    elif space == b"CMYK":  # a table with two places for each ink, to Lab
        nodes = [(ink >> 3 & 1, ink >> 2 & 1, ink >> 1 & 1, ink & 1) for ink in range(16)]
        table_of_lab = b"".join(bytes((round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128)) for c, m, y, k in nodes)
        lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
        tags += [
            (name, lut + bytes(range(256)) * 4 + table_of_lab + bytes(range(256)) * 3) for name in (b"A2B0", b"A2B1")
        ]
    else:
        tags += [
            (name + b"XYZ", b"XYZ " + bytes(4) + fixed(*xyz))
            for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)
        ]
        tags += [(name + b"TRC", curve) for name in (b"r", b"g", b"b")]
    tags.append((b"desc", b"desc" + struct.pack(">II", 0, 5) + b"wide\0" + bytes(78)))
    tags.append((b"cprt", b"text" + bytes(4) + b"none\0\0\0\0"))
    kind = (b"prtr", space, b"Lab ") if space == b"CMYK" else (b"mntr", space, b"XYZ ")
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, *kind)
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(24) + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


ADOBE_LIKE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
WIDE = profile_of(b"RGB ", ADOBE_LIKE)
GREY = profile_of(b"GRAY", ())
INK = profile_of(b"CMYK", ())


def expected_of(pixels: np.ndarray) -> np.ndarray:
    """The sRGB colours of pixels in `WIDE`, by the definitions, in float; colours out of gamut are clipped."""
    to_xyz = np.array(ADOBE_LIKE).T
    linear = (pixels / 255) ** 2.2 @ to_xyz.T
    from_srgb = np.array(((0.4360, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7141)))
    rgb = np.clip(linear @ np.linalg.inv(from_srgb).T, 0, 1)
    return np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055) * 255


LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_colours_are_brought_to_srgb(image_format):
    pixels = samples.pixels()
    data = samples.save(pixels, image_format, icc_profile=WIDE, **LOSSLESS[image_format])
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), pixels)
    converted = bytes_of(SRGB(data))
    assert np.abs(converted - expected_of(pixels)).max() < 4
    assert np.abs(converted.astype(int) - pixels).max() > 15


@pytest.mark.parametrize("image_format", ["JPEG", "AVIF"])
def test_lossy_formats(image_format):
    data = samples.save(samples.pixels(), image_format, icc_profile=WIDE, quality=95)
    stored = bytes_of(AS_IT_IS(data))
    assert np.abs(bytes_of(SRGB(data)) - expected_of(stored)).max() < 4


def test_heif():
    data = samples.heif(Image.fromarray(samples.pixels(height=64, width=64)), icc_profile=WIDE)
    stored = bytes_of(ImageDecoder(64, 64)(data))
    assert np.abs(bytes_of(ImageDecoder(64, 64, icc="srgb")(data)) - expected_of(stored)).max() < 4


def test_grey():
    grey = samples.pixels(1)[..., 0]
    converted = bytes_of(SRGB(samples.save(grey, "PNG", icc_profile=GREY)))
    linear = (grey / 255) ** 2.2
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(converted - expected[..., None]).max() < 4


@pytest.mark.parametrize(("ink", "level"), [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 255, 255, 0), 0)])
def test_ink(ink, level):
    picture = Image.new("CMYK", (samples.WIDTH, samples.HEIGHT), ink)
    adobe = samples.save(picture, "JPEG", icc_profile=INK, quality=95)
    for data in (adobe, samples.save(picture, "TIFF", icc_profile=INK)):
        assert np.abs(bytes_of(SRGB(data)).astype(int) - level).max() < 12
    # Without Adobe's segment, the same samples are the opposite of ink.
    opposite = samples.save(Image.fromarray(255 - np.asarray(picture), "CMYK"), "JPEG", icc_profile=INK, quality=95)
    assert np.abs(bytes_of(SRGB(samples.without_adobe_marker(opposite))).astype(int) - level).max() < 12


def test_ink_is_converted_by_its_profile():
    """One ink of three is a third of black in the profile, but a bright cyan by TensorFlow's formula."""
    data = samples.save(Image.new("CMYK", (samples.WIDTH, samples.HEIGHT), (255, 0, 0, 0)), "TIFF", icc_profile=INK)
    assert tuple(bytes_of(AS_IT_IS(data))[0, 0]) == (0, 255, 255)
    red, green, blue = bytes_of(SRGB(data))[0, 0].astype(int)
    assert abs(red - green) < 4
    assert abs(green - blue) < 4
    assert 140 < green < 190


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_images_without_a_profile_stay_as_they_are(name):
    np.testing.assert_array_equal(SRGB(samples.ONE_OF_EACH_FORMAT[name]), AS_IT_IS(samples.ONE_OF_EACH_FORMAT[name]))


@pytest.mark.parametrize("profile", [b"?", WIDE[:200], WIDE[:128] + b"\xff" * 100, GREY])
def test_damaged_profiles_and_those_of_other_images_are_ignored(profile):
    data = samples.save(samples.pixels(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(SRGB(data), AS_IT_IS(data))


def test_a_profile_of_endless_zeros():
    content = b"x\0\0" + zlib.compress(bytes(50 << 20), 9)
    data = samples.png(samples.pixels(), 8, 2, samples.png_chunk(b"iCCP", content))
    np.testing.assert_array_equal(SRGB(data), AS_IT_IS(data))


def test_turned_images_are_converted_too():
    exif = Image.Exif()
    exif[274] = 6
    data = samples.save(samples.pixels(), "JPEG", icc_profile=WIDE, exif=exif, quality=95)
    upright = ImageDecoder(samples.WIDTH, samples.HEIGHT, icc="srgb", exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(upright(data)), np.rot90(bytes_of(SRGB(data)), -1))


def test_srgb_itself_changes_almost_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = samples.save(samples.pixels(), "PNG", icc_profile=profile)
    assert np.abs(bytes_of(SRGB(data)).astype(int) - samples.pixels()).max() <= 1


def test_only_known_ways():
    with pytest.raises(UsageError, match=r"^icc='p3': expected 'ignore' or 'srgb'$"):
        ImageDecoder(5, 5, icc="p3")


@pytest.mark.parametrize("turns", [False, True])
def test_turned_ink(turns):
    picture = Image.new("CMYK", (samples.WIDTH, samples.HEIGHT))
    picture.paste((0, 0, 0, 255), (0, 0, 20, 10))
    exif = Image.Exif()
    exif[274] = 6
    size = (samples.WIDTH, samples.HEIGHT) if turns else (samples.HEIGHT, samples.WIDTH)
    decoded = []
    for image_format in ("JPEG", "TIFF"):
        data = samples.save(picture, image_format, icc_profile=INK, exif=exif)
        decoded.append(bytes_of(ImageDecoder(*size, icc="srgb", exif_orientation=turns)(data)).astype(int))
        plain = bytes_of(ImageDecoder(*size, exif_orientation=turns)(data)).astype(int)
        assert np.abs(decoded[-1] - plain).mean() < 12
    assert np.abs(decoded[0] - decoded[1]).mean() < 6
