"""The export to Feast, read by the real Feast in its own environment."""

import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.export import main
from tests.environments import REPOSITORY
from tests.export import waves

BIN = REPOSITORY / ".venv-clients" / "bin"
LOOP = REPOSITORY / "tests" / "export" / "feast_loop.py"
WAVES = 10


@pytest.mark.slow
def test_a_loop_beside_a_running_pipeline_ends_with_every_key_online(first_of_two, tmp_path):
    assert BIN.exists(), "scripts/install.sh requirements-clients.lock .venv-clients makes the environment"
    features, stop = tmp_path / "features", tmp_path / "stop"
    environment = {"HOME": str(tmp_path), "FEAST_USAGE": "False", "PATH": "/usr/bin:/bin"}

    def export():
        assert main([str(first_of_two), "--to=feast", f"--output={features}"]) == 0

    export()
    subprocess.run([BIN / "feast", "apply"], cwd=features, env=environment, check=True, capture_output=True)
    later = {f"{251 + number:03d}.jpg": waves.vector(f"{251 + number:03d}.jpg").tobytes() for number in range(2, WAVES)}
    expected = waves.expected() | later
    pq.write_table(pa.table({"key": list(expected)}), tmp_path / "keys.parquet")
    command = [BIN / "python", LOOP, features, stop, tmp_path / "keys.parquet", tmp_path / "vectors.parquet"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as loop:
        try:
            waves.second_wave(first_of_two)
            export()
            for number in range(2, WAVES):
                waves.add_images(first_of_two, f"{number:05d}", [f"{251 + number:03d}.jpg"])
                export()
        finally:
            stop.touch()
        _, errors = loop.communicate(timeout=300)
    assert loop.returncode == 0, errors
    found = pq.read_table(tmp_path / "vectors.parquet")
    keys = found["key"].to_pylist()
    assert waves.by_key(keys, found["online"].to_pylist()) == expected
    assert waves.by_key(keys, found["later"].to_pylist()) == expected
    assert found["earlier"].null_count == len(keys)
