import dataclasses
import itertools
import os
import shutil

import pytest

from pipeline.dataset import ownership
from pipeline.dataset.metadata import live, next_wave, read_manifests, read_spec
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import verify
from pipeline.storage import filesystem
from tests.datasets import (
    SPEC,
    TOKEN,
    add_wave,
    complete,
    contents,
    entry,
    make_batch,
    make_failure,
    read_rows,
    unlocked,
)

NEW_SPEC = dataclasses.replace(SPEC, normalization="l2")


@pytest.fixture
def output(tmp_path):
    output = tmp_path / "out"
    batch = make_batch({"a": [1, 2, 3]}, [make_failure("b")])
    inputs = [entry("a"), entry("b")]
    add_wave(output, "00000", batch, formats=("tfrecord", "parquet"), inputs=inputs, retried=["/in/a"])
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


def test_starting_over_leaves_what_is_not_its_own(output):
    add_foreign(output)
    (output / "report.html").write_text("of the vectors before")
    ownership.start_over(unlocked(output), NEW_SPEC)
    assert sorted(contents(output)) == sorted(
        [*FOREIGN, "manifests/00001.json", "schema.pbtxt", "spec.json", "summary.json"]
    )
    assert read_spec(str(output)) == NEW_SPEC
    (marker,) = read_manifests(str(output))
    assert (marker.is_marker, marker.replaces) == (True, ("00000",))


def test_wave_numbers_go_on_after_starting_over(output):
    """A file name is never used again: a sleeping run may still be about to remove it."""
    for number in (1, 3):
        ownership.start_over(unlocked(output), NEW_SPEC)
        manifests = read_manifests(str(output))
        assert [manifest.wave for manifest in manifests] == [f"{number:05d}"]
        add_wave(output, next_wave(manifests), make_batch({"n": [number, 0, 0]}))
    assert [(key, row["embedding"][0]) for key, row in read_rows(output).items()] == [(b"n", 3)]
    assert complete(output)


def test_an_empty_data_set_starts_over_without_a_marker(tmp_path):
    ownership.start_over(unlocked(tmp_path), SPEC)
    assert list(contents(tmp_path)) == ["spec.json"]


REMAINS = [
    "embeddings/embeddings-00001-00000-of-00002.tfrecord",
    "embeddings/embeddings-00000-00000-of-00002.tfrecord.gz",
    "embeddings/embeddings-00001-00000-of-00002.parquet",
    "failures/failures-00001-00000-of-00001.jsonl",
    "manifests/00000-inputs-00001.parquet",
    "manifests/00001-retried-00000.parquet",
    f"staging/{'0a' * 16}/00001/embeddings-0a1b2c",
    f"staging/{'0a' * 16}/plan-00000.parquet",
    "staging/00001/embeddings-0a1b2c",
    "staging/00001/plan-00000.jsonl",
    f"staging/00001/plan-00001.jsonl.{'0a' * 16}.tmp",
    f"manifests/00001.json.{'0a' * 16}.tmp",
    f"spec.json.{'0a' * 16}.tmp",
    f"summary.json.{'0a' * 16}.tmp",
]


def add_files(output, names):
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("half")


def test_what_interrupted_runs_left_is_removed_and_nothing_else(output):
    add_foreign(output)
    before = contents(output)
    add_files(output, REMAINS)
    ownership.remove_remains(unlocked(output))
    after = contents(output)
    after.pop("manifests/00002.json")  # keeps the number of the removed wave from being used again
    assert after == before
    assert [manifest.replaces for manifest in read_manifests(str(output))] == [(), ("00001",)]


def test_the_removal_of_remains_keeps_the_committed_waves(output):
    """Among the remains are files that are named like those of a committed wave."""
    add_files(output, REMAINS)
    ownership.remove_remains(unlocked(output))
    assert read_rows(output).keys() == {b"a"}
    assert [failure.key for failure in read_failures(str(output))] == [b"b"]
    assert [manifest.wave for manifest in live(read_manifests(str(output)))] == ["00000"]
    assert complete(output)


def test_remains_of_older_waves_need_no_marker(output):
    before = contents(output)
    add_files(output, ["embeddings/embeddings-00000-00000-of-00002.tfrecord", "manifests/00000-inputs-00007.parquet"])
    ownership.remove_remains(unlocked(output))
    assert contents(output) == before


def test_what_its_own_run_has_staged_stays(output):
    add_files(output, [f"staging/{TOKEN}/00001/embeddings-0a"])
    before = contents(output)
    ownership.remove_remains(unlocked(output))
    assert contents(output) == before


def test_replaced_waves_are_removed_and_their_marker_stays(output):
    ownership.retire(unlocked(output), ["00000"], read_manifests(str(output)))
    assert read_rows(output) == {}
    assert len(verify(str(output)).strays) == 6
    ownership.remove_remains(unlocked(output))
    assert sorted(contents(output)) == ["manifests/00001.json", "schema.pbtxt", "spec.json", "summary.json"]
    ownership.remove_remains(unlocked(output))
    assert next_wave(read_manifests(str(output))) == "00002"


def test_a_marker_is_newer_than_all_that_it_replaces(output):
    ownership.retire(unlocked(output), ["00004"], read_manifests(str(output)))
    assert [manifest.wave for manifest in read_manifests(str(output))] == ["00000", "00005"]
    assert read_rows(output).keys() == {b"a"}


@pytest.mark.parametrize("name", [".", "..", "sub/.."])
def test_a_data_set_in_the_current_directory_is_its_own(output, monkeypatch, name):
    (output / "sub").mkdir()
    monkeypatch.chdir(output if name != ".." else output / "sub")
    before = contents(output)
    directory = unlocked(filesystem.normalize(name))
    ownership.remove_remains(directory)
    assert contents(output) == before
    assert read_rows(name).keys() == {b"a"}
    ownership.start_over(directory, SPEC)
    assert sorted(contents(output)) == ["manifests/00001.json", "schema.pbtxt", "spec.json", "summary.json"]


def has_all_files(output, manifest):
    files = (*manifest.outputs, *manifest.inputs, *manifest.retried)
    return all((output / item.path).exists() for item in files)


def test_an_interruption_while_removing_leaves_no_manifest_without_its_files(output):
    add_wave(output, "00001", make_batch({"c": [1, 2, 3]}))
    total = len(ownership.owned_files(str(output), read_manifests(str(output))))
    for count in range(total):
        copy = output.parent / f"copy-{count}"
        shutil.copytree(output, copy)
        paths = ownership.owned_files(str(copy), read_manifests(str(copy)))
        for path in paths[:count]:
            os.unlink(path)
        assert (copy / "spec.json").exists()
        assert all(has_all_files(copy, manifest) for manifest in read_manifests(str(copy)))


def test_starting_over_can_be_interrupted_anywhere(output, monkeypatch):
    """The old rows count until none of them does; the next run removes what is left."""

    class Killed(BaseException):
        pass

    add_wave(output, "00001", make_batch({"c": [1, 2, 3]}), inputs=[entry("c")])
    for last in itertools.count():
        copy = output.parent / f"copy-{last}"
        shutil.copytree(output, copy)
        steps = iter(range(last))

        def step_of(function, steps=steps):
            def step(*args):
                if next(steps, None) is None:
                    raise Killed
                return function(*args)

            return step

        killed = False
        with monkeypatch.context() as patch:
            for name in ("create", "rename_all"):
                patch.setattr(filesystem, name, step_of(getattr(filesystem, name)))
            patch.setattr(os, "unlink", step_of(os.unlink))
            try:
                ownership.start_over(unlocked(copy), NEW_SPEC)
            except Killed:
                killed = True
        assert all(has_all_files(copy, manifest) for manifest in read_manifests(str(copy)))
        assert read_rows(copy).keys() in ({b"a", b"c"}, set())
        assert read_spec(str(copy)) == SPEC or read_rows(copy) == {}
        ownership.remove_remains(unlocked(copy))
        ownership.start_over(unlocked(copy), NEW_SPEC)
        assert read_rows(copy) == {}
        unlocked(copy).remove_staged()
        assert complete(copy)
        if not killed:
            break
    assert last > 10


def test_what_only_looks_like_ours_is_left_where_there_never_was_a_data_set(tmp_path):
    names = ["embeddings/embeddings-00000-00000-of-00001.tfrecord", "failures/failures-00000-00000-of-00001.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    ownership.remove_remains(unlocked(tmp_path))
    assert sorted(contents(tmp_path)) == names
    ownership.start_over(unlocked(tmp_path), SPEC)
    assert sorted(contents(tmp_path)) == [*names, "spec.json"]


@pytest.mark.parametrize("name", ["00001/plan-00000.jsonl", f"{'0a' * 16}/plan-00000.parquet"])
def test_a_link_in_the_place_of_staging_is_not_followed(output, tmp_path, name):
    real = tmp_path / "real" / name
    real.parent.mkdir(parents=True)
    real.write_text("mine")
    (output / "staging").symlink_to(tmp_path / "real")
    ownership.remove_remains(unlocked(output))
    assert real.read_text() == "mine"


@pytest.mark.parametrize("base", ["/data/out", "gs://bucket/out"])
def test_files_of_our_own_are_known_by_their_names(base):
    own = [
        "spec.json",
        f"summary.json.{'0a' * 16}.tmp",
        "lock.json",
        "manifests/00012.json",
        "embeddings/embeddings-00000-00000-of-00001.tfrecord.gz",
        "failures/failures-00000-00000-of-00001.jsonl",
        "manifests/00000-inputs-00000.parquet",
        "manifests/00000-retried-00000.parquet",
        "staging/00000/embeddings-0a1b",
        f"staging/{'0a' * 16}/00000/embeddings-0a1b",
    ]
    for name in own:
        assert ownership.is_own_file(base, f"{base}/{name}")
        assert not ownership.is_own_file(base, f"{base}2/{name}")
    others = ["a.jpg", "manifests/a.json", "embeddings/a.tfrecord", "failures/embeddings-00000-00000-of-00001.tfrecord"]
    for name in (*others, "staging/a.jpg", "../out.jpg"):
        assert not ownership.is_own_file(base, f"{base}/{name}")


class TestOutputsIn:
    def test_folders_below_the_output_have_a_test_and_others_none(self, output, tmp_path):
        outputs_in = ownership.outputs_in(str(output))
        for folder in (tmp_path, tmp_path / "out2", tmp_path / "photos"):
            assert outputs_in(str(folder)) is None
        for name in ("spec.json", "manifests/00000.json", "manifests/00000-inputs-00000.parquet", "lock.json"):
            is_output = outputs_in(str((output / name).parent))
            assert is_output(str(output / name))
            assert not is_output(str(output / name) + ".jpg")

    def test_a_link_to_the_output_leads_to_it(self, output, tmp_path):
        (tmp_path / "link").symlink_to(output)
        is_output = ownership.outputs_in(str(output))(str(tmp_path / "link/manifests"))
        assert is_output(str(tmp_path / "link/manifests/00000.json"))
        is_output = ownership.outputs_in(str(tmp_path / "link"))(str(output))
        assert is_output(str(output / "spec.json"))
        assert not is_output(str(output / "a.jpg"))

    def test_in_a_bucket(self):
        outputs_in = ownership.outputs_in("gs://bucket/out")
        assert outputs_in("gs://bucket/out2") is None
        assert outputs_in("/out") is None
        assert outputs_in("gs://bucket/out")("gs://bucket/out/spec.json")
        assert not outputs_in("gs://bucket/out/more")("gs://bucket/out/more/spec.json")

    def test_a_data_set_in_the_root_of_a_bucket(self):
        assert ownership.outputs_in("gs://bucket")("gs://bucket")("gs://bucket/spec.json")
