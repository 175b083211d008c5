import os
import pickle
import uuid
import warnings

import apache_beam as beam
import cv2
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from apache_beam.utils.shared import Shared

from pipeline.beam.embed import LOADS_COUNTER, EmbedImages, _EmbedFn
from pipeline.beam.options import make_runner, parse_beam_args
from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.core.records import Feature
from pipeline.embedding.embedder import Embedder
from pipeline.embedding.embedder_spec import EmbedderSpec
from pipeline.engines.base import ModuleFunction
from pipeline.hub.resolve import resolve_module
from pipeline.images.decoder import ImageDecoder
from pipeline.savedmodel.signatures import choose_signature
from pipeline.testing import jpeg_bytes, make_record, png_bytes, tiny_vectors

THREADS = ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]
PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


def embedder_spec(module_directory, engine):
    module = resolve_module(str(module_directory))
    function = ModuleFunction(module.handle, module.path, module.sha256, choose_signature(module), engine)
    return EmbedderSpec(function, ImageDecoder(height=32, width=32), batch_size=4)


@pytest.fixture(scope="module")
def spec(tiny_module):
    return embedder_spec(tiny_module, "tensorflow")


RECORDS = [make_record(f"key {i}", image=jpeg_bytes(seed=i)) for i in range(30)]


class _Save(beam.DoFn):
    """Writes each batch to a file of its own, which works from any process."""

    def __init__(self, directory):
        self._directory = directory

    def process(self, batch):
        with open(os.path.join(self._directory, uuid.uuid4().hex), "wb") as file:
            pickle.dump((os.getpid(), batch), file)


def run(transform, items, directory, *args, spread=False):
    """Runs the transform; returns its batches with the process of each, and the number of loads."""
    options = parse_beam_args(args)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    records = pipeline | beam.Create(items)
    if spread:
        records |= beam.Reshuffle()
    _ = records | transform | beam.ParDo(_Save(str(directory)))
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_name(LOADS_COUNTER))["counters"]
    batches = [pickle.loads(path.read_bytes()) for path in directory.iterdir()]
    return batches, sum(counter.committed for counter in counters)


def rows_of(batches):
    rows = [row for _, batch in batches for part in batch.rows for row in part.to_pylist()]
    return {row["key"]: row["embedding"] for row in rows}


def expected_rows():
    decode = ImageDecoder(height=32, width=32)
    return {record.key: tiny_vectors(decode(record.image)[None])[0].tolist() for record in RECORDS}


def check_rows(batches):
    found, expected = rows_of(batches), expected_rows()
    assert sum(batch.num_rows for _, batch in batches) == len(RECORDS)
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        assert found[key] == pytest.approx(vector, rel=1e-5, abs=1e-5)


def test_every_record_has_its_vector(spec, tmp_path):
    batches, loads = run(EmbedImages(spec), RECORDS, tmp_path)
    check_rows(batches)
    assert loads == 1


def test_several_bundles_load_once(spec, tmp_path):
    batches, loads = run(EmbedImages(spec), RECORDS, tmp_path, "--direct_num_workers=2", spread=True)
    check_rows(batches)
    assert loads == 1


def test_several_threads_load_once(spec, tmp_path):
    batches, loads = run(EmbedImages(spec), RECORDS, tmp_path, *THREADS, spread=True)
    check_rows(batches)
    assert loads == 1


@pytest.mark.slow
def test_several_processes_load_once_each(tiny_module, tmp_path, monkeypatch, pytestconfig):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    spec = embedder_spec(tiny_module, "openvino")  # it starts in a second where TensorFlow takes four
    spec.source.load()  # converts the module, once for all processes
    batches, loads = run(EmbedImages(spec), RECORDS, tmp_path, *PROCESSES, spread=True)
    check_rows(batches)
    processes = {process for process, _ in batches}
    assert os.getpid() not in processes
    assert loads == len(processes)


def test_one_handle_loads_once_for_several_pipelines(spec, tmp_path):
    shared = Shared()
    keep = shared.acquire(lambda: Embedder.load(spec))
    loads = 0
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        batches, count = run(EmbedImages(spec, shared), RECORDS, tmp_path / name)
        check_rows(batches)
        loads += count
    assert loads == 0
    keep.close()


def test_two_transforms_in_one_pipeline(spec, tmp_path):
    options = parse_beam_args([])
    with beam.Pipeline(runner=make_runner(options), options=options) as pipeline:
        records = pipeline | beam.Create(RECORDS)
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            _ = records | name >> EmbedImages(spec) | f"Save {name}" >> beam.ParDo(_Save(str(tmp_path / name)))
    for name in ("first", "second"):
        check_rows([pickle.loads(path.read_bytes()) for path in (tmp_path / name).iterdir()])


def test_failures_are_passed_on_and_made(spec, tmp_path):
    earlier = Failure(b"earlier", "s", "read", "read_error", "gone")
    items = [earlier, make_record("bad", image=b"no image"), make_record("good", image=png_bytes())]
    batches, _ = run(EmbedImages(spec), items, tmp_path)
    failures = {failure.key: failure for _, batch in batches for failure in batch.failures}
    assert failures.keys() == {b"earlier", b"bad"}
    assert failures[b"earlier"] == earlier
    assert (failures[b"bad"].stage, failures[b"bad"].reason) == ("decode", "not_an_image")
    assert rows_of(batches).keys() == {b"good"}


def test_features_are_kept(spec, tmp_path):
    record = make_record("a", features={"label": Feature("int64", (7,))})
    batches, _ = run(EmbedImages(spec), [record], tmp_path)
    ((_, batch),) = batches
    assert batch.rows[0].column("label").to_pylist() == [[7]]


def test_nothing_in_nothing_out(spec, tmp_path):
    assert run(EmbedImages(spec), [], tmp_path)[0] == []


def test_windows_are_refused(spec):
    options = parse_beam_args([])
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    records = pipeline | beam.Create(RECORDS)
    message = (
        r"^EmbedImages got a PCollection with FixedWindows; expected the global window; "
        r"apply beam.WindowInto\(GlobalWindows\(\)\) first$"
    )
    with pytest.raises(UsageError, match=message):
        _ = records | beam.WindowInto(FixedWindows(60)) | EmbedImages(spec)
    _ = records | "Global" >> beam.WindowInto(GlobalWindows()) | "Again" >> EmbedImages(spec)


def test_a_worker_resizes_in_its_own_threads_without_warnings_of_pillow(spec):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with warnings.catch_warnings():
            _EmbedFn(spec, Shared()).setup()
            assert cv2.getNumThreads() == 1
            warnings.warn_explicit("metadata", UserWarning, "file.py", 1, module="PIL.TiffImagePlugin")
    finally:
        cv2.setNumThreads(threads)
