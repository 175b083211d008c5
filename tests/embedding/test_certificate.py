import dataclasses
import hashlib
import importlib.metadata
import sys

import numpy as np
import pytest

from pipeline import Embedder
from pipeline.core.json import from_json, to_json
from pipeline.embedding.certificate import certify
from pipeline.embedding.dataset_spec import Spec, differing_fields
from pipeline.engines.parity import encoded_probes, plain_pixels
from pipeline.images.decoder import ImageDecoder
from pipeline.testing import FakeEngine, tiny_vectors
from tests.model_formats.models import CNN, write_ir

TENSORFLOW = importlib.metadata.version("tensorflow")


@pytest.fixture(scope="module")
def embedder(tiny_module):
    with Embedder.from_module(tiny_module, engine="openvino") as embedder:
        yield embedder


def test_the_pixels_of_the_reference_are_those_of_the_decoder():
    decoder = ImageDecoder(height=40, width=56)
    decoded = np.stack([decoder(data) for data in encoded_probes(40, 56)])
    np.testing.assert_allclose(plain_pixels(40, 56), decoded, atol=2e-5)


def test_the_whole_chain_is_compared_with_tensorflow(embedder):
    certificate = embedder.dataset_spec.certificate
    assert certificate.reference == f"tensorflow {TENSORFLOW}"
    assert certificate.difference < 1e-5
    np.testing.assert_allclose(
        embedder.engine.reference_vectors(plain_pixels(32, 32)), tiny_vectors(plain_pixels(32, 32)), rtol=1e-4
    )


def test_the_digest_is_that_of_the_vectors_of_the_encoded_probes(embedder):
    decoder = embedder.spec.decoder
    vectors = [embedder.engine.infer(decoder(data)[np.newaxis]) for data in encoded_probes(32, 32)]
    digest = hashlib.sha256(np.concatenate(vectors).astype("<f4").tobytes()).hexdigest()
    assert embedder.dataset_spec.certificate.probe_sha256 == digest


def test_a_decoder_that_differs_shows(embedder):
    turned = dataclasses.replace(embedder.spec.decoder, formats=tuple(map(Darker, embedder.spec.decoder.formats)))
    assert certify(embedder.engine, turned).difference == pytest.approx(0.5, abs=0.05)


class Darker:
    """An image format whose pixels are half as bright."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def decode(self, data, request):
        return self._inner.decode(data, request) // 2


def test_fast_decoding_is_compared_with_exact_pixels(embedder):
    fast = certify(embedder.engine, dataclasses.replace(embedder.spec.decoder, decode="fast"))
    assert 1e-4 < fast.difference < 0.1


def test_limits_do_not_concern_the_probes(embedder):
    limited = dataclasses.replace(embedder.spec.decoder, max_pixels=1, max_image_bytes=1)
    assert certify(embedder.engine, limited) == embedder.dataset_spec.certificate


def test_tensorflow_compares_itself(tiny_module):
    with Embedder.from_module(tiny_module, engine="tensorflow") as embedder:
        certificate = embedder.dataset_spec.certificate
    assert certificate.reference == f"tensorflow {TENSORFLOW}"
    assert certificate.difference < 1e-5


def test_other_pixels_are_sent_to_the_reference_once(embedder, module_cache, monkeypatch):
    images = plain_pixels(32, 32)[:2]
    first = embedder.engine.reference_vectors(images)
    np.testing.assert_allclose(first, tiny_vectors(images), rtol=1e-4)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    np.testing.assert_array_equal(embedder.engine.reference_vectors(images), first)


def test_without_a_reference_there_is_a_digest_only(tmp_path):
    path = write_ir(tmp_path / "net.xml", CNN)
    with Embedder.from_module(path, preprocess="hub") as embedder:
        certificate = embedder.dataset_spec.certificate
    assert (certificate.reference, certificate.difference) == (None, None)
    assert len(certificate.probe_sha256) == 64


def test_a_custom_engine_has_no_reference():
    certificate = certify(FakeEngine(), ImageDecoder(height=16, width=16))
    assert (certificate.reference, certificate.difference) == (None, None)


def test_it_is_a_record_that_no_later_run_must_meet(embedder):
    spec = embedder.dataset_spec
    other = dataclasses.replace(spec.certificate, reference="tensorflow 1.0", difference=1.0, probe_sha256="0" * 64)
    assert differing_fields(spec, dataclasses.replace(spec, certificate=other)) == []
    assert differing_fields(spec, dataclasses.replace(spec, certificate=None)) == []
    assert from_json(Spec, to_json(spec)) == spec
