"""The code of docs/destinations.md, run with the real clients."""

import re
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.commands.export import main
from tests.environments import REPOSITORY
from tests.export import waves

PAGE = (REPOSITORY / "docs" / "destinations.md").read_text()
CLIENTS = REPOSITORY / ".venv-clients" / "bin" / "python"
"""The environment of clients that cannot share that of the tests; `./run_tests.sh` makes it."""


def code_of(tool):
    """The Python code in the section of a tool."""
    section = re.search(rf"^### {re.escape(tool)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)
    return code


@pytest.fixture
def folder(two_waves, exported, tmp_path, monkeypatch):
    """A current directory with the names of the page."""
    (tmp_path / "out").symlink_to(two_waves)
    (tmp_path / "exported").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(tool, **names):
    exec(compile(code_of(tool), f"{tool} in destinations.md", "exec"), names)
    return names


def vectors_of(rows):
    return waves.by_key(rows["key"].to_pylist(), rows["embedding"].to_pylist())


def test_duckdb(folder):
    assert vectors_of(run("DuckDB")["rows"]) == waves.expected()


def test_polars(folder):
    assert vectors_of(run("Polars")["rows"].to_arrow()) == waves.expected()


def test_pandas(folder):
    rows = run("pandas")["rows"]
    assert waves.by_key(list(rows["key"]), rows["embedding"]) == waves.expected()


@pytest.mark.slow
def test_datasets(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    rows = run("Hugging Face Datasets")["rows"]
    assert waves.by_key(list(rows["key"]), rows["embedding"]) == waves.expected()


@pytest.mark.slow
def test_lancedb(folder):
    found = run("LanceDB")
    assert vectors_of(found["rows"]) == waves.expected()
    assert found["nearest"][0] == found["images"].head(1)["key"][0].as_py()


@pytest.mark.slow
def test_qdrant(folder):
    from qdrant_client import QdrantClient, models

    parameters = models.VectorParams(size=waves.DIMENSION, distance=models.Distance.EUCLID)
    client = QdrantClient(path="qdrant")
    client.create_collection("images", parameters)
    client.close()
    client = run("Qdrant")["client"]
    points, _ = client.scroll("images", limit=1000, with_vectors=True)
    assert waves.by_key([point.payload["key"] for point in points], [point.vector for point in points]) == (
        waves.expected()
    )
    client.close()


def test_faiss(folder, two_waves):
    assert main([str(two_waves), "--to=faiss", "--output=index"]) == 0
    found = run("FAISS")
    assert found["nearest"][0] == found["keys"][0]
    assert waves.by_key(found["keys"], found["index"].reconstruct_n(0, 252)) == waves.expected()


def test_the_projector_of_tensorboard(folder):
    run("TensorBoard's projector")
    keys = (folder / "metadata.tsv").read_text().splitlines()
    assert waves.by_key(keys, np.loadtxt("vectors.tsv", np.float32, delimiter="\t")) == waves.expected()


@pytest.mark.slow
def test_chroma(folder):
    code = code_of("Chroma") + (
        "\nimport pyarrow, pyarrow.parquet\n"
        "found = images.get(include=['embeddings'])\n"
        "vectors = [list(map(float, vector)) for vector in found['embeddings']]\n"
        "table = pyarrow.table({'key': found['ids'], 'embedding': vectors})\n"
        "pyarrow.parquet.write_table(table, 'read.parquet')\n"
    )
    assert CLIENTS.exists(), "scripts/install.sh requirements-clients.lock .venv-clients makes the environment"
    subprocess.run([CLIENTS, "-c", code], check=True, env={"ANONYMIZED_TELEMETRY": "False", "HOME": str(folder)})
    assert vectors_of(pq.read_table("read.parquet")) == waves.expected()
