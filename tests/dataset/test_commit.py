import dataclasses
import datetime
import os
import shutil

import pytest

from pipeline.core.errors import OutputError
from pipeline.dataset import commit
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import read_manifests, write_spec
from pipeline.dataset.plan import Wave, write_plan
from pipeline.dataset.verify import verify
from pipeline.inputs.base import InputFile
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from tests.datasets import SPEC, STARTED, add_wave, contents, entry, make_batch, make_failure, read_vectors, stage
from tests.inputs.tasks import image_task, record_task

HEADER = WaveHeader("00000", STARTED, {"numpy": "2"}, inputs=(entry("a"),))


def test_files_get_their_names_and_the_manifest_names_them(tmp_path):
    second = stage(tmp_path, make_batch({"m": [1, 2, 3]}, [make_failure("n", reason="empty")]))
    first = stage(tmp_path, make_batch({"a": [1, 2, 3], "b": [0, 0, 0]}, [make_failure("c")]))
    manifest = commit_wave(str(tmp_path), HEADER, [*second, *first])
    assert sorted(contents(tmp_path)) == [
        "embeddings/embeddings-00000-00000-of-00002.tfrecord",
        "embeddings/embeddings-00000-00001-of-00002.tfrecord",
        "failures/failures-00000-00000-of-00002.jsonl",
        "failures/failures-00000-00001-of-00002.jsonl",
        "manifests/00000.json",
    ]
    assert [item.path for item in manifest.outputs] == sorted(contents(tmp_path))[:4]
    assert [item.rows for item in manifest.outputs] == [2, 1, 1, 1]
    assert (manifest.embedded, manifest.failed, manifest.zero_vectors) == (3, 2, 1)
    assert manifest.failures_by_reason == {"empty": 1, "truncated": 1}
    assert manifest.started == STARTED.isoformat()
    assert manifest.versions == {"numpy": "2"}
    assert read_manifests(str(tmp_path)) == (manifest,)


def test_each_format_is_numbered_for_itself(tmp_path):
    manifest = add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=("tfrecord", "parquet"))
    names = ["embeddings/embeddings-00000-00000-of-00001" + ending for ending in (".parquet", ".tfrecord")]
    assert [item.path for item in manifest.outputs] == names
    assert manifest.embedded == 1


def test_a_wave_without_records_is_a_manifest(tmp_path):
    commit_wave(str(tmp_path), HEADER, [])
    assert list(contents(tmp_path)) == ["manifests/00000.json"]


def test_inputs_are_those_of_the_plan_with_the_number_of_their_records(tmp_path):
    tfrecord = InputFile("/in/r", "r", "tfrecord", 99, 2.5)
    unreadable = InputFile("/in/u", "u", "tfrecord", 99, 2.5)
    images = image_task((InputFile("/in/i", "i", "images", 5, 1.5),))
    plan = write_plan(str(tmp_path), Wave("00000", (record_task(tfrecord), record_task(unreadable), images)))
    batch = make_batch({"r@0": [1, 2, 3], "r@9": [1, 2, 3]}, [make_failure("r@50-60"), make_failure("u")])
    header = dataclasses.replace(HEADER, plan_files=plan, inputs=())
    manifest = commit_wave(str(tmp_path), header, stage(tmp_path, batch))
    assert [(item.path, item.records) for item in manifest.inputs] == [("/in/r", 3), ("/in/u", 1), ("/in/i", 1)]
    assert not (tmp_path / "staging").exists()


def test_an_interruption_anywhere_is_made_good_by_doing_it_again(tmp_path, monkeypatch):
    """Whatever the number of steps done, nothing counts before the manifest, and the second try ends the same."""
    expected = tmp_path / "expected"
    add_wave(expected, "00000", make_batch({"a": [1, 2, 3]}, [make_failure("b")]), inputs=(entry("a"),))

    class Killed(BaseException):
        pass

    moves = 0
    rename = filesystem.rename
    for last in range(4):
        output = tmp_path / str(last)
        write_spec(str(output), SPEC)
        staged = stage(output, make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
        moves = 0

        def interrupted(source, destination, last=last):
            nonlocal moves
            if moves == last:
                raise Killed
            moves += 1
            rename(source, destination)

        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "rename", interrupted)
            if last < 3:
                with pytest.raises(Killed):
                    commit_wave(str(output), HEADER, staged)
                assert read_manifests(str(output)) == ()
            else:
                commit_wave(str(output), HEADER, staged)
        again = commit_wave(str(output), HEADER, staged)
        assert read_manifests(str(output)) == (again,)
        assert list(contents(output)) == list(contents(expected))
        assert read_vectors(output) == read_vectors(expected)
        assert verify(str(output)).problems == ()


def test_a_wave_that_has_lost_a_staged_file_does_not_count(tmp_path):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
    os.unlink(staged[0].shards[0].path)
    with pytest.raises(FileNotFoundError, match=r"staging/00000/"):
        commit_wave(str(tmp_path), HEADER, staged)
    assert read_manifests(str(tmp_path)) == ()


def test_committing_once_more_changes_nothing(tmp_path):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3]}))
    first = commit_wave(str(tmp_path), HEADER, staged)
    before = contents(tmp_path)
    assert commit_wave(str(tmp_path), HEADER, staged) == first
    assert contents(tmp_path) == before


def test_a_wave_is_never_overwritten(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}))
    before = contents(tmp_path)
    later = dataclasses.replace(HEADER, started=STARTED + datetime.timedelta(seconds=1))
    with pytest.raises(OutputError, match=r"has a wave 00000 already, from 2024-05-17T08:30:15\.25.*another name"):
        commit_wave(str(tmp_path), later, stage(tmp_path, make_batch({"b": [1, 2, 3]})))
    shutil.rmtree(tmp_path / "staging")
    assert contents(tmp_path) == before


def test_no_manifest_without_the_lock(tmp_path):
    output = str(tmp_path / "out")
    with DatasetLock(output) as robbed:
        staged = stage(tmp_path / "out", make_batch({"a": [1, 2, 3]}))
        with DatasetLock(output, steal=True) as thief:
            add_wave(tmp_path / "out", "00000", make_batch({"b": [1, 2, 3]}), lock=thief.token)
            before = contents(tmp_path / "out")
            later = dataclasses.replace(HEADER, name="00001", lock=robbed.token)
            with pytest.raises(
                OutputError, match=rf"was taken over by process {os.getpid()} on .*nothing more is committed"
            ):
                commit_wave(output, later, staged)
            assert contents(tmp_path / "out") == before
            # Whoever was robbed is told so, also where the other run has given a wave the same name.
            with pytest.raises(OutputError, match="was taken over by process"):
                commit_wave(output, dataclasses.replace(HEADER, lock=robbed.token), staged)
        with pytest.raises(OutputError, match="was taken over and released while this run went on"):
            commit_wave(output, later, staged)


def test_a_lock_lost_between_naming_and_committing(tmp_path, monkeypatch):
    """In an object store nothing keeps others from taking the lock meanwhile: it is looked at again."""
    output = str(tmp_path / "out")
    name_files = commit._name_files

    def slow(*args):
        manifest = name_files(*args)
        (tmp_path / "out/lock.json").unlink()
        return manifest

    monkeypatch.setattr(commit, "_name_files", slow)
    with DatasetLock(output) as lock:
        staged = stage(tmp_path / "out", make_batch({"a": [1, 2, 3]}))
        with pytest.raises(OutputError, match="nothing more is committed"):
            commit_wave(output, dataclasses.replace(HEADER, lock=lock.token), staged)
    assert read_manifests(output) == ()


def test_a_staging_directory_that_cannot_be_removed_does_no_harm(tmp_path, monkeypatch):
    def refuse(directory, is_own):
        raise PermissionError(13, "Permission denied", directory)

    monkeypatch.setattr(filesystem, "delete_directory", refuse)
    manifest = commit_wave(str(tmp_path), HEADER, stage(tmp_path, make_batch({"a": [1, 2, 3]})))
    assert read_manifests(str(tmp_path)) == (manifest,)
