from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.quiet import import_tensorflow
from pipeline.testing import write_tiny_module
from tests.gcs_emulator import GcsEmulator, gcs_emulator


@pytest.fixture(scope="session")
def tiny_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TF2 SavedModel; `pipeline.testing.tiny_vectors` says what it computes."""
    import_tensorflow()
    directory = tmp_path_factory.mktemp("modules") / "tiny_tf2"
    write_tiny_module(directory, format="tf2")
    return directory


@pytest.fixture(scope="session")
def tiny_tf1_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in the TF1 Hub format."""
    import_tensorflow()
    directory = tmp_path_factory.mktemp("modules") / "tiny_tf1"
    write_tiny_module(directory, format="tf1_hub")
    return directory


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsEmulator]:
    """Google Cloud Storage on 127.0.0.1 with one empty bucket, `gs://bucket`."""
    with gcs_emulator() as emulator:
        yield emulator
