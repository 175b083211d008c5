import shutil

import pytest

from tests.export import waves


@pytest.fixture(scope="session")
def two_waves(tmp_path_factory):
    """The data set of two waves; read only."""
    output = tmp_path_factory.mktemp("two_waves") / "out"
    waves.first_wave(output)
    waves.second_wave(output)
    return output


@pytest.fixture
def first_of_two(tmp_path):
    """A data set of the first wave; `waves.second_wave` adds the second one."""
    waves.first_wave(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def exported(two_waves, tmp_path_factory):
    """The data set of two waves as a directory of Parquet files; read only."""
    from pipeline.commands.export import main

    directory = tmp_path_factory.mktemp("exported") / "parquet"
    assert main([str(two_waves), "--to=parquet", f"--output={directory}"]) == 0
    yield directory
    shutil.rmtree(directory)
