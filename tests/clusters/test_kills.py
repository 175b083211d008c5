"""Processes that are killed while a job is under way: nothing is lost, nothing is done twice."""

import contextlib

import psutil
import pytest

from pipeline.dataset.verify import verify
from tests.datasets import complete, read_vectors


@pytest.mark.parametrize("victim", ["SDK process", "TaskManager", "Spark worker", "Spark executor"])
def test_a_kill(cluster, data, tmp_path, victim):
    if victim != "SDK process" and victim not in cluster.engine.parents:
        pytest.skip(f"{cluster.engine.name} has no {victim}")
    output = tmp_path / "out"
    command = cluster.start(data.directory, data.module, output)
    process = cluster.stop_writer(command, output)
    if victim in cluster.engine.parents:
        cluster.parent_of(process, victim).kill()
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent may have ended it
            process.resume()
    else:
        process.kill()
    done = command.end()
    assert done.code in (0, 1)
    assert [line[:7] for line in done.errors.splitlines() if "error" in line.lower()] == ["error: "] * done.code
    assert verify(str(output)).problems == ()
    cluster.up()

    summary = cluster.run(data.directory, data.module, output)
    assert (summary.records > 0) == (done.code == 1)
    assert read_vectors(output) == data.vectors
    assert complete(output)
