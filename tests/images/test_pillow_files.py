import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, DECODER, claim_size

# In these tests a warning is an error, as with `python -W error`.
UPRIGHT = ImageDecoder(20, 24, exif_orientation=True)
ORIENTATION_6 = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
BEYOND_THE_END = struct.pack("<HHII", 305, 2, 1000, 4000)
EXIF = b"II*\0" + struct.pack("<IH", 8, 2) + ORIENTATION_6
DAMAGED_EXIF = {"a value beyond the end": EXIF + BEYOND_THE_END + bytes(4), "no second tag": EXIF}


def plain_tags(*damaged: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF of grey pixels, with other tags beside those that it needs."""
    pixels = bytes(range(240))
    numbers = {256: 20, 257: 12, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 12, 279: len(pixels)}
    tags = {tag: (3, 1, struct.pack("<I", number)) for tag, number in numbers.items()}
    tags |= {tag: (kind, count, value) for tag, kind, count, value in damaged}
    start = samples.tiff(tags)
    return start + bytes(200 - len(start)) + pixels


def load_with_pillow(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    image.getexif()
    image.convert("RGB")


@pytest.mark.parametrize("damage", DAMAGED_EXIF)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_damaged_exif_keeps_its_orientation(image_format, damage, mode):
    if mode == "CMYK" and image_format != "JPEG":
        return
    whole, damaged = (
        samples.save(samples.image(mode), image_format, exif=b"Exif\0\0" + exif)
        for exif in (EXIF[:8] + b"\1\0" + ORIENTATION_6 + bytes(4), DAMAGED_EXIF[damage])
    )
    with pytest.warns(UserWarning, match=r"Truncated File Read|Corrupt EXIF data"):
        load_with_pillow(damaged)
    np.testing.assert_array_equal(UPRIGHT(damaged), UPRIGHT(whole))
    np.testing.assert_array_equal(DECODER(damaged), DECODER(whole))
    assert np.abs(UPRIGHT(damaged) - DECODER(damaged)).max() > 0.1


@pytest.mark.parametrize(
    ("tag", "warning"),
    [
        ((305, 2, 100, struct.pack("<I", 4000)), "Truncated File Read"),
        ((277, 3, 2, struct.pack("<HH", 1, 7)), "tag 277 had too many entries: 2, expected 1"),
    ],
)
def test_damaged_tags_of_a_tiff(tag, warning):
    data = plain_tags(tag)
    with pytest.warns(UserWarning, match=warning):
        load_with_pillow(data)
    np.testing.assert_array_equal(DECODER(data), DECODER(plain_tags()))


def test_palette_with_transparency():
    palette = samples.image("RGBA").quantize(16)
    data = samples.save(palette, "PNG")
    with pytest.warns(UserWarning, match="Palette images with Transparency"):
        Image.open(io.BytesIO(data)).convert("L")
    levels = np.round(AS_IT_IS(data) * 255).astype(np.uint8)
    np.testing.assert_array_equal(levels, np.asarray(palette.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("limit", [10, 2000])
def test_pillows_own_limit_does_not_interfere(limit, monkeypatch):
    expected = {name: DECODER(data) for name, data in samples.ALL.items()}
    small_canvas = claim_size("gif", 1, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for name, data in samples.ALL.items():
        np.testing.assert_array_equal(DECODER(data), expected[name])
    np.testing.assert_array_equal(DECODER(small_canvas), expected["gif"])
    assert limit == Image.MAX_IMAGE_PIXELS


def test_nothing_on_stderr(capfd):
    for data in samples.ALL.values():
        DECODER(data)
    assert capfd.readouterr() == ("", "")
