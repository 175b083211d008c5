"""Flink has one bundle for all that a worker does in a job: what a bundle holds must not grow with it."""

import contextlib
import time

import psutil
import pytest

from pipeline.dataset.metadata import read_manifests
from pipeline.testing import jpeg_bytes
from tests.clusters.conftest import write_records

RECORDS = 16_000
FILES = 2
GROWTH_BYTES = 32 << 20
"""Allowed growth over three quarters of the records, which have 61 MB of vectors and 20 MB of images."""


def test_the_memory_of_a_long_bundle_is_flat(cluster, data, tmp_path):
    if cluster.engine.name != "flink":
        pytest.skip("the other engines have many bundles")
    images = [jpeg_bytes(96, 96, seed=seed) for seed in range(100)]
    (tmp_path / "records").mkdir()
    for number in range(FILES):
        write_records(tmp_path / f"records/{number}.tfrecord", images * (RECORDS // FILES // len(images)))
    output = tmp_path / "out"
    command = cluster.start(tmp_path / "records", data.module, output)
    samples = []
    while command.process.poll() is None:
        samples.append((staged_bytes(output), resident_bytes(cluster.sdk_processes())))
        time.sleep(0.1)  # leaves the cores to the job
    done = command.end()
    assert done.code == 0, done.errors
    (manifest,) = read_manifests(str(output))
    assert manifest.embedded == RECORDS
    assert len(manifest.outputs) <= cluster.engine.workers  # a file for each bundle

    written = sum(entry.size_bytes for entry in manifest.outputs)
    first, *later = [resident for staged, resident in samples if staged >= written / 4]
    # Rows reach the disk while the bundle is open.
    assert any(written / 4 <= staged <= written / 2 for staged, _ in samples)
    assert max(later) - first <= GROWTH_BYTES, samples


def staged_bytes(output):
    """Returns the size of the rows that are written, but not committed."""
    found = 0
    for path in output.glob("staging/*/*/embeddings-*"):
        with contextlib.suppress(FileNotFoundError):  # it is committed meanwhile
            found += path.stat().st_size
    return found


def resident_bytes(processes):
    found = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.memory_info().rss
    return found
