"""A data set over several starts."""

import json

from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.verify import verify
from pipeline.testing import jpeg_bytes
from tests.clusters.conftest import write_list
from tests.clusters.gates import Gate, wait_at
from tests.datasets import complete, embed, keep_stat, make_photos, read_vectors

COUNTS = ("records", "embedded", "failed", "skipped")


def test_a_run_that_is_interrupted(cluster, data, tmp_path):
    photos = data.copy_photos(tmp_path)
    listed, output = write_list(tmp_path / "list.txt", photos), tmp_path / "out"
    gate = Gate(photos[40])
    command = cluster.start(listed, data.module, output, directory=tmp_path)
    wait_at(gate, command)
    command.interrupt()
    done = command.end()
    assert done.code == 130
    assert done.complaint == "error: interrupted; committed work is kept: start the same command again to continue"
    assert "could not be cancelled" not in done.errors
    gate.remove()
    gate.open()
    cluster.until_job_ended("CANCELLED")
    assert read_manifests(str(output)) == ()
    assert verify(str(output)).problems == ()
    assert not (output / "lock.json").exists()

    again = cluster.run(listed, data.module, output, directory=tmp_path)
    assert again.code == 0, again.errors
    assert read_vectors(output) == data.vectors_of(photos)
    assert complete(output)


def test_failures_are_tried_again_and_changed_photos_embedded_once(cluster, data, tmp_path):
    photos, output = data.copy_photos(tmp_path, 10), tmp_path / "out"
    good = photos[0].read_bytes()
    photos[0].write_bytes(bytes(len(good)))
    assert counts(cluster.run(tmp_path / "photos", data.module, output), output) == (10, 9, 1, 0)

    keep_stat(photos[0], good)
    photos[1].write_bytes(jpeg_bytes(seed=1_000))
    make_photos(tmp_path / "photos", 1, first=10)
    done = cluster.run(tmp_path / "photos", data.module, output, "--retry_failed")
    assert counts(done, output) == (3, 3, 0, 8)
    embed(tmp_path / "photos", tmp_path / "expected", data.module, engine="auto")
    assert read_vectors(output) == read_vectors(tmp_path / "expected")

    checked = cluster.maintain("pipeline.verify", output)
    assert checked.code == 0, checked.errors
    assert checked.output.splitlines()[-1] == "3 waves, 12 rows, 1 superseded, 0 failures; complete"
    compacted = cluster.maintain("pipeline.compact", output)
    assert compacted.code == 0, compacted.errors
    assert compacted.output == "3 waves became one: 11 rows kept, 1 superseded dropped\n"
    assert read_vectors(output) == read_vectors(tmp_path / "expected")
    assert complete(output)


def counts(done, output):
    assert done.code == 0, done.errors
    summary = json.loads((output / "summary.json").read_text())
    return tuple(summary[name] for name in COUNTS)
