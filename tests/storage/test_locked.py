import pickle

import pytest

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.object_store import Move
from pipeline.storage.staged_file import StagedFile
from tests.datasets import contents

OTHER = "0123456789abcdef" * 2


@pytest.fixture(params=["local", "gs"])
def output(request, tmp_path):
    """The path of an empty directory on local disk, and of one in an object store."""
    if request.param == "local":
        return str(tmp_path / "out")
    request.getfixturevalue("gcs").delete()
    return "gs://bucket/out"


def names(output):
    """Returns the names of all files in a directory but that of its lock."""
    found = [stat.path.removeprefix(f"{output}/") for stat in filesystem.list_files(output)]
    return [name for name in found if name != "lock.json"]


def test_files_enter_the_directory_by_a_rename_out_of_the_staging_directory(output):
    with DatasetLock(output) as directory:
        directory = pickle.loads(pickle.dumps(directory))  # workers get it
        staged = directory.stage("a", b"data")
        assert staged == directory.staged("a")
        assert names(output) == [f"staging/{directory.token}/a"]
        for _ in range(2):  # it may be repeated
            directory.publish([Move(staged, filesystem.join(output, "folder", "b"))])
        assert names(output) == ["folder/b"]
        directory.replace("folder/b", b"new")
        directory.replace("c", b"")
        assert names(output) == ["c", "folder/b"]
        assert filesystem.read_bytes(filesystem.join(output, "folder", "b")) == b"new"
        directory.remove([filesystem.join(output, name) for name in ("c", "folder/b", "none")])
        assert names(output) == []


def test_whoever_lost_the_lock_changes_nothing(output):
    with DatasetLock(output) as robbed:
        staged = robbed.stage("a", b"data")
        target = filesystem.join(output, "a")
        with DatasetLock(output, steal=True) as directory:
            directory.replace("mine", b"")
            before = names(output)
            for change in (
                lambda: robbed.create("b"),
                lambda: robbed.stage("b", b""),
                lambda: robbed.publish([Move(staged, target)]),
                lambda: robbed.replace("mine", b"overwritten"),
                lambda: robbed.remove([filesystem.join(output, "mine")]),
                lambda: robbed.remove_others(lambda name: True),
                lambda: StagedFile(robbed, "00000", "embeddings"),
            ):
                with pytest.raises(OutputError, match="was taken over"):
                    change()
            assert names(output) == before
            robbed.remove([])  # no change


def test_a_rename_that_was_checked_before_the_lock_changed_hands_fails(output):
    """The new holder has removed its source."""
    with DatasetLock(output) as robbed:
        moves = [Move(robbed.stage("a", b"data"), filesystem.join(output, "a"))]

        def sleep_and_publish(moves):
            with DatasetLock(output, steal=True) as directory:
                directory.remove_others()
                filesystem.rename_all(moves)

        with pytest.raises(OutputError, match="was taken over and released"):
            robbed.publish(moves, sleep_and_publish)
        assert names(output) == []


def test_a_publication_that_fails_otherwise_says_why(output):
    with DatasetLock(output) as directory, pytest.raises(OSError, match="none"):
        directory.publish([Move(directory.staged("none"), filesystem.join(output, "a"))])


def test_the_staging_directories_of_others_are_removed(output):
    with DatasetLock(output) as directory:
        own, other = directory.stage("a", b""), LockedDirectory(output, OTHER, is_locked=False).stage("a", b"")
        for name in ("00001/plan-00000.jsonl", "00001/mine", "mine"):
            filesystem.write_atomically(filesystem.join(output, "staging", name), b"")
        directory.remove_others(lambda name: name.endswith(".jsonl"))
        assert filesystem.exists(own)
        assert not filesystem.exists(other)
        directory.remove_staged()
        assert names(output) == ["staging/00001/mine", "staging/mine"]


def test_parts_of_what_was_staged_can_be_removed(tmp_path):
    directory = LockedDirectory.without_lock(str(tmp_path))
    for name in ("00000", "00001"):
        directory.create(name, "a").close()
    directory.remove_staged("00000")
    assert list(contents(tmp_path)) == [f"staging/{directory.token}/00001/a"]
    directory.remove_staged()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_asked_of_those_who_need_no_lock(tmp_path):
    directory, another = (LockedDirectory.without_lock(str(tmp_path / "out")) for _ in range(2))
    directory.check()
    assert not (tmp_path / "out").exists()
    assert directory.token != another.token
