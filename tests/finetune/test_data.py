import gzip
import logging

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.finetune.data import read_data
from pipeline.testing import jpeg_bytes, make_example, make_pixels, make_tfrecord, png_bytes
from tests.finetune.trainables import stripe_examples, write_stripes

GOOD = {"image/encoded": png_bytes(16, 16), "label": 1}


def read(train, directory, validation=(), label_feature="label", validation_fraction=0.25, image_size=(16, 12)):
    return read_data(
        [str(path) for path in train],
        [str(path) for path in validation],
        image_feature="image/encoded",
        label_feature=label_feature,
        image_size=image_size,
        validation_fraction=validation_fraction,
        directory=directory,
    )


def write(path, examples):
    path.write_bytes(make_tfrecord(examples))
    return path


def labels_of(data, images):
    return [data.classes[index] for index in images.labels]


def test_every_fourth_image_of_each_class_validates(tmp_path):
    write_stripes(tmp_path / "a.tfrecord", 8)
    data = read([tmp_path / "a.tfrecord"], tmp_path)
    assert data.classes == (0, 1, 2)
    assert labels_of(data, data.train) == [0, 1, 2] * 6
    assert labels_of(data, data.validation) == [0, 1, 2] * 2
    assert data.train.pixels.shape == (18, 20, 15, 3)
    assert data.validation.pixels.shape == (6, 16, 12, 3)
    assert data.left_out == {}


def test_same_files_give_the_same_data(tmp_path):
    write_stripes(tmp_path / "a.tfrecord", 8)
    first, second = (read([tmp_path / "a.tfrecord"], tmp_path) for _ in range(2))
    assert first.train.sha256 == second.train.sha256 != first.validation.sha256
    np.testing.assert_array_equal(first.train.pixels, second.train.pixels)
    write_stripes(tmp_path / "a.tfrecord", 8, seed=1)
    assert read([tmp_path / "a.tfrecord"], tmp_path).train.sha256 != first.train.sha256


def test_validation_images_are_what_the_pipeline_decodes(tmp_path):
    pixels = make_pixels(16, 12, seed=3)
    examples = [make_example({"image/encoded": png_bytes(16, 12, seed=3), "label": label}) for label in (0, 1)]
    path = write(tmp_path / "a.tfrecord", examples)
    data = read([path], tmp_path, validation=[path])
    np.testing.assert_array_equal(data.validation.pixels[0], pixels)


def test_class_names_and_compressed_files_in_a_directory(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    examples = stripe_examples(4)
    write(records / "a.tfrecord", examples[:6])
    (records / "b.tfrecord.gz").write_bytes(gzip.compress(make_tfrecord(examples[6:])))
    data = read([records], tmp_path, label_feature="name")
    assert data.classes == ("bottom", "even", "top")
    assert labels_of(data, data.validation) == ["top", "bottom", "even"]
    assert len(data.train) == 9


def test_broken_records_are_counted_and_told_of(tmp_path, caplog):
    examples = stripe_examples(4)
    broken = [
        make_example({"image/encoded": png_bytes(16, 16)}),
        make_example({**GOOD, "label": 0.5}),
        make_example({**GOOD, "label": (1, 2)}),
        make_example({"label": 1}),
        make_example({**GOOD, "image/encoded": b"no image"}),
        make_example({**GOOD, "image/encoded": jpeg_bytes()[:200]}),
    ]
    path = write(tmp_path / "a.tfrecord", examples[:6] + broken + examples[6:])
    damaged = bytearray(path.read_bytes())
    damaged[-10] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with caplog.at_level(logging.WARNING):
        data = read([path], tmp_path)
    assert data.left_out == {
        "corrupt_record": 1,
        "missing_feature": 1,
        "missing_label": 3,
        "not_an_image": 1,
        "truncated": 1,
    }
    assert len(data.train) + len(data.validation) == 11
    assert f"left out {path}@" in caplog.messages[0]
    assert caplog.messages[-1].startswith("left out 7 records: 1 corrupt_record, 1 missing_feature, 3 missing_label")
    assert len(caplog.messages) == 4


def test_validation_of_a_class_that_nobody_trains_is_left_out(tmp_path, caplog):
    train = write(tmp_path / "train.tfrecord", [e for e in stripe_examples(4) if b"even" not in e])
    validation = write(tmp_path / "validation.tfrecord", stripe_examples(2))
    data = read([train], tmp_path, validation=[validation], label_feature="name")
    assert data.classes == ("bottom", "top")
    assert len(data.train) == 8
    assert labels_of(data, data.validation) == ["top", "bottom"] * 2
    assert data.left_out == {"unknown_label": 2}
    assert "2 images for validation whose class has no image for training" in caplog.text


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([make_example({**GOOD, "label": 7})] * 3, r"3 images .* this many classes: one, 7; expected two"),
        ([make_example({"image/encoded": b"x", "label": 7})], r"0 images .* classes: none; expected two"),
        ([make_example(GOOD), make_example({**GOOD, "label": "a"})], r"some labels are numbers and some are text"),
        ([make_example({**GOOD, "label": n}) for n in range(3)], r"no image is left for validation beside 3"),
    ],
)
def test_too_little_to_train_on_is_an_error(tmp_path, examples, message):
    with pytest.raises(InputError, match=message):
        read([write(tmp_path / "a.tfrecord", examples)], tmp_path)


def test_no_match_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no input matched"):
        read([tmp_path / "nothing-*"], tmp_path)
