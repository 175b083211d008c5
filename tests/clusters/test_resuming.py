"""A data set over several starts."""

import contextlib

import psutil

from pipeline.commands.compact import main as compact
from pipeline.commands.verify import main as check
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.verify import verify
from pipeline.testing import jpeg_bytes
from tests.datasets import complete, embed, keep_stat, make_photos, read_vectors


def test_a_run_that_is_interrupted(cluster, data, tmp_path):
    output = tmp_path / "out"
    command = cluster.start(data.directory, data.module, output)
    process = cluster.stop_writer(command, output)
    command.interrupt()
    done = command.end()
    with contextlib.suppress(psutil.NoSuchProcess):  # Prism has ended it
        process.resume()
    assert done.code == 130
    assert done.complaint == "error: interrupted; committed work is kept: start the same command again to continue"
    assert "could not be cancelled" not in done.errors
    cluster.until_nobody_writes(output)
    assert read_manifests(str(output)) == ()
    assert verify(str(output)).problems == ()
    assert not (output / "lock.json").exists()

    cluster.run(data.directory, data.module, output)
    assert read_vectors(output) == data.vectors
    assert complete(output)


def test_failures_are_tried_again_and_changed_photos_embedded_once(cluster, data, tmp_path, capsys):
    photos, output = make_photos(tmp_path / "photos", 10), tmp_path / "out"
    good = photos[0].read_bytes()
    photos[0].write_bytes(bytes(len(good)))
    assert counts(cluster.run(tmp_path / "photos", data.module, output)) == (10, 9, 1, 0)

    keep_stat(photos[0], good)
    photos[1].write_bytes(jpeg_bytes(seed=1_000))
    make_photos(tmp_path / "photos", 1, first=10)
    done = cluster.run(tmp_path / "photos", data.module, output, "--retry_failed")
    assert counts(done) == (3, 3, 0, 8)
    embed(tmp_path / "photos", tmp_path / "expected", data.module, engine="auto")
    assert read_vectors(output) == read_vectors(tmp_path / "expected")

    assert check([str(output), *cluster.options()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 waves, 11 rows, 1 superseded, 0 failures; complete"
    assert compact([str(output), *cluster.options()]) == 0
    assert capsys.readouterr().out == "3 waves became one: 11 rows kept, 1 superseded dropped\n"
    assert read_vectors(output) == read_vectors(tmp_path / "expected")
    assert complete(output)


def counts(summary):
    return summary.records, summary.embedded, summary.failed, summary.skipped
