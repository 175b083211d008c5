"""Processes that are killed while a job is under way: nothing is lost, nothing is done twice."""

import pytest

from pipeline.dataset.verify import verify
from tests.clusters.conftest import write_list
from tests.clusters.gates import Gate, wait_at
from tests.datasets import complete, read_vectors


@pytest.mark.parametrize("victim", ["SDK process", "worker"])
def test_a_kill(cluster, data, tmp_path, victim):
    if victim == "worker" and cluster.engine.workers == 1:
        pytest.skip(f"{cluster.engine.name} has no workers apart from its job server")
    photos = data.copy_photos(tmp_path)
    listed, output = write_list(tmp_path / "list.txt", photos), tmp_path / "out"
    gate = Gate(photos[40])
    command = cluster.start(listed, data.module, output, directory=tmp_path)
    (process,) = wait_at(gate, command)
    gate.remove()  # another try will find the photo
    (process if victim == "SDK process" else cluster.worker_of(process)).kill()
    gate.open()
    done = command.end()
    assert done.code in (0, 1)
    assert [line[:7] for line in done.errors.splitlines() if "error" in line.lower()] == ["error: "] * done.code
    assert verify(str(output)).problems == ()
    cluster.up()

    again = cluster.run(listed, data.module, output, directory=tmp_path)
    assert again.code == 0, again.errors
    assert read_vectors(output) == data.vectors_of(photos)
    assert complete(output)
