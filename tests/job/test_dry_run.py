import pytest

import pipeline
from pipeline.core.config import RunConfig
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
    }


def test_what_is_read_to_its_end_is_known_exactly(flags, tmp_path):
    (tmp_path / "in/b.jpg").write_bytes(b"")
    found = preview(RunConfig.from_flags(**flags, dry_run=True))
    assert (found.files, found.records, found.waves, found.skipped) == (2, 21, 1, 0)
    assert (found.sample_records, found.sample_embedded) == (21, 20)
    assert found.output_bytes == 20 * found.spec.dimension * 4
    assert [failure.reason for failure in found.failures] == ["empty"]
    assert not (tmp_path / "out").exists()
    text = str(found)
    assert "2 files to read" in text
    assert "sample: 20 of 21 records embedded" in text
    assert "a run would commit 1 waves, some 21 records" in text
    assert text.endswith("\nnothing was written")


def test_of_more_than_a_sample_the_rest_is_estimated_by_its_bytes(flags, monkeypatch):
    monkeypatch.setattr(dry_run, "SAMPLE_RECORDS", 4)
    found = preview(RunConfig.from_flags(**flags, dry_run=True))
    assert (found.sample_records, found.sample_embedded) == (4, 4)
    assert found.records == pytest.approx(len(EXAMPLES), rel=0.2)


def test_what_a_next_run_would_do(flags, tmp_path):
    (tmp_path / "in/b.jpg").write_bytes(b"no image")
    pipeline.run(RunConfig.from_flags(**flags))
    found = preview(RunConfig.from_flags(**flags, dry_run=True))
    assert (found.records, found.waves, found.skipped) == (0, 0, 21)
    assert found.seconds < 1
    again = preview(RunConfig.from_flags(**flags, dry_run=True, retry_failed=True))
    assert (again.records, again.waves, again.skipped) == (1, 1, 20)
    assert [failure.reason for failure in again.failures] == ["not_an_image"]
