import os
import shutil

import pytest

from pipeline.dataset import ownership
from pipeline.dataset.metadata import read_manifests
from pipeline.storage import filesystem
from tests.datasets import add_wave, contents, make_batch, make_failure, read_rows


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    add_wave(output, "00000", make_batch({"a": [1, 2, 3]}, [make_failure("b")]), formats=("tfrecord", "parquet"))
    (output / "summary.json").write_text("{}")
    return output


FOREIGN = (
    "notes.txt",
    "embeddings/notes.txt",
    "embeddings/embeddings.tfrecord",
    "manifests/x.json",
    "more/a.jpg",
    "staging/mine.txt",
    "staging/00001/embeddings.txt",
    "staging/photos/a.jpg",
    "embeddings/copies/embeddings-00001-00000-of-00002.tfrecord",
    "b.tmp",
)


def add_foreign(output):
    for name in FOREIGN:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")


def test_removing_a_data_set_leaves_what_is_not_its_own(output):
    add_foreign(output)
    ownership.remove(str(output))
    assert sorted(contents(output)) == sorted(FOREIGN)


def test_what_interrupted_runs_left_is_removed_and_nothing_else(output):
    add_foreign(output)
    before = contents(output)
    left = [
        "embeddings/embeddings-00001-00000-of-00002.tfrecord",
        "embeddings/embeddings-00000-00000-of-00002.tfrecord.gz",
        "embeddings/embeddings-00001-00000-of-00002.parquet",
        "failures/failures-00001-00000-of-00001.jsonl",
        "staging/00001/embeddings-0a1b2c",
        "staging/00001/plan-00000.jsonl",
        f"staging/00001/plan-00001.jsonl.{'0a' * 16}.tmp",
        f"manifests/00001.json.{'0a' * 16}.tmp",
        f"spec.json.{'0a' * 16}.tmp",
        f"summary.json.{'0a' * 16}.tmp",
    ]
    for name in left:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("half")
    ownership.remove_uncommitted(str(output))
    assert contents(output) == before


@pytest.mark.parametrize("name", [".", "..", "sub/.."])
def test_a_data_set_in_the_current_directory_is_its_own(output, monkeypatch, name):
    (output / "sub").mkdir()
    monkeypatch.chdir(output if name != ".." else output / "sub")
    before = contents(output)
    normalized = filesystem.normalize(name)
    ownership.remove_uncommitted(normalized)
    assert contents(output) == before
    assert read_rows(name).keys() == {b"a"}
    ownership.remove(normalized)
    assert contents(output) == {}


def test_an_interruption_while_removing_leaves_no_manifest_without_its_files(output, monkeypatch):
    add_wave(output, "00001", make_batch({"c": [1, 2, 3]}))
    total = len(ownership.owned_files(str(output), read_manifests(str(output))))
    for count in range(total):
        copy = output.parent / f"copy-{count}"
        shutil.copytree(output, copy)
        paths = ownership.owned_files(str(copy), read_manifests(str(copy)))
        for path in paths[:count]:
            os.unlink(path)
        assert (copy / "spec.json").exists()
        for manifest in read_manifests(str(copy)):
            assert all((copy / item.path).exists() for item in manifest.outputs)


def test_what_only_looks_like_ours_is_left_where_there_never_was_a_data_set(tmp_path):
    names = ["embeddings/embeddings-00000-00000-of-00001.tfrecord", "failures/failures-00000-00000-of-00001.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    ownership.remove_uncommitted(str(tmp_path))
    ownership.remove(str(tmp_path))
    assert sorted(contents(tmp_path)) == names


def test_a_link_in_the_place_of_staging_is_not_followed(output, tmp_path):
    real = tmp_path / "real" / "00001"
    real.mkdir(parents=True)
    (real / "plan-00000.jsonl").write_text("mine")
    (output / "staging").symlink_to(real.parent)
    ownership.remove_uncommitted(str(output))
    assert (real / "plan-00000.jsonl").read_text() == "mine"


@pytest.mark.parametrize("base", ["/data/out", "gs://bucket/out"])
def test_files_of_our_own_are_known_by_their_names(base):
    own = [
        "spec.json",
        f"summary.json.{'0a' * 16}.tmp",
        "lock.json",
        "manifests/00012.json",
        "embeddings/embeddings-00000-00000-of-00001.tfrecord.gz",
        "failures/failures-00000-00000-of-00001.jsonl",
        "staging/00000/embeddings-0a1b",
    ]
    for name in own:
        assert ownership.is_own_file(base, f"{base}/{name}")
        assert not ownership.is_own_file(base, f"{base}2/{name}")
    others = ["a.jpg", "manifests/a.json", "embeddings/a.tfrecord", "failures/embeddings-00000-00000-of-00001.tfrecord"]
    for name in (*others, "staging/a.jpg", "../out.jpg"):
        assert not ownership.is_own_file(base, f"{base}/{name}")
