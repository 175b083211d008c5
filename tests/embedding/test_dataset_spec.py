import dataclasses
import re

import pytest

from pipeline.core.errors import OutputError, UsageError
from pipeline.embedding.dataset_spec import Preprocessing, Spec, check_same_space, differing_fields
from pipeline.embedding.embedder import Embedder
from pipeline.images.decoder import ImageDecoder
from pipeline.images.versions import decoder_versions
from pipeline.savedmodel.digest import module_digest
from pipeline.testing import TINY_DIMENSION, FakeEngine
from tests.datasets import SPEC

OTHER = {
    "module_sha256": "f" * 64,
    "signature": "image_feature_vector",
    "output_key": "pooled",
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
    "icc": "srgb",
    "color": "BGR",
    "value_range": (-1.0, 1.0),
    "resize": "area",
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
    assert fields - set(OTHER) == {"module", "parity", "preprocessing", "format_version", "decoders"}
    assert {item.name for item in dataclasses.fields(SPEC.preprocessing)} == set(OTHER_PREPROCESSING)
    moved = dataclasses.replace(SPEC, module="elsewhere", parity=1e-6, decoders={"pillow": "1.0"})
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
        assert embedder.dataset_spec == Spec(
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
            decoders=decoder_versions(),
        )


def test_an_embedder_around_a_bare_engine_has_no_spec():
    with (
        Embedder(FakeEngine(), ImageDecoder(height=32, width=32)) as embedder,
        pytest.raises(UsageError, match=r"^this embedder was made from an engine and has no spec; make it with"),
    ):
        _ = embedder.dataset_spec
