import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, ModelMetadata, RunInference
from apache_beam.testing.util import assert_that

from pipeline import EmbeddingModelHandler, EmbedImages
from pipeline.beam.options import make_runner, parse_beam_args
from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.embedding.embedder import Embedder
from pipeline.testing import jpeg_bytes, make_record, png_bytes
from tests.datasets import embed, make_photos, read_vectors

IMAGES = [*(jpeg_bytes(seed=seed) for seed in range(20)), b"no image", png_bytes(seed=3), b""]
THREADS = ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]


@pytest.fixture(scope="module")
def handler(tiny_module):
    return EmbeddingModelHandler.from_module(tiny_module, engine="tensorflow")


@pytest.fixture(scope="module")
def expected(tiny_module):
    """The vector of each image, or its failure."""
    with Embedder.from_module(tiny_module, engine="tensorflow") as embedder:
        found = embedder.embed([make_record(str(index), image=image) for index, image in enumerate(IMAGES)])
    results = {failure.key: failure.reason for failure in found.failures}
    for rows in found.rows:
        results |= zip(rows.column("key").to_pylist(), rows.column("embedding").to_pylist(), strict=True)
    return {image: results[b"%d" % index] for index, image in enumerate(IMAGES)}


def check(results, expected, count):
    assert len(results) == count
    for result in results:
        if isinstance(result.inference, Failure):
            assert result.inference.reason == expected[result.example]
        else:
            assert result.inference.dtype == np.float32
            assert result.inference.tolist() == expected[result.example]


def run(build, *args):
    options = parse_beam_args(args)
    with beam.Pipeline(runner=make_runner(options), options=options) as pipeline:
        build(pipeline)


@pytest.mark.parametrize("args", [(), THREADS])
def test_images(handler, expected, args):
    def build(pipeline):
        results = pipeline | beam.Create(IMAGES, reshuffle=bool(args)) | RunInference(handler)
        assert_that(results, lambda found: check(found, expected, len(IMAGES)))

    run(build, *args)


def test_keyed_images(handler, expected):
    keyed = [(f"key {index}", image) for index, image in enumerate(IMAGES)]

    def compare(found):
        assert {key: result.example for key, result in found} == dict(keyed)
        check([result for _, result in found], expected, len(IMAGES))

    run(lambda pipeline: assert_that(pipeline | beam.Create(keyed) | RunInference(KeyedModelHandler(handler)), compare))


def test_the_results_are_in_order(handler, tiny_module):
    model = handler.load_model()
    results = list(handler.run_inference(IMAGES, model))
    model.close()
    assert [result.example for result in results] == IMAGES
    assert {result.model_id for result in results} == {str(tiny_module)}
    assert handler.get_num_bytes(IMAGES) == sum(map(len, IMAGES))


def test_vectors_are_those_of_a_run(handler, tiny_module, tmp_path):
    photos = make_photos(tmp_path / "photos", 5)
    embed(tmp_path / "photos", tmp_path / "out", tiny_module)
    vectors = read_vectors(tmp_path / "out")
    keyed = [(photo.name.encode(), photo.read_bytes()) for photo in photos]

    def compare(found):
        assert {key: result.inference.tobytes() for key, result in found} == vectors

    run(lambda pipeline: assert_that(pipeline | beam.Create(keyed) | RunInference(KeyedModelHandler(handler)), compare))


def test_our_own_transform_works_before_beside_and_after(handler, expected, tiny_module):
    transform = EmbedImages.from_module(tiny_module, engine="tensorflow")
    records = [make_record(f"{index:02d}", image=image) for index, image in enumerate(IMAGES)]

    def embed_records(pipeline):
        def compare(batches):
            found = {failure.key: failure.reason for batch in batches for failure in batch.failures}
            for rows in (rows for batch in batches for rows in batch.rows):
                found |= zip(rows.column("key").to_pylist(), rows.column("embedding").to_pylist(), strict=True)
            assert found == {record.key: expected[record.image] for record in records}

        assert_that(pipeline | "Records" >> beam.Create(records) | transform, compare, "CheckRecords")

    def infer(pipeline):
        results = pipeline | "Images" >> beam.Create(IMAGES) | RunInference(handler)
        assert_that(results, lambda found: check(found, expected, len(IMAGES)), "CheckResults")

    def both(pipeline):
        embed_records(pipeline)
        infer(pipeline)

    for build in (embed_records, infer, both, embed_records):
        run(build)


def test_another_model_is_refused(handler):
    def build(pipeline):
        model = pipeline | "Model" >> beam.Create([ModelMetadata("new/module", "new")])
        pipeline | "Images" >> beam.Create(IMAGES) | RunInference(handler, model_metadata_pcoll=model)

    with pytest.raises(Exception, match="got the new model new/module; expected none, because vectors of two modules"):
        run(build)
    handler.update_model_path("")


def test_arguments_of_single_calls_are_refused(handler):
    with pytest.raises(UsageError, match="expected none: the handler's own settings count"):
        handler.validate_inference_args({"batch": 3})
