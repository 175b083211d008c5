"""Runs the Python of README.md and docs/training.md, on the data set that they speak of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.settings import (
    DecodeConfig,
    EngineConfig,
    ExecutionConfig,
    InputConfig,
    ModuleConfig,
    OutputConfig,
    PreprocessConfig,
)
from pipeline.dataset.verify import verify

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TRAINING = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README + TRAINING, re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `./run_local.sh` has run, as far as README's examples can tell."""
    home = tmp_path_factory.mktemp("readme")
    sample = home / "local_run" / "sample"
    subprocess.run([sys.executable, REPOSITORY / "scripts/make_sample.py", sample], check=True)
    command = [sys.executable, "-m", "pipeline.run", "--module=untrained:mobilenet_v2_050_160", f"--input={sample}"]
    command += ["--key_feature=image/key", "--passthrough=image/label,image/size", "--output=local_run/embeddings"]
    subprocess.run(command, cwd=home, env=_environment(), check=True)
    return home


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _run(home: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _block(word: str) -> str:
    found = [block for block in PYTHON_BLOCKS if word in block]
    assert len(found) == 1, word
    return found[0]


@pytest.mark.slow
def test_tensorflow_reads_the_data_set(home: Path) -> None:
    output = _run(home, _block("dataset.take(1)"))
    assert "(64, 1280)" in output


@pytest.mark.slow
def test_pandas_reads_the_data_set(home: Path) -> None:
    output = _run(home, _block("read_pandas") + "\nprint(len(table), sorted(table.columns))")
    assert "128 ['embedding', 'event_timestamp', 'image/label', 'image/size', 'key']" in output


@pytest.mark.slow
def test_duckdb_and_polars_read_the_data_set(home: Path) -> None:
    counts = ast.literal_eval(_run(home, _block("import duckdb")))
    assert sum(count for _, count in counts) == 128
    assert all(isinstance(label, int | None) for label, _ in counts)
    assert "embedding" in _run(home, _block("import polars"))


@pytest.mark.slow
def test_beam_reads_the_data_set(home: Path) -> None:
    keys = _run(home, _block("ReadFromTFRecord")).splitlines()
    assert len(keys) == 128
    assert "b'china-00'" in keys
    assert "b'images/china-00.jpg'" in keys


@pytest.mark.slow
def test_the_transforms_compose_into_another_pipeline(home: Path) -> None:
    check = (
        "\nfrom pipeline import read_embeddings\nprint(sum(rows.num_rows for rows in read_embeddings('local_run/own')))"
    )
    assert _run(home, _block("from_patterns") + check).splitlines()[-1] == "64"
    report = verify(str(home / "local_run/own"))
    assert (report.rows, report.problems, report.strays) == (64, (), ())


@pytest.mark.slow
def test_the_embedder_works_without_beam(home: Path) -> None:
    rows = [line.split()[0] for line in _run(home, _block("Embedder.from_module")).splitlines()]
    assert sum(map(int, rows)) == 64


@pytest.mark.slow
def test_a_probe_learns_from_the_vectors(home: Path) -> None:
    output = _run(home, _block("tf.keras.Sequential"))
    assert float(output.removeprefix("accuracy on images not seen in training: ")) > 0.8


@pytest.mark.slow
def test_the_handler_runs_in_another_pipeline(home: Path) -> None:
    lines = _run(home, _block("EmbeddingModelHandler")).splitlines()
    assert sum(line.startswith(("('china-", "('flower-")) for line in lines) == 64


def test_every_flag_is_in_the_table() -> None:
    flags = {
        name
        for section in (
            InputConfig,
            ModuleConfig,
            DecodeConfig,
            PreprocessConfig,
            EngineConfig,
            OutputConfig,
            ExecutionConfig,
        )
        for name in section.__dataclass_fields__
    }
    table = README[README.index("| flag | meaning |") : README.index("Any option of Apache Beam")]
    assert set(re.findall(r"`--(\w+)`", table)) - {"config"} == flags


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_what_comes_out_is_on_the_first_screen() -> None:
    lines = README.splitlines()
    assert next(number for number, line in enumerate(lines) if line.startswith("128 of 132")) < 20
