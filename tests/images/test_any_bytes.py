import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ImageError
from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples


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
