import io
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.core.errors import ImageError, UsageError
from pipeline.core.records import FAILURE_REASONS
from pipeline.images.decoder import ImageDecoder
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


# Pixels


@pytest.mark.parametrize("name", samples.JPEGS)
def test_jpeg_pixels_are_tensorflows(name):
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(samples.JPEGS[name])), tensorflow_jpeg(samples.JPEGS[name]))


@pytest.mark.parametrize("name", samples.OTHERS_WITH_REFERENCE)
def test_other_pixels_are_tensorflows(name):
    data = samples.OTHERS_WITH_REFERENCE[name]
    expected = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), expected)


@pytest.mark.parametrize("name", ["bmp 1", "bmp P", "tiff 1", "tiff P", "tiff CMYK"])
def test_other_pixels_are_pillows(name):
    expected = samples.image(name.split()[1]).convert("RGB")
    np.testing.assert_allclose(bytes_of(AS_IT_IS(samples.OTHERS[name])), np.asarray(expected), atol=1)


@pytest.mark.parametrize("name", ["tiff L", "tiff LA"])
def test_grey_pixels(name):
    grey = np.asarray(samples.image("L"))
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(samples.OTHERS[name])), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    "name",
    [
        "bmp RGBA",
        "webp alpha",
        "webp animation",
        "tiff RGB",
        "tiff RGBA",
        "tiff tiff_lzw",
        "tiff tiff_deflate",
        "tiff packbits",
        "tiff big",
        "tiff pages",
    ],
)
def test_alpha_is_dropped_and_the_first_frame_taken(name):
    expected = samples.pixels(4)[..., :3]
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(samples.OTHERS[name])), expected)


def test_tiff_of_16_bits_keeps_the_upper_ones():
    upper = (samples.samples_of_16_bits(1) >> 8).astype(np.uint8)
    decoded = bytes_of(AS_IT_IS(samples.OTHERS["tiff 16-bit grey"]))
    np.testing.assert_array_equal(decoded, np.stack([upper] * 3, axis=-1))


def test_tiff_of_16_bits_where_white_is_zero():
    data = samples.save(Image.fromarray(samples.samples_of_16_bits(1).astype("<u2")), "TIFF", tiffinfo={262: 0})
    upper = 255 - (samples.samples_of_16_bits(1) >> 8).astype(np.uint8)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[..., 0], upper)


def test_transparent_pixels_keep_their_colour():
    image = Image.new("RGBA", (samples.WIDTH, samples.HEIGHT), (10, 200, 30, 0))
    for data in (samples.save(image, "PNG"), samples.save(image, "TIFF")):
        np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[7, 7], (10, 200, 30))
    palette = Image.new("P", (samples.WIDTH, samples.HEIGHT))
    palette.putpalette([10, 200, 30])
    for image_format in ("PNG", "GIF"):
        data = samples.save(palette, image_format, transparency=0)
        np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[7, 7], (10, 200, 30))


# Resizing


@pytest.mark.parametrize("source", [(1, 1), (2, 3), (20, 24), (40, 48), (57, 31), (119, 143)])
def test_resize_is_tensorflows_by_opencv(source):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    decoded = DECODER(samples.save(pixels, "PNG"))
    assert decoded.dtype == np.float32
    # The places between pixels, rounded to float32, are up to 2e-5 of a pixel apart.
    np.testing.assert_allclose(decoded, tensorflow_resize(pixels, 20, 24), atol=2e-5, rtol=0)


@pytest.mark.parametrize("source", [(121, 10), (10, 145), (400, 500), (1, 3000), (1200, 1600)])
def test_resize_is_tensorflows_by_gathering(source):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        DECODER(samples.save(pixels, "PNG")), tensorflow_resize(pixels, 20, 24), atol=1e-6, rtol=0
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
def test_resize_is_tensorflows_for_any_size(height, width, target_height, target_width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    decoded = ImageDecoder(target_height, target_width)(samples.save(pixels, "BMP"))
    expected = tensorflow_resize(pixels, target_height, target_width)
    np.testing.assert_allclose(decoded, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("height", [20, 57, 1000])
def test_white_is_one_and_black_is_nought(height):
    for value in (0, 255):
        image = Image.new("L", (31, height), value)
        assert set(np.unique(DECODER(samples.save(image, "PNG"))).tolist()) == {value / 255}


# Reduced scale


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


@pytest.mark.parametrize("name", sorted(samples.ALL.keys() - samples.JPEGS.keys() | {"jpeg cmyk", "jpeg ycck"}))
def test_fast_leaves_the_rest_exact(name):
    fast = ImageDecoder(5, 6, decode="fast")
    np.testing.assert_array_equal(fast(samples.ALL[name]), ImageDecoder(5, 6)(samples.ALL[name]))


# EXIF orientation


def oriented(image_format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(image_format, {})
    return samples.save(samples.pixels(), image_format, exif=exif, **lossless)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_if_asked_for(image_format, orientation):
    data = oriented(image_format, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    decoder = ImageDecoder(upright.height, upright.width, exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(decoder(data)), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_ignored_otherwise(image_format, orientation):
    np.testing.assert_array_equal(AS_IT_IS(oriented(image_format, orientation)), AS_IT_IS(oriented(image_format, 1)))


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_impossible_orientation_means_upright(orientation):
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    np.testing.assert_array_equal(decoder(oriented("JPEG", orientation)), DECODER(oriented("JPEG", 1)))


def test_damaged_exif_means_upright():
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        data = samples.save(samples.pixels(), "JPEG", exif=exif)
        np.testing.assert_array_equal(decoder(data), DECODER(data))


def test_huge_exif_is_not_read():
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + bytes(1 << 16)
    plain, huge = (
        samples.png(samples.pixels(), 8, 2, samples.png_chunk(b"eXIf", exif[:size])) for size in (26, len(exif))
    )
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    np.testing.assert_array_equal(decoder(huge), DECODER(plain))
    assert np.abs(decoder(plain) - decoder(huge)).max() > 0.1


def test_fast_scale_of_a_turned_image():
    exif = Image.Exif()
    exif[274] = 6
    data = samples.save(samples.pixels(height=80, width=320), "JPEG", exif=exif)
    reduced = simplejpeg.decode_jpeg(data, "RGB", min_height=10, min_width=40)
    decoder = ImageDecoder(40, 10, decode="fast", exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(decoder(data)), np.rot90(reduced, -1))


# Damage


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated(name, tenths):
    data = samples.ONE_OF_EACH_FORMAT[name]
    error = refusal(data[: len(data) * tenths // 10])
    assert (error.reason, str(error)) == (
        "truncated",
        f"the {name} data ends before the image does: fetch the file again",
    )


@pytest.mark.parametrize("name", samples.JPEGS)
@pytest.mark.parametrize("missing", [1, 2, 3, 30, 300])
def test_truncated_jpeg_of_every_kind(name, missing):
    assert refusal(samples.JPEGS[name][:-missing]).reason == "truncated"


@pytest.mark.parametrize("name", ["tiff tiff_lzw", "tiff tiff_deflate", "tiff jpeg", "webp animation", "png animation"])
def test_truncated_in_other_ways(name):
    data = samples.ALL[name]
    assert refusal(data[: len(data) // 2]).reason in ("truncated", "not_an_image")


def test_truncated_after_other_damage():
    data = samples.JPEGS["jpeg 4:4:4"]
    scan = data.index(b"\xff\xda")
    stray_bytes = data[:scan] + b"stray" + data[scan:]
    assert refusal(stray_bytes[:-100]).reason == "truncated"


def test_gif_needs_only_its_first_frame():
    data = samples.ALL["gif animation"]
    np.testing.assert_array_equal(DECODER(data[: len(data) * 2 // 3]), DECODER(data))


def in_the_middle(data: bytes, damage: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + damage + data[middle + len(damage) :]


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


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_what_follows_the_image_is_ignored(name):
    data = samples.ONE_OF_EACH_FORMAT[name]
    for more in (b"\n", bytes(100), data, samples.ONE_OF_EACH_FORMAT["png"]):
        np.testing.assert_array_equal(DECODER(data + more), DECODER(data))


def test_png_with_a_wrong_checksum():
    error = refusal(in_the_middle(samples.ONE_OF_EACH_FORMAT["png"], b"\0\0\0"))
    assert error.reason == "not_an_image"
    assert str(error) == "corrupt png: the checksum of chunk b'IDAT' at 33 is wrong"


def test_png_whose_pixels_do_not_unpack():
    data = samples.png(samples.pixels(), 8, 2)
    header = data[:33]
    for content in (b"", b"nonsense", bytes(100)):
        damaged = header + samples.png_chunk(b"IDAT", content) + samples.png_chunk(b"IEND", b"")
        assert refusal(damaged).reason in ("not_an_image", "truncated")


@pytest.mark.parametrize("name", ["gif", "webp lossy", "webp lossless", "tiff tiff_lzw", "tiff tiff_deflate"])
def test_damaged_pixels(name):
    data = samples.ALL[name]
    damaged = in_the_middle(data, b"\xa5\x5a" * (len(data) // 8))
    try:
        decoded = DECODER(damaged)
    except ImageError as error:
        outcome = error.reason
    else:
        outcome = "decodable" if 0 <= decoded.min() <= decoded.max() <= 1 else "out of range"
    assert outcome in ("decodable", "not_an_image", "truncated")


def test_pixel_types_that_are_not_taken():
    for samples_, mode in ((np.zeros((9, 9), np.float32), "F"), (np.zeros((9, 9), np.int32), "I")):
        error = refusal(samples.save(Image.fromarray(samples_), "TIFF"))
        assert error.reason == "unsupported_format"
        assert str(error) == (
            f"a TIFF of Pillow's mode {mode}; expected integers of up to 8 bits, or of 16: convert it"
        )
    assert refusal(samples.save(Image.new("LAB", (9, 9)), "TIFF")).reason == "unsupported_format"


def test_layouts_that_pillow_does_not_know():
    bmp = bytearray(samples.ONE_OF_EACH_FORMAT["bmp"])
    bmp[28] = 7  # bits of a pixel
    error = refusal(bytes(bmp))
    assert error.reason == "unsupported_format"
    assert str(error) == "an unusual bmp: Unsupported BMP pixel depth (7); convert it to PNG or JPEG"


def test_empty():
    assert refusal(b"").reason == "empty"


# Limits


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
    else:
        return samples.tiff({256: (4, 1, struct.pack("<I", width)), 257: (4, 1, struct.pack("<I", height))})
    return bytes(data)


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_size_is_checked_before_pixels_are_decoded(name):
    error = refusal(claim_size(name, 60_000, 59_000))
    assert (error.reason, str(error)) == (
        "too_large",
        "60000x59000 pixels are more than the limit of 100000000: shrink the image or raise max_pixels",
    )


@pytest.mark.parametrize("name", samples.ALL)
def test_limit_of_pixels_is_inclusive(name):
    pixels = samples.HEIGHT * samples.WIDTH
    assert ImageDecoder(5, 5, max_pixels=pixels)(samples.ALL[name]).shape == (5, 5, 3)
    assert refusal(samples.ALL[name], ImageDecoder(5, 5, max_pixels=pixels - 1)).reason == "too_large"


def test_gif_frame_beyond_its_canvas():
    data = claim_size("gif", 1, 1)
    assert refusal(data, ImageDecoder(5, 5, max_pixels=100)).reason == "too_large"


def test_limit_of_encoded_bytes():
    data = samples.ONE_OF_EACH_FORMAT["png"]
    decoder = ImageDecoder(5, 5, max_image_bytes=len(data))
    assert decoder(data).shape == (5, 5, 3)
    error = refusal(data + b"\0", decoder)
    assert (error.reason, str(error)) == (
        "too_large",
        f"{len(data) + 1} encoded bytes are more than the limit of {len(data)}: "
        "shrink the image or raise max_image_bytes",
    )


def test_pillows_own_limit_does_not_interfere(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("jpeg", "png", "bmp", "webp"):
        assert DECODER(samples.ONE_OF_EACH_FORMAT[name]).shape == (20, 24, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_progressive_jpeg_of_endless_scans():
    data = samples.JPEGS["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    assert DECODER(data[:-2] + data[last:-2] * 10 + b"\xff\xd9").shape == (20, 24, 3)
    error = refusal(data[:-2] + data[last:-2] * 500 + b"\xff\xd9")
    assert (error.reason, str(error)) == ("too_large", "a JPEG of more than 500 scans: save it anew with fewer")


def test_png_with_texts_and_profiles_that_unpack_to_much():
    bomb = zlib.compress(bytes(20_000_000))
    chunks = samples.png_chunk(b"iCCP", b"p\0\0" + bomb) + samples.png_chunk(b"zTXt", b"t\0\0" + bomb) * 20
    pixels = samples.pixels()
    data = samples.png(pixels, 8, 2, chunks, chunks)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), pixels)


def test_gif_of_endless_frames():
    data = samples.ALL["gif animation"]
    frame = data[data.rindex(b"," + struct.pack("<HHHH", 0, 0, samples.WIDTH, samples.HEIGHT)) : -1]
    np.testing.assert_array_equal(DECODER(data[:-1] + frame * 2000), DECODER(data))


def test_gif_of_endless_comments():
    data = samples.ONE_OF_EACH_FORMAT["gif"]
    first_frame = 13 + 3 * 256
    many = data[:first_frame] + b"\x21\xfe\x01a\0" * 200_000 + data[first_frame:]
    np.testing.assert_array_equal(DECODER(many), DECODER(data))


def test_jpeg_of_endless_exif_segments():
    data = samples.JPEGS["jpeg cmyk"]
    segment = b"\xff\xe1\0\x09Exif\0\0a"
    np.testing.assert_array_equal(DECODER(data[:2] + segment * 100 + data[2:]), DECODER(data))
    error = refusal(data[:2] + segment * 101 + data[2:])
    assert (error.reason, str(error)) == ("not_an_image", "corrupt jpeg: more than 100 EXIF segments")


def test_tiff_whose_directories_form_a_circle():
    data = bytearray(samples.ONE_OF_EACH_FORMAT["tiff"])
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    np.testing.assert_array_equal(DECODER(bytes(data)), DECODER(samples.ONE_OF_EACH_FORMAT["tiff"]))


# The decoder as an object


def test_writes_into_a_batch():
    batch = np.full((3, 20, 24, 3), 7, np.float32)
    data = samples.ONE_OF_EACH_FORMAT["jpeg"]
    assert np.shares_memory(DECODER(data, out=batch[1]), batch)
    np.testing.assert_array_equal(batch[1], DECODER(data))
    assert (batch[[0, 2]] == 7).all()
    with pytest.raises(ImageError):
        DECODER(data[:-50], out=batch[2])
    assert (batch[2] == 7).all()


def test_writes_into_an_array_of_any_layout():
    planes = np.zeros((3, 20, 24), np.float32)
    for data in (samples.ONE_OF_EACH_FORMAT["jpeg"], samples.save(samples.pixels(height=500), "PNG")):
        DECODER(data, out=planes.transpose(1, 2, 0))
        np.testing.assert_array_equal(planes.transpose(1, 2, 0), DECODER(data))


@pytest.mark.parametrize(
    ("out", "arrived"),
    [
        (np.zeros((24, 20, 3), np.float32), "float32 [24, 20, 3]"),
        (np.zeros((1, 20, 24, 3), np.float32), "float32 [1, 20, 24, 3]"),
        (np.zeros((20, 24, 3)), "float64 [20, 24, 3]"),
    ],
)
def test_out_of_another_shape_or_dtype(out, arrived):
    with pytest.raises(ValueError, match="out is") as caught:
        DECODER(samples.ONE_OF_EACH_FORMAT["png"], out=out)
    assert str(caught.value) == f"out is {arrived}: expected float32 [20, 24, 3]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "height=0: expected at least 1"),
        ({"width": -3}, "width=-3: expected at least 1"),
        ({"max_pixels": 0}, "max_pixels=0: expected at least 1"),
        ({"max_image_bytes": 0}, "max_image_bytes=0: expected at least 1"),
        ({"decode": "quick"}, "decode='quick': expected 'exact' or 'fast'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UsageError) as caught:
        ImageDecoder(**{"height": 5, "width": 5, **arguments})
    assert str(caught.value) == message


def test_is_picklable():
    decoder = ImageDecoder(10, 12, decode="fast", exif_orientation=True, max_pixels=10**6, max_image_bytes=10**5)
    copy = pickle.loads(pickle.dumps(decoder))
    assert copy == decoder
    data = samples.ONE_OF_EACH_FORMAT["jpeg"]
    np.testing.assert_array_equal(copy(data), decoder(data))


def test_two_threads_decode_the_same_as_one():
    images = [*samples.ALL.values(), samples.save(samples.pixels(height=500), "PNG")] * 4
    expected = [DECODER(data) for data in images]
    with ThreadPoolExecutor(2) as pool:
        for alone, together in zip(expected, pool.map(DECODER, images), strict=True):
            np.testing.assert_array_equal(alone, together)


def test_no_warnings_and_nothing_on_stderr(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in samples.ALL.values():
            DECODER(data)
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


# Whatever the bytes


def outcome(data: bytes, decoder: ImageDecoder) -> str:
    """`decoded`, or the reason why not; any other exception fails the test."""
    try:
        decoded = decoder(data)
    except ImageError as error:
        return error.reason
    assert decoded.shape == (decoder.height, decoder.width, 3)
    assert decoded.dtype == np.float32
    return "decoded" if decoded.min() >= 0 and decoded.max() <= 1 else "out of range"


OUTCOMES = {"decoded", "empty", "not_an_image", "unsupported_format", "truncated", "too_large"}
DECODERS = st.builds(
    ImageDecoder,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    decode=st.sampled_from(["exact", "fast"]),
    exif_orientation=st.booleans(),
    max_pixels=st.just(1_000_000),
)
MAGICS = [data[:size] for data in samples.ONE_OF_EACH_FORMAT.values() for size in (3, 12, 30)]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([b"", *MAGICS]), st.binary(max_size=300), DECODERS)
def test_any_bytes(start, rest, decoder):
    assert outcome(start + rest, decoder) in OUTCOMES


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(samples.ALL)), DECODERS, st.data())
def test_damaged_images(name, decoder, draw):
    data = bytearray(samples.ALL[name])
    places = st.integers(0, len(data) - 1) | st.integers(0, min(len(data), 200) - 1)
    for place in draw.draw(st.lists(places, max_size=6)):
        data[place] = draw.draw(st.integers(0, 255))
    start, end = sorted((draw.draw(places), draw.draw(places)))
    edit = draw.draw(st.sampled_from(["none", "cut", "remove", "repeat"]))
    if edit == "cut":
        del data[end:]
    elif edit == "remove":
        del data[start : min(end, start + 50)]
    elif edit == "repeat":
        data[start:start] = data[start:end]
    assert outcome(bytes(data), decoder) in OUTCOMES
