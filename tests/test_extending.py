"""The examples of docs/extending.md: each is one new file and one line, and works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.testing import jpeg_bytes, make_pixels
from tests.environments import REPOSITORY, clean_environment, copy_repository

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^:\n]+):.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def blocks(section):
    return re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)


def new_line(section):
    return re.search(r"```text\n(.*?)```", SECTIONS[section], re.DOTALL)[1]


def new_file(section):
    return re.search(r"^`(pipeline/[\w/]+\.py)`:$", SECTIONS[section], re.MULTILINE)[1]


REGISTRIES = {
    "An input": ("pipeline/inputs/registry.py", r"INPUT_KINDS = Registry\(\n.*?\{\n"),
    "An image format": ("pipeline/images/formats/registry.py", r"FORMATS: .*?= \(\n"),
    "An engine": ("pipeline/engines/registry.py", r"ENGINES = Registry\(\n.*?\{\n"),
    "An output format": ("pipeline/dataset/sinks/registry.py", r"SINKS = Registry\(\n.*?\{\n"),
    "A module handle": ("pipeline/hub/handles/registry.py", r"HANDLES: .*?= \(\n"),
}


@pytest.fixture
def extended(request, tmp_path):
    """A copy of the repository with the file and the line of one section; returns its directory."""
    section = request.param
    root = copy_repository(tmp_path / "repository")
    code, line = blocks(section)[0], new_line(section)
    path = root / new_file(section)
    assert not path.exists()
    path.write_text(code)
    registry, place = REGISTRIES[section]
    text = (root / registry).read_text()
    changed, count = re.subn(place, lambda found: found[0] + line, text, count=1, flags=re.DOTALL)
    assert count == 1
    if "Registry" not in place:  # a tuple of objects, which are imported
        module, name = new_file(section).removesuffix(".py").replace("/", "."), line.strip().removesuffix("(),")
        changed = changed.replace("\nfrom pipeline", f"\nfrom {module} import {name}\nfrom pipeline", 1)
    (root / registry).write_text(changed)
    return root


def run(root, *args, module="pipeline.run", **environment):
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(
        command, cwd=root, env=clean_environment(**environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path):
    directory = tmp_path / "photos"
    directory.mkdir()
    for index in range(3):
        (directory / f"{index}.jpg").write_bytes(jpeg_bytes(seed=index))
    return directory


def test_no_example_is_long():
    for section in SECTIONS:
        for block in blocks(section):
            assert len([line for line in block.splitlines() if line.strip()]) < 40, section


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["An input"], indirect=True)
def test_an_input_kind(extended, photos, tmp_path, tiny_module):
    import zipfile

    with zipfile.ZipFile(photos / "album.zip", "w") as archive:
        archive.writestr("day/a.jpg", jpeg_bytes(seed=7))
        archive.writestr("notes.txt", "no image")
    (photos / "broken.zip").write_bytes(b"PK no archive")
    out = tmp_path / "out"
    flags = [f"--input={photos}", f"--module={tiny_module}", f"--output={out}", "--max_failure_rate=1"]
    assert "4 of 6 records embedded" in run(extended, *flags)
    assert "nothing new: all 6 records were done" in run(extended, *flags)
    failures = "".join(path.read_text() for path in (out / "failures").iterdir())
    assert '"album.zip/notes.txt"' in failures
    assert '"corrupt_record"' in failures
    assert "complete" in run(extended, str(out), module="pipeline.verify")
    # Only what failed is read again.
    again = subprocess.run(
        [sys.executable, "-m", "pipeline.run", *flags, "--retry_failed"],
        cwd=extended,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "none of 2 records could be embedded (1 corrupt_record, 1 not_an_image)" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["An image format"], indirect=True)
def test_an_image_format(extended, photos, tmp_path, tiny_module):
    pixels = make_pixels(20, 30)
    (photos / "a.ppm").write_bytes(b"P6\n30 20\n255\n" + pixels.tobytes())
    flags = [f"--input={photos}", f"--module={tiny_module}", f"--output={tmp_path / 'out'}"]
    assert "4 of 4 records embedded" in run(extended, *flags)


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["An engine"], indirect=True)
def test_an_engine(extended, photos, tmp_path, tiny_module):
    from tests.datasets import read_rows

    for engine in ("eager", "tensorflow"):
        out = tmp_path / engine
        flags = [f"--input={photos}", f"--module={tiny_module}", f"--output={out}", f"--engine={engine}"]
        assert f"engine {engine}" in run(extended, *flags)
    ours, theirs = read_rows(tmp_path / "eager"), read_rows(tmp_path / "tensorflow")
    for key, row in theirs.items():
        assert ours[key]["embedding"] == pytest.approx(row["embedding"], rel=1e-5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["An output format"], indirect=True)
def test_an_output_format(extended, photos, tmp_path, tiny_module):
    out = tmp_path / "out"
    flags = [f"--input={photos}", f"--module={tiny_module}", f"--output={out}", "--output_format=arrow"]
    assert "3 of 3 records embedded" in run(extended, *flags)
    assert [path.suffix for path in (out / "embeddings").iterdir()] == [".arrow"]
    (photos / "more.jpg").write_bytes(jpeg_bytes(seed=9))
    assert "1 of 1 records embedded" in run(extended, *flags)
    assert "4 rows, 0 superseded, 0 failures; complete" in run(extended, str(out), module="pipeline.verify")
    assert "2 waves became one: 4 rows kept" in run(extended, str(out), module="pipeline.compact")
    assert len(list((out / "embeddings").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["A module handle"], indirect=True)
def test_a_module_handle(extended, photos, tmp_path, tiny_module):
    flags = [f"--input={photos}", "--module=env:MODULE", f"--output={tmp_path / 'out'}"]
    assert re.search(r"module +env:MODULE ", run(extended, *flags, MODULE=str(tiny_module)))


@pytest.mark.slow
def test_an_engine_without_a_module(photos, tmp_path):
    from tests.datasets import read_rows

    (code,) = (block for block in blocks("An engine") if "FnApiRunner" in block)
    script = tmp_path / "histogram.py"
    script.write_text(code)
    environment = clean_environment(PYTHONPATH=str(REPOSITORY))
    subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, check=True)
    rows = read_rows(tmp_path / "histograms")
    assert sorted(rows) == [b"0.jpg", b"1.jpg", b"2.jpg"]
    assert {sum(row["embedding"]) for row in rows.values()} == {3.0 * 64 * 64}


@pytest.mark.slow
def test_kinds_that_are_passed_to_the_transforms(photos, tmp_path, tiny_module):
    """An input kind and a sink of one's own, without a change to the package."""
    import zipfile

    (photos / "zips").mkdir()
    with zipfile.ZipFile(photos / "zips" / "album.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg_bytes(seed=7))
    for section, name in (("An input", "zip_files"), ("An output format", "arrow_sink")):
        (tmp_path / f"{name}.py").write_text(blocks(section)[0])
    (tmp_path / "job.py").write_text(
        f"""
import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from arrow_sink import ArrowSink
from pipeline import EmbedImages, ReadImages, WriteEmbeddings, read_embeddings
from zip_files import ZipFiles

embed = EmbedImages.from_module({str(tiny_module)!r}, engine="tensorflow")
with beam.Pipeline(runner=FnApiRunner()) as pipeline:
    images = pipeline | ReadImages.from_patterns({str(photos)!r}, kinds=[ZipFiles()])
    images | embed | WriteEmbeddings("out", formats=[ArrowSink()], spec=embed.dataset_spec)
print(sorted(key for rows in read_embeddings("out", sinks=[ArrowSink()]) for key in rows["key"].to_pylist()))
"""
    )
    environment = clean_environment(PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}")
    done = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout == "[b'0.jpg', b'1.jpg', b'2.jpg', b'zips/album.zip/a.jpg']\n"
    assert Path(tmp_path, "out", "embeddings").exists()
