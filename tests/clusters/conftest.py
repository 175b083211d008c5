"""Clusters of Flink, Spark and Prism on this machine, one at a time, and what their jobs read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.testing import jpeg_bytes, make_example, make_tfrecord
from tests.clusters.clusters import ENGINES, Cluster, Unreachable
from tests.datasets import embed, make_photos, read_vectors

REQUIRED = "REQUIRE_CLUSTERS"
"""The variable that makes it a failure that a package registry cannot be reached."""
PHOTOS = 60
RECORDS = 3_000
"""In one file; a job takes some seconds for them, so that a test can step in."""
FILES = 24
"""Files of few records: each is a unit of work, and if there were few, chance would leave some worker without any."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", params=ENGINES, ids=lambda engine: engine.name)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, module_cache: Path
) -> Iterator[Cluster]:
    """The cluster of each engine in turn."""
    made = Cluster(request.param, tmp_path_factory.mktemp("cluster"))
    try:
        made.up()
        yield made
    except Unreachable as error:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{error}; {REQUIRED} is set")
        pytest.skip(str(error))
    finally:
        made.down()


@dataclass(frozen=True)
class Data:
    """Photos and records, one of each broken, and what they are embedded to.

    Attributes:
      directory: has them in its folders `photos` and `records`.
      module: the module.
      vectors: those of the DirectRunner, by key.
    """

    directory: Path
    module: str
    vectors: dict[bytes, bytes]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, convolutions: str) -> Data:
    directory, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("direct") / "out"
    make_photos(directory / "photos", PHOTOS)
    (directory / "photos/broken.jpg").write_bytes(b"broken")
    images = [jpeg_bytes(20, 24, seed=seed) for seed in range(RECORDS)]
    (directory / "records").mkdir()
    write_records(directory / "records/many.tfrecord", [*images, b""])
    for number in range(FILES):
        write_records(directory / f"records/few-{number:02d}.tfrecord", images[number : number + 10])
    embed(directory, output, convolutions, engine="auto")
    return Data(directory, convolutions, read_vectors(output))


def write_records(path: Path, images: list[bytes]) -> None:
    path.write_bytes(make_tfrecord(make_example({"image/encoded": image}) for image in images))
