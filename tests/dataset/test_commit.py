import dataclasses
import datetime
import os
import shutil

import pytest

from pipeline.core.errors import IntegrityError, OutputError
from pipeline.dataset import commit
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.plan import Wave
from pipeline.dataset.plan_files import write_plan
from pipeline.dataset.sinks.tfrecord import TFRecordSink
from pipeline.dataset.tables import inputs_of, read_entries, read_retried, stage_table
from pipeline.dataset.verify import verify
from pipeline.inputs.base import InputFile
from pipeline.inputs.input_table import InputTable
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory
from tests.datasets import (
    SPEC,
    STARTED,
    TOKEN,
    add_wave,
    contents,
    entry,
    make_batch,
    make_failure,
    make_header,
    read_vectors,
    stage,
    unlocked,
)

HEADER = WaveHeader("00000", STARTED, {"numpy": "2"})


def test_files_get_their_names_and_the_manifest_names_them(tmp_path):
    second = stage(tmp_path, make_batch({"m": [1, 2, 3]}, [make_failure("n", reason="empty")]))
    first = stage(tmp_path, make_batch({"a": [1, 2, 3], "b": [0, 0, 0]}, [make_failure("c")]))
    directory = unlocked(tmp_path)
    header = make_header(directory, "00000", inputs=[entry("a")], retried=["/in/z"])
    manifest = commit_wave(directory, header, [*second, *first])
    assert sorted(contents(tmp_path)) == [
        "embeddings/embeddings-00000-00000-of-00002.tfrecord",
        "embeddings/embeddings-00000-00001-of-00002.tfrecord",
        "failures/failures-00000-00000-of-00002.jsonl",
        "failures/failures-00000-00001-of-00002.jsonl",
        "manifests/00000-inputs-00000.parquet",
        "manifests/00000-retried-00000.parquet",
        "manifests/00000.json",
    ]
    assert [item.path for item in manifest.outputs] == sorted(contents(tmp_path))[:4]
    assert [item.rows for item in manifest.outputs] == [2, 1, 1, 1]
    assert (manifest.embedded, manifest.failed, manifest.zero_vectors) == (3, 2, 1)
    assert manifest.failures_by_reason == {"empty": 1, "truncated": 1}
    assert manifest.started == STARTED.isoformat()
    assert manifest.versions == {"numpy": "2"}
    assert [item.path for item in (*manifest.inputs, *manifest.retried)] == sorted(contents(tmp_path))[4:6]
    assert [item.rows for item in (*manifest.inputs, *manifest.retried)] == [1, 1]
    assert list(read_entries(str(tmp_path), manifest)) == [entry("a")]
    assert list(read_retried(str(tmp_path), manifest)) == ["/in/z"]
    assert read_manifests(str(tmp_path)) == (manifest,)


def test_each_format_is_numbered_for_itself(tmp_path):
    manifest = add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=("tfrecord", "parquet"))
    names = [
        "embeddings-parquet/embeddings-00000-00000-of-00001.parquet",
        "embeddings/embeddings-00000-00000-of-00001.tfrecord",
    ]
    assert [item.path for item in manifest.outputs] == names
    assert manifest.embedded == 1


def test_a_wave_without_records_is_a_manifest(tmp_path):
    commit_wave(unlocked(tmp_path), HEADER, [])
    assert list(contents(tmp_path)) == ["manifests/00000.json"]


def test_a_job_that_has_released_the_lock_may_repeat_its_commit(tmp_path):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3]}))
    manifest = commit_wave(unlocked(tmp_path), HEADER, staged)
    released = LockedDirectory(str(tmp_path), TOKEN, is_handed_over=True)
    assert commit_wave(released, HEADER, staged) == manifest


def write_plan_of(directory, *files):
    table = InputTable.of(files)
    return write_plan(directory, "00000", Wave(table.path, 0, table.rows))


def test_inputs_are_those_of_the_plan_with_the_number_of_their_records(tmp_path):
    directory = unlocked(tmp_path)
    files = [InputFile(f"/in/{name}", name, "tfrecord", 99, 2.5) for name in "ru"]
    plan = write_plan_of(directory, *files, InputFile("/in/i", "i", "images", 5, 1.5))
    batch = make_batch({"r@0": [1, 2, 3], "r@9": [1, 2, 3]}, [make_failure("r@50-60"), make_failure("u")])
    header = dataclasses.replace(HEADER, plan_files=plan)
    manifest = commit_wave(directory, header, stage(tmp_path, batch))
    found = [(item.path, item.records, item.keys) for item in read_entries(str(tmp_path), manifest)]
    assert found == [("/in/r", 3, "offset"), ("/in/u", 1, "offset"), ("/in/i", 1, "name")]
    assert manifest.input_keys == ("name", "offset")
    assert not (tmp_path / "staging").exists()


def test_a_key_feature_is_the_origin_of_the_keys_of_records(tmp_path):
    directory = unlocked(tmp_path)
    plan = write_plan_of(directory, InputFile("/in/r", "r", "tfrecord", 99, 2.5))
    manifest = commit_wave(directory, dataclasses.replace(HEADER, plan_files=plan, key_feature="id"), [])
    assert [(item.keys, item.records) for item in read_entries(str(tmp_path), manifest)] == [("feature", 0)]
    assert (manifest.key_feature, manifest.input_keys) == ("id", ("feature",))


def test_inputs_besides_those_of_the_plan_have_a_table_of_their_own(tmp_path):
    directory = unlocked(tmp_path)
    plan = write_plan_of(directory, InputFile("/in/i", "i", "images", 5, 1.5))
    more = stage_table(directory, "00000", "inputs", [inputs_of([entry("r")])])
    header = dataclasses.replace(HEADER, plan_files=plan, inputs=more, input_keys=("offset",))
    manifest = commit_wave(directory, header, [])
    assert [item.path for item in manifest.inputs] == [
        f"manifests/00000-inputs-{index:05d}.parquet" for index in (0, 1)
    ]
    assert [item.path for item in read_entries(str(tmp_path), manifest)] == ["/in/i", "/in/r"]
    assert manifest.input_keys == ("name", "offset")
    assert verify(str(with_spec(tmp_path))).problems == ()


def with_spec(output):
    write_spec(unlocked(output), SPEC)
    return output


@pytest.mark.parametrize("read", [0, 2, 4])
def test_lost_or_repeated_records_are_not_committed(tmp_path, read):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3], "b": [1, 2, 3]}, [make_failure("c")]))
    before = contents(tmp_path)
    with pytest.raises(IntegrityError, match=rf"wave 00000: {read} records were read, but 2 embedded and 1 failed"):
        commit_wave(unlocked(tmp_path), HEADER, staged, records_read=read)
    assert contents(tmp_path) == before
    assert commit_wave(unlocked(tmp_path), HEADER, staged, records_read=3).embedded == 2


def test_an_interruption_anywhere_is_made_good_by_doing_it_again(tmp_path, monkeypatch):
    """Whatever the number of steps done, nothing counts before the manifest, and the second try ends the same."""
    batch = make_batch({"a": [1, 2, 3]}, [make_failure("b")])
    options = {"inputs": (entry("a"),), "retried": ("/in/z",)}
    expected = tmp_path / "expected"
    add_wave(expected, "00000", batch, **options)

    class Killed(BaseException):
        pass

    moves = 0
    replace = os.replace
    for last in range(7):
        output = tmp_path / str(last)
        directory = unlocked(with_spec(output))
        header = make_header(directory, "00000", **options)
        staged = stage(output, batch)
        moves = 0

        def interrupted(source, target, last=last):
            nonlocal moves
            if moves == last:
                raise Killed
            moves += 1
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            if last < 6:
                with pytest.raises(Killed):
                    commit_wave(directory, header, staged)
                assert read_manifests(str(output)) == ()
            else:
                commit_wave(directory, header, staged)
        again = commit_wave(directory, header, staged)
        assert read_manifests(str(output)) == (again,)
        directory.remove_staged()
        assert list(contents(output)) == list(contents(expected))
        assert read_vectors(output) == read_vectors(expected)
        assert verify(str(output)).problems == ()


def test_a_wave_that_has_lost_a_staged_file_does_not_count(tmp_path):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
    os.unlink(staged[0].shards[0].path)
    with pytest.raises(FileNotFoundError, match=rf"staging/{TOKEN}/00000/"):
        commit_wave(unlocked(tmp_path), HEADER, staged)
    assert read_manifests(str(tmp_path)) == ()


def test_committing_once_more_changes_nothing(tmp_path):
    staged = stage(tmp_path, make_batch({"a": [1, 2, 3]}))
    first = commit_wave(unlocked(tmp_path), HEADER, staged)
    before = contents(tmp_path)
    assert commit_wave(unlocked(tmp_path), HEADER, staged) == first
    assert contents(tmp_path) == before


def test_a_wave_is_never_overwritten(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}))
    before = contents(tmp_path)
    later = dataclasses.replace(HEADER, started=STARTED + datetime.timedelta(seconds=1))
    with pytest.raises(OutputError, match=r"has a wave 00000 already, from 2024-05-17T08:30:15\.25.*another name"):
        commit_wave(unlocked(tmp_path), later, stage(tmp_path, make_batch({"b": [1, 2, 3]})))
    shutil.rmtree(tmp_path / "staging")
    assert contents(tmp_path) == before


def test_no_manifest_without_the_lock(tmp_path):
    output = tmp_path / "out"
    with DatasetLock(str(output)) as robbed:
        staged = stage(robbed, make_batch({"a": [1, 2, 3]}))
        with DatasetLock(str(output), steal=True) as thief:
            add_wave(thief, "00000", make_batch({"b": [1, 2, 3]}))
            before = contents(output)
            later = dataclasses.replace(HEADER, name="00001")
            with pytest.raises(
                OutputError, match=rf"was taken over by process {os.getpid()} on .*nothing more is committed"
            ):
                commit_wave(robbed, later, staged)
            assert contents(output) == before
            # Whoever was robbed is told so, also where the other run has given a wave the same name.
            with pytest.raises(OutputError, match="was taken over by process"):
                commit_wave(robbed, HEADER, staged)
        with pytest.raises(OutputError, match="was taken over and released while this run went on"):
            commit_wave(robbed, later, staged)


def test_a_lock_lost_between_naming_and_committing(tmp_path, monkeypatch):
    """Nothing keeps others from taking the lock meanwhile: it is looked at again."""
    output = str(tmp_path / "out")
    publish = commit._publish

    def slow(*args):
        manifest = publish(*args)
        (tmp_path / "out/lock.json").unlink()
        return manifest

    monkeypatch.setattr(commit, "_publish", slow)
    with DatasetLock(output) as directory:
        staged = stage(directory, make_batch({"a": [1, 2, 3]}))
        with pytest.raises(OutputError, match="nothing more is committed"):
            commit_wave(directory, HEADER, staged)
    assert read_manifests(output) == ()


def test_a_lock_lost_while_files_move_is_named_as_the_cause(tmp_path, monkeypatch):
    """The new holder has removed the staged files: the failing move is a consequence."""
    output = str(tmp_path / "out")
    publish = TFRecordSink.publish

    def robbed(sink, moves):
        with DatasetLock(output, steal=True) as thief:
            thief.remove_others()
            publish(sink, moves)

    with DatasetLock(output) as directory:
        staged = stage(directory, make_batch({"a": [1, 2, 3]}))
        monkeypatch.setattr(TFRecordSink, "publish", robbed)
        with pytest.raises(OutputError, match="was taken over"):
            commit_wave(directory, HEADER, staged)
    assert contents(tmp_path / "out") == {}


def test_a_staging_directory_that_cannot_be_removed_does_no_harm(tmp_path, monkeypatch):
    def refuse(directory):
        raise PermissionError(13, "Permission denied", directory)

    monkeypatch.setattr(filesystem, "delete_directory", refuse)
    manifest = commit_wave(unlocked(tmp_path), HEADER, stage(tmp_path, make_batch({"a": [1, 2, 3]})))
    assert read_manifests(str(tmp_path)) == (manifest,)
