import dataclasses
import re

import pytest

from pipeline.core.errors import OutputError, UsageError
from pipeline.core.json import from_json, to_json
from pipeline.embedding.dataset_spec import Preprocessing, Spec, check_same_space, differing_fields
from pipeline.embedding.embedder import Embedder
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.digest import module_digest
from pipeline.testing import TINY_DIMENSION, FakeEngine
from tests.datasets import SPEC

OTHER = {
    "module_sha256": "f" * 64,
    "signature": "image_feature_vector",
    "output_key": "pooled",
    "pooling": "mean",
    "dimension": 4,
    "normalization": "l2",
    "engine": "openvino",
    "precision": "bfloat16",
    "dtype": "float16",
}
OTHER_PREPROCESSING = {
    "height": 33,
    "width": 49,
    "decode": "fast",
    "exif_orientation": True,
    "color": "BGR",
    "value_range": (-1.0, 1.0),
    "resize": "area",
    "resize_mode": "crop",
    "crop_fraction": 0.875,
    "interpolation": "bicubic",
    "antialias": True,
    "input_range": (0.0, 255.0),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "margins": "half_even",
    "fill": (1, 2, 3),
}


@pytest.mark.parametrize("name", OTHER)
def test_specs_differ_in_each_field_that_makes_the_vectors(name):
    (difference,) = differing_fields(SPEC, dataclasses.replace(SPEC, **{name: OTHER[name]}))
    assert difference == f"{name}: {getattr(SPEC, name)}, now {OTHER[name]}"


@pytest.mark.parametrize("name", OTHER_PREPROCESSING)
def test_specs_differ_in_each_field_of_the_preprocessing(name):
    other = dataclasses.replace(SPEC.preprocessing, **{name: OTHER_PREPROCESSING[name]})
    (difference,) = differing_fields(SPEC, dataclasses.replace(SPEC, preprocessing=other))
    assert difference == f"{name}: {getattr(SPEC.preprocessing, name)}, now {OTHER_PREPROCESSING[name]}"


def test_every_field_of_a_spec_is_either_compared_or_known_not_to_matter():
    fields = {item.name for item in dataclasses.fields(SPEC)}
    assert fields - set(OTHER) == {"module", "parity", "certificate", "preprocessing", "format_version"}
    assert {item.name for item in dataclasses.fields(SPEC.preprocessing)} == set(OTHER_PREPROCESSING)
    moved = dataclasses.replace(SPEC, module="elsewhere", parity=1e-6)
    assert differing_fields(SPEC, moved) == []


def test_vectors_of_one_kind_only_come_together():
    check_same_space("out", SPEC, dataclasses.replace(SPEC, module="elsewhere"))
    text = (
        "--output=out holds vectors of another kind (normalization: none, now l2; decode: exact, now fast); name "
        "another directory, or replace the data set with --overwrite"
    )
    other = dataclasses.replace(SPEC.preprocessing, decode="fast")
    with pytest.raises(OutputError, match=f"^{re.escape(text)}$"):
        check_same_space("out", SPEC, dataclasses.replace(SPEC, normalization="l2", preprocessing=other))


def test_the_spec_of_a_loaded_module(tiny_module):
    options = {"engine": "tensorflow", "normalize": "l2", "decode": "fast", "exif_orientation": True}
    with Embedder.from_module(str(tiny_module), **options) as embedder:
        spec = embedder.dataset_spec
        assert dataclasses.replace(spec, certificate=None) == Spec(
            module=str(tiny_module),
            module_sha256=module_digest(tiny_module),
            signature="serving_default",
            output_key="default",
            dimension=TINY_DIMENSION,
            preprocessing=Preprocessing(height=32, width=32, decode="fast", exif_orientation=True),
            normalization="l2",
            engine="tensorflow",
            precision="float32",
            parity=None,
        )


@pytest.mark.parametrize("name", PRESETS.names)
def test_a_spec_tells_the_whole_transform(name):
    """Also to older programs, which know only three of its fields."""
    decoder = ImageDecoder(height=32, width=48, transform=PRESETS.load(name))
    preprocessing = Preprocessing.of(decoder)
    assert from_json(Preprocessing, to_json(preprocessing)) == preprocessing
    assert preprocessing.transform == decoder.transform
    hub = Preprocessing(height=32, width=48, decode="exact", exif_orientation=False)
    assert (preprocessing == hub) == (name == "hub")
    known = ("color", "value_range", "resize")
    assert all(getattr(preprocessing, item) == getattr(hub, item) for item in known) == (name == "hub")


def test_a_transform_in_words_in_a_spec():
    preprocessing = Preprocessing.of(ImageDecoder(height=8, width=8, transform=PRESETS.load("imagenet")))
    assert preprocessing.resize == "crop 0.875, bilinear, half-pixel centres, antialias"
    assert preprocessing.value_range == pytest.approx((-2.1179, 2.64), abs=1e-4)
    assert Preprocessing.of(ImageDecoder(height=8, width=8, transform=PRESETS.load("keras_caffe"))).color == "BGR"


def test_an_embedder_around_a_bare_engine_has_no_spec():
    with (
        Embedder(FakeEngine(), ImageDecoder(height=32, width=32)) as embedder,
        pytest.raises(UsageError, match=r"^this embedder was made from an engine and has no spec; make it with"),
    ):
        _ = embedder.dataset_spec


@pytest.mark.parametrize(("pooling", "is_written"), [(None, False), ("mean", True)])
def test_the_pooling_is_written_only_if_there_is_one(pooling, is_written):
    spec = dataclasses.replace(SPEC, pooling=pooling)
    assert (b"pooling" in to_json(spec)) == is_written
    assert from_json(Spec, to_json(spec)) == spec
