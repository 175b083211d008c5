import gzip
import re

import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.cores import usable_cores
from pipeline.job import dry_run
from pipeline.job.dry_run import preview
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord

EXAMPLES = [make_example({"image/encoded": jpeg_bytes(seed=0)})] * 20


@pytest.fixture
def flags(tmp_path, tiny_module):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tfrecord").write_bytes(make_tfrecord(EXAMPLES))
    return {
        "input": tmp_path / "in",
        "module": tiny_module,
        "output": tmp_path / "out",
        "engine": "tensorflow",
        "max_failure_rate": 1.0,
        "dry_run": True,
    }


def test_inputs_that_are_read_to_their_end_are_known_exactly(flags, tmp_path):
    (tmp_path / "in/b.jpg").write_bytes(b"")
    found = preview(RunConfig.from_flags(**flags))
    assert [group.files for group in found.work.groups] == [1, 1]
    assert (found.estimate.records, found.estimate.is_exact) == (21, True)
    assert (found.work.waves, found.work.skipped) == (1, 0)
    assert (found.sample_records, found.sample_embedded) == (21, 20)
    assert found.output_bytes == 20 * found.spec.dimension * 4
    assert [failure.reason for failure in found.failures] == ["empty"]
    assert not (tmp_path / "out").exists()
    text = str(found)
    assert re.search(r"^input +2 files \(\d+ kB\); 0 records done before$", text, re.MULTILINE)
    assert re.search(r"^sample +20 of 21 records embedded$", text, re.MULTILINE)
    assert re.search(r"^  failed +\S+b\.jpg: empty: ", text, re.MULTILINE)
    assert re.search(r"^run +21 records in 1 wave, \S+ kB of vectors$", text, re.MULTILINE)
    assert text.endswith("\nnothing was written")


def test_of_more_than_a_sample_the_rest_is_estimated_by_its_bytes(flags, monkeypatch):
    monkeypatch.setattr(dry_run, "SAMPLE_RECORDS", 4)
    found = preview(RunConfig.from_flags(**flags))
    assert (found.sample_records, found.sample_embedded) == (4, 4)
    assert found.estimate.records == len(EXAMPLES)
    assert re.search(r"^run +about 20 records in 1 wave, ", str(found), re.MULTILINE)


def test_records_with_large_other_features_go_by_images(flags, tmp_path):
    image = jpeg_bytes(80, 96)
    assert 1_000 < len(image) < 4_000
    examples = [make_example({"image/encoded": image, "other": bytes(200_000)})] * 100
    (tmp_path / "in/a.tfrecord").write_bytes(make_tfrecord(examples))
    found = preview(RunConfig.from_flags(**flags))
    assert found.sample_records == 64
    assert found.estimate.records == pytest.approx(100, rel=0.1)
    assert found.output_bytes == pytest.approx(100 * found.spec.dimension * 4, rel=0.1)


def test_a_sample_has_records_of_each_kind(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "SAMPLE_RECORDS", 8)
    for index in range(10):
        (tmp_path / f"in/{index}.jpg").write_bytes(b"no image")
    found = preview(RunConfig.from_flags(**flags))
    assert (found.sample_records, found.sample_embedded, len(found.failures)) == (8, 4, 4)
    assert (found.estimate.records, found.estimate.embedded) == (30, 20)


def test_compressed_inputs_make_the_estimate_rough(flags, tmp_path, monkeypatch):
    (tmp_path / "in/b.tfrecord.gz").write_bytes(gzip.compress(make_tfrecord(EXAMPLES)))
    assert "rough" not in str(preview(RunConfig.from_flags(**flags)))
    monkeypatch.setattr(dry_run, "SAMPLE_RECORDS", 8)
    text = str(preview(RunConfig.from_flags(**flags)))
    assert re.search(r"^run +about .* of vectors \(rough: some files are compressed\)$", text, re.MULTILINE)


def test_time_memory_and_cost(flags):
    found = preview(RunConfig.from_flags(**flags))
    assert (found.workers, found.price_per_vcpu_hour) == (usable_cores(), None)
    assert found.estimate.core_seconds > 0
    assert 50e6 < found.memory_bytes < 100e9
    text = str(found)
    assert re.search(r"^one core +[\d,.]+ images/s$", text, re.MULTILINE)
    assert re.search(r"^memory +\S+ [MG]B for each worker process \(the peak of this process\)$", text, re.MULTILINE)
    assert "cost" not in text
    found = preview(RunConfig.from_flags(**flags, workers=8, price_per_vcpu_hour=0.05))
    assert re.search(r"^8 workers +.+ s, .+ vCPU hours \(a worker is one vCPU; without start-up\)$", str(found), re.M)


def test_the_text_for_a_large_input(flags):
    found = preview(RunConfig.from_flags(**flags))
    large = dry_run.Estimate(records=3_604_321, is_exact=False, embedded=3_600_000, core_seconds=18_021.605)
    text = str(
        dry_run.Preview(
            work=found.work,
            spec=found.spec,
            sample_records=64,
            sample_embedded=64,
            failures=(),
            estimate=large,
            memory_bytes=1_200_000_000,
            workers=2,
            price_per_vcpu_hour=0.05,
        )
    )
    vectors = f"{3600 * found.spec.dimension * 4 / 1e3:.0f}"
    assert text.splitlines()[2:] == [
        "sample     64 of 64 records embedded",
        f"run        about 3,600,000 records in 1 wave, {vectors} MB of vectors",
        "one core   200 images/s",
        "2 workers  2.5 h, 5.0 vCPU hours (a worker is one vCPU; without start-up)",
        "memory     1.2 GB for each worker process (the peak of this process)",
        "cost       0.25 for this input, 0.069 for a million images, at 0.05 per vCPU hour",
        "nothing was written",
    ]


def test_the_preview_of_a_next_run(flags, tmp_path):
    (tmp_path / "in/b.jpg").write_bytes(b"no image")
    pipeline.run(RunConfig.from_flags(**(flags | {"dry_run": False})))
    found = preview(RunConfig.from_flags(**flags))
    assert (found.estimate.records, found.work.waves, found.work.skipped) == (0, 0, 21)
    assert found.estimate.core_seconds == 0
    assert "one core" not in str(found)
    again = preview(RunConfig.from_flags(**flags, retry_failed=True))
    assert (again.estimate.records, again.work.waves, again.work.skipped) == (1, 1, 20)
    assert [failure.reason for failure in again.failures] == ["not_an_image"]
