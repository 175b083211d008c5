"""A whole run on each engine."""

from tests.datasets import complete, read_vectors


def test_the_vectors_are_those_of_the_direct_runner(cluster, data, tmp_path, caplog):
    output = tmp_path / "out"
    before = cluster.loads()
    summary = cluster.run(data.directory, data.module, output)
    assert "not checked" not in caplog.text
    assert summary.records == summary.embedded + summary.failed
    assert summary.embedded == len(data.vectors)
    assert summary.failures_by_reason == {"empty": 1, "not_an_image": 1}
    assert read_vectors(output) == data.vectors
    assert complete(output)

    loads = [load for load in cluster.loads() if load not in before]
    assert len({load.process for load in loads}) == len(loads), loads  # once in each process
    assert len({load.log for load in loads}) == cluster.engine.workers, loads
