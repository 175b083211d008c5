import io

import numpy as np
import pytest
from PIL import Image

from pipeline.core.records import Feature
from pipeline.embedding.embedder import Embedder
from pipeline.images.decoder import ImageDecoder
from pipeline.testing import (
    FakeEngine,
    jpeg_bytes,
    make_example,
    make_pixels,
    make_record,
    make_tfrecord,
    png_bytes,
)
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.tfrecord import read_records


def test_the_example_in_the_module_text():
    with Embedder(FakeEngine(), ImageDecoder(height=32, width=32)) as embedder:
        batch = embedder.embed([make_record("a"), make_record("b", image=b"no image")])
    assert batch.num_rows == 1
    assert batch.failures[0].key == b"b"
    assert batch.failures[0].reason == "not_an_image"


def test_fake_engine_gives_the_mean_of_each_channel():
    images = np.zeros((2, 4, 4, 3), np.float32)
    images[1, :, :, 2] = 0.5
    engine = FakeEngine(batch_size=2)
    np.testing.assert_array_equal(engine.infer(images), [[0, 0, 0], [0, 0, 0.5]])
    assert engine.calls == [2]
    assert engine.infer(images).dtype == np.float32


@pytest.mark.parametrize("count", [0, 3])
def test_fake_engine_refuses_other_batches(count):
    with pytest.raises(ValueError, match=f"{count} images of float32 arrived; expected 1 to 2 of float32"):
        FakeEngine(batch_size=2).infer(np.zeros((count, 4, 4, 3), np.float32))


def test_images_are_what_their_names_say():
    assert Image.open(io.BytesIO(jpeg_bytes(20, 30))).format == "JPEG"
    png = Image.open(io.BytesIO(png_bytes(20, 30, seed=3)))
    assert png.size == (30, 20)
    np.testing.assert_array_equal(np.asarray(png), make_pixels(20, 30, seed=3))
    assert (make_pixels(seed=1) != make_pixels(seed=2)).any()


def test_examples_take_plain_values():
    data = make_example({"image/encoded": b"i", "text": "é", "ints": [1, 2], "floats": (1, 0.5)})
    (item,) = read_records(io.BytesIO(make_tfrecord([data])))
    record = parse_example(item.data, address="a", source="s", image_feature="image/encoded", passthrough=["*"])
    assert record.features == {
        "text": Feature("bytes", ("é".encode(),)),
        "ints": Feature("int64", (1, 2)),
        "floats": Feature("float", (1.0, 0.5)),
    }
