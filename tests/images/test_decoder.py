import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.core.errors import ImageError, UsageError
from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, DECODER, bytes_of, claim_size, in_the_middle, refusal


@pytest.mark.parametrize("name", samples.OTHERS_WITH_REFERENCE)
def test_other_pixels_are_tensorflows(name):
    data = samples.OTHERS_WITH_REFERENCE[name]
    expected = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), expected)


@pytest.mark.parametrize("name", ["bmp 1", "bmp P", "tiff 1", "tiff P", "tiff CMYK"])
def test_other_pixels_are_pillows(name):
    expected = samples.image(name.split()[1]).convert("RGB")
    np.testing.assert_allclose(bytes_of(AS_IT_IS(samples.OTHERS[name])), np.asarray(expected), atol=1)


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


def test_transparent_pixels_keep_their_colour():
    image = Image.new("RGBA", (samples.WIDTH, samples.HEIGHT), (10, 200, 30, 0))
    for data in (samples.save(image, "PNG"), samples.save(image, "TIFF")):
        np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[7, 7], (10, 200, 30))
    palette = Image.new("P", (samples.WIDTH, samples.HEIGHT))
    palette.putpalette([10, 200, 30])
    for image_format in ("PNG", "GIF"):
        data = samples.save(palette, image_format, transparency=0)
        np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[7, 7], (10, 200, 30))


@pytest.mark.parametrize("name", sorted(samples.ALL.keys() - samples.JPEGS.keys() | {"jpeg cmyk", "jpeg ycck"}))
def test_fast_leaves_the_rest_exact(name):
    fast = ImageDecoder(5, 6, decode="fast")
    np.testing.assert_array_equal(fast(samples.ALL[name]), ImageDecoder(5, 6)(samples.ALL[name]))


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated(name, tenths):
    data = samples.ONE_OF_EACH_FORMAT[name]
    error = refusal(data[: len(data) * tenths // 10])
    assert (error.reason, str(error)) == (
        "truncated",
        f"the {name} data ends before the image does: fetch the file again",
    )


@pytest.mark.parametrize("name", ["tiff tiff_lzw", "tiff tiff_deflate", "tiff jpeg", "webp animation", "png animation"])
def test_truncated_in_other_ways(name):
    data = samples.ALL[name]
    assert refusal(data[: len(data) // 2]).reason in ("truncated", "not_an_image")


@pytest.mark.parametrize("name", samples.ONE_OF_EACH_FORMAT)
def test_what_follows_the_image_is_ignored(name):
    data = samples.ONE_OF_EACH_FORMAT[name]
    for more in (b"\n", bytes(100), data, samples.ONE_OF_EACH_FORMAT["png"]):
        np.testing.assert_array_equal(DECODER(data + more), DECODER(data))


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


def test_empty():
    assert refusal(b"").reason == "empty"


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


def test_writes_into_a_batch():
    batch = np.full((3, 20, 24, 3), 7, np.float32)
    data = samples.ONE_OF_EACH_FORMAT["jpeg"]
    assert np.shares_memory(DECODER(data, out=batch[1]), batch)
    np.testing.assert_array_equal(batch[1], DECODER(data))
    assert (batch[[0, 2]] == 7).all()
    with pytest.raises(ImageError):
        DECODER(data[:-50], out=batch[2])
    assert (batch[2] == 7).all()


@pytest.mark.parametrize("source", [(20, 24), (57, 31), (400, 500)])
def test_writes_levels_into_an_array_of_uint8(source):
    data = samples.save(samples.pixels(height=source[0], width=source[1]), "PNG")
    batch = np.full((2, 20, 24, 3), 7, np.uint8)
    levels = DECODER(data, out=batch[0])
    assert levels.dtype == np.uint8
    assert np.shares_memory(levels, batch)
    assert (batch[1] == 7).all()
    np.testing.assert_allclose(levels, DECODER(data) * 255, atol=0.5 + 1e-4, rtol=0)
    with pytest.raises(ImageError):
        DECODER(data[:-50], out=batch[1])
    assert (batch[1] == 7).all()


@pytest.mark.parametrize("height", [20, 57, 1000])
def test_levels_of_white_and_black(height):
    for value in (0, 255):
        image = samples.save(np.full((height, 31, 3), value, np.uint8), "PNG")
        assert (DECODER(image, out=np.full((20, 24, 3), 7, np.uint8)) == value).all()


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
    assert str(caught.value) == f"out is {arrived}: expected float32 or uint8 [20, 24, 3]"


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


def test_import_leaves_the_process_as_it_was(pytestconfig):
    code = (
        "import warnings, cv2\n"
        "def state():\n"
        "    return list(warnings.filters), cv2.getNumThreads()\n"
        "cv2.setNumThreads(3)\n"
        "before = state()\n"
        "import pipeline.images.decoder, pipeline.images.pillow, pipeline.images.pillow_files\n"
        "assert state() == before, state()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert (done.returncode, done.stderr) == (0, "")
