import dataclasses
import re

import pytest

from pipeline.core.errors import OutputError
from pipeline.embedding.model import choose_embedder
from pipeline.embedding.spec import Preprocessing, Spec, check_same_space, differing_fields, spec_of
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
    assert fields - set(OTHER) == {"module", "parity", "preprocessing", "format_version"}
    assert {item.name for item in dataclasses.fields(SPEC.preprocessing)} == set(OTHER_PREPROCESSING)
    moved = dataclasses.replace(SPEC, module="elsewhere", parity=1e-6)
    assert differing_fields(SPEC, moved) == []


def test_vectors_of_one_kind_only_come_together():
    check_same_space("out", SPEC, dataclasses.replace(SPEC, module="elsewhere"))
    text = (
        "--output=out holds vectors of another kind (normalization: none, now l2; decode: exact, now fast); name "
        "another directory, or start it anew with --overwrite"
    )
    other = dataclasses.replace(SPEC.preprocessing, decode="fast")
    with pytest.raises(OutputError, match=f"^{re.escape(text)}$"):
        check_same_space("out", SPEC, dataclasses.replace(SPEC, normalization="l2", preprocessing=other))


def test_the_spec_of_a_loaded_module(tiny_module):
    chosen = choose_embedder(
        str(tiny_module), engine="tensorflow", normalize="l2", decode="fast", exif_orientation=True
    )
    assert spec_of(chosen) == Spec(
        module=str(tiny_module),
        module_sha256=chosen.module.sha256,
        signature="serving_default",
        output_key=chosen.module.signature.output_key,
        dimension=chosen.engine.dimension,
        preprocessing=Preprocessing(height=32, width=32, decode="fast", exif_orientation=True),
        normalization="l2",
        engine="tensorflow",
        precision="float32",
        parity=None,
    )
