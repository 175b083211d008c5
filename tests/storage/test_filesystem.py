import errno
import gc
import os

import pytest
from apache_beam.io.gcp.gcsio import GcsIO

from pipeline.storage import filesystem, object_store
from pipeline.storage.object_store import FileStat, Move
from tests.gcs_emulator import GcsEmulator

WEIRD_NAMES = [
    "sp ace",
    "bra[ck]ets",
    "star*",
    "ques?",
    "é\U0001f600",
    "new\nline",
    "per%41cent#hash",
    "-dash",
    "back\\slash",
    b"latin\xe9".decode("utf-8", "surrogateescape"),
]


def paths(stats):
    return [stat.path for stat in stats]


def fill(directory, *names):
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def pieces_that_end_early():
    yield b"da"
    raise OSError(errno.EIO, "Input/output error")


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "remote"),
        [
            ("gs://b/a", True),
            ("s3://b", True),
            ("hdfs://h/a", True),
            ("a/b", False),
            ("/a", False),
            ("c:/a", False),
            ("://", False),
            ("a", False),
        ],
    )
    def test_is_remote(self, path, remote):
        assert filesystem.is_remote(path) is remote

    @pytest.mark.parametrize(
        ("path", "normal"),
        [
            ("gs://b/a//c/", "gs://b/a//c/"),
            ("file:///a/b", "/a/b"),
            ("a/", "a"),
            ("./a/../b", "b"),
            ("~/a", "/home/me/a"),
            ("~", "/home/me"),
        ],
    )
    def test_normalize(self, path, normal, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        assert filesystem.normalize(path) == normal

    @pytest.mark.parametrize(
        ("directory", "joined"), [("/a", "/a/b/c"), ("gs://x", "gs://x/b/c"), ("gs://x/y/", "gs://x/y/b/c")]
    )
    def test_join(self, directory, joined):
        assert filesystem.join(directory, "b", "c") == joined

    @pytest.mark.parametrize(
        ("pattern", "base"),
        [
            ("a/b/*.jpg", "a/b"),
            ("a/b*/c.jpg", "a"),
            ("*.jpg", "."),
            ("/*.jpg", "/"),
            ("a/**/b", "a"),
            ("a/[xy]/b", "a"),
            ("gs://b/a/*.jpg", "gs://b/a"),
            ("gs://b/a*", "gs://b"),
        ],
    )
    def test_glob_base(self, pattern, base):
        assert filesystem.has_wildcard(pattern)
        assert filesystem.glob_base(pattern) == base


class TestLocal:
    @pytest.mark.parametrize("name", WEIRD_NAMES)
    def test_any_name_can_be_written_found_read_and_deleted(self, tmp_path, name):
        path = filesystem.join(str(tmp_path), name, name)
        filesystem.write_atomically(path, b"old")
        filesystem.write_atomically(path, b"data")
        stat = os.stat(path)
        expected = [FileStat(path, 4, stat.st_mtime)]
        assert filesystem.list_files(str(tmp_path)) == expected
        assert filesystem.exists(path)
        assert filesystem.read_bytes(path) == b"data"
        filesystem.rename(path, path + "2")
        assert paths(filesystem.list_files(str(tmp_path))) == [path + "2"]
        filesystem.delete([path, path + "2"])
        assert filesystem.list_files(str(tmp_path)) == []

    def test_directories_are_listed_recursively_by_path(self, tmp_path):
        fill(tmp_path, "b", "a/c", "a/b/d", ".hidden")
        assert paths(filesystem.list_files(str(tmp_path))) == [
            str(tmp_path / name) for name in (".hidden", "a/b/d", "a/c", "b")
        ]

    def test_dangling_links_are_listed_and_other_things_are_not(self, tmp_path):
        fill(tmp_path, "file")
        (tmp_path / "link").symlink_to(tmp_path / "file")
        (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "pipe")
        found = filesystem.list_files(str(tmp_path))
        assert [(os.path.basename(stat.path), stat.size_bytes) for stat in found] == [
            ("dangling", 0),
            ("file", 4),
            ("link", 4),
        ]
        assert filesystem.stat_file(str(tmp_path / "pipe")) is None

    def test_a_directory_that_cannot_be_read_is_not_passed_over(self, tmp_path, monkeypatch):
        fill(tmp_path, "a", "locked/b")
        scandir = os.scandir

        def refuse(path):
            if os.fspath(path).endswith("locked"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(PermissionError, match="locked"):
            filesystem.list_files(str(tmp_path))

    def test_no_directory_has_no_files(self, tmp_path):
        fill(tmp_path, "file")
        assert filesystem.list_files(str(tmp_path / "none")) == []
        assert filesystem.list_files(str(tmp_path / "file")) == []

    def test_a_failed_write_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        path = tmp_path / "a"
        filesystem.write_atomically(str(path), b"old")

        def fail(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left on device"):
            filesystem.write_atomically(str(path), b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_pieces_that_end_early_leave_the_old_file_and_no_other(self, tmp_path):
        path = tmp_path / "a"
        filesystem.write_atomically(str(path), iter([b"o", b"ld"]))
        with pytest.raises(OSError, match="Input/output error"):
            filesystem.write_atomically(str(path), pieces_that_end_early())
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_is_closed_even_when_its_bytes_do_not_reach_the_device(self, tmp_path, monkeypatch):
        file = filesystem.create(str(tmp_path / "new" / "a"))

        def fail(descriptor):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            filesystem.close_durably(file)
        assert file.closed

    def test_rename_makes_the_directory_and_replaces(self, tmp_path):
        fill(tmp_path, "a", "d/b")
        filesystem.rename(str(tmp_path / "a"), str(tmp_path / "new/c"))
        filesystem.rename(str(tmp_path / "new/c"), str(tmp_path / "d/b"))
        assert (tmp_path / "d/b").read_bytes() == b"a"

    def test_moves_that_were_made_before_are_made_once(self, tmp_path):
        fill(tmp_path, "a", "b")
        moves = [Move(str(tmp_path / name), str(tmp_path / "new" / name)) for name in "ab"]
        filesystem.rename_all(moves[:1])
        filesystem.rename_all(iter(moves))
        assert [(tmp_path / "new" / name).read_bytes() for name in "ab"] == [b"a", b"b"]
        with pytest.raises(FileNotFoundError):
            filesystem.rename_all([*moves, Move(str(tmp_path / "c"), str(tmp_path / "new/c"))])

    def test_of_a_directory_only_chosen_files_are_deleted(self, tmp_path):
        fill(tmp_path, "d/a", "d/e/b", "d/f/c")
        filesystem.delete_directory(str(tmp_path / "d"), lambda name: name != "e/b")
        assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["d", "d/e", "d/e/b"]

    def test_delete_directory(self, tmp_path):
        fill(tmp_path, "d/a", "d/e/f/b", "d/.c", "keep")
        (tmp_path / "d/dangling").symlink_to("nothing")
        filesystem.delete_directory(str(tmp_path / "d"))
        filesystem.delete_directory(str(tmp_path / "d"))
        assert os.listdir(tmp_path) == ["keep"]

    @pytest.mark.parametrize("path", ["nothing", "a\0b", "."])
    def test_what_cannot_be_read_is_an_os_error(self, tmp_path, path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OSError, match=r"No such file|null byte|Is a directory"):
            filesystem.read_bytes(path)

    def test_files_are_read_as_they_are_stored(self, tmp_path):
        (tmp_path / "a.gz").write_bytes(b"not compressed")
        with filesystem.open_read(str(tmp_path / "a.gz")) as file:
            file.seek(4)
            assert file.read(4) == b"comp"


class TestRemote:
    @pytest.fixture(autouse=True)
    def _clean(self, gcs: GcsEmulator):
        yield
        filesystem.delete(gcs.paths())

    @pytest.mark.parametrize("name", ["plain", "sp ace", "bra[ck]ets", "star*", "é\U0001f600"])
    def test_any_name_can_be_written_found_read_and_deleted(self, name):
        path = filesystem.join("gs://bucket/top", name)
        filesystem.write_atomically(path, b"old")
        filesystem.write_atomically(path, b"data")
        stat = filesystem.find_file(path)
        assert (stat.path, stat.size_bytes) == (path, 4)
        assert stat.mtime_s > 1.6e9
        assert filesystem.list_files("gs://bucket/top") == [stat]
        assert filesystem.exists(path)
        assert filesystem.read_bytes(path) == b"data"
        filesystem.rename(path, "gs://bucket/top/renamed")
        assert not filesystem.exists(path)
        filesystem.delete(["gs://bucket/top/renamed", "gs://bucket/top/renamed"])
        assert filesystem.list_files("gs://bucket/top") == []

    def test_pieces_that_end_early_leave_no_file(self):
        with pytest.raises(OSError, match="Input/output error"):
            filesystem.write_atomically("gs://bucket/early/a", pieces_that_end_early())
        assert filesystem.list_files("gs://bucket/early") == []
        filesystem.write_atomically("gs://bucket/early/a", iter([b"da", b"ta"]))
        assert b"".join(filesystem.read_chunks("gs://bucket/early/a")) == b"data"
        assert filesystem.find_file("gs://bucket/early/a").size_bytes == 4

    @pytest.mark.parametrize("location", ["local", "gs"])
    def test_only_line_feeds_end_a_line(self, tmp_path, location):
        path = str(tmp_path / "a") if location == "local" else "gs://bucket/lines/a"
        lines = [b"a\rb", b"", "c\u2028d\x85".encode(), bytes(3 << 20), b"end"]
        for data, expected in [(b"", []), (b"\n".join(lines), lines), (b"\n".join(lines) + b"\n", lines)]:
            filesystem.write_atomically(path, data)
            assert list(filesystem.read_lines(path)) == expected
        assert filesystem.find_file("gs://bucket/early") is None
        filesystem.delete(["gs://bucket/early/a"])

    def test_a_listing_can_be_limited(self):
        for name in "abcd":
            filesystem.write_atomically(f"gs://bucket/many/{name}", b"data")
        assert len(filesystem.list_files("gs://bucket/many", limit=2)) == 2
        filesystem.delete_directory("gs://bucket/many")

    def test_many_files_are_moved_and_deleted_in_batches(self, gcs, monkeypatch):
        moves = [Move(f"gs://bucket/from/{index:03d}", f"gs://bucket/to/{index:03d}") for index in range(101)]
        for move in moves:
            gcs.write(move.source, b"")
        batches = []
        for name in ("copy_batch", "delete_batch"):
            function = getattr(GcsIO, name)

            def counted(self, items, name=name, function=function):
                batches.append((name, len(items)))
                return function(self, items)

            monkeypatch.setattr(GcsIO, name, counted)
        filesystem.rename_all(moves)
        assert sorted(batches) == [("copy_batch", 1), ("copy_batch", 100), ("delete_batch", 1), ("delete_batch", 100)]
        filesystem.rename_all(moves)  # what was moved before is no error
        assert gcs.paths() == [move.target for move in moves]
        batches.clear()
        filesystem.delete([move.target for move in moves])
        assert sorted(batches) == [("delete_batch", 1), ("delete_batch", 100)]
        assert gcs.paths() == []

    def test_a_name_that_looks_like_a_glob_deletes_nothing_else(self, gcs):
        for name in ("a*", "ab", "a?", "a[b]"):
            gcs.write(f"gs://bucket/{name}", b"")
        filesystem.delete(["gs://bucket/a*", "gs://bucket/a?", "gs://bucket/a[b]", "gs://bucket/a[!c]"])
        assert gcs.paths() == ["gs://bucket/ab"]

    def test_other_stores_delete_no_name_that_looks_like_a_glob(self):
        with pytest.raises(
            OSError, match=r"^s3://b/a\*: not deleted, because Beam would delete every match of this name as a glob;"
        ):
            filesystem.delete(["s3://b/a*"])

    def test_many_objects_are_moved_and_deleted_at_once(self, gcs, monkeypatch):
        monkeypatch.setattr(object_store, "_BATCH_FILES", 3)
        names = [f"{index:02d}" for index in range(10)]
        moves = [Move(f"gs://bucket/old/{name}", f"gs://bucket/new/{name}") for name in names]
        for move in moves:
            gcs.write(move.source, move.source.encode())
        filesystem.rename_all(moves[:2])
        filesystem.rename_all(moves)  # two were moved before
        assert [gcs.read(move.target) for move in moves] == [move.source.encode() for move in moves]
        assert gcs.paths() == [move.target for move in moves]
        with pytest.raises(OSError, match=r"^gs://bucket/old/x: cannot be moved to gs://bucket/new/x: "):
            filesystem.rename_all([*moves, Move("gs://bucket/old/x", "gs://bucket/new/x")])
        filesystem.delete(["gs://bucket/old/00", *(move.target for move in moves)])
        assert gcs.paths() == []

    def test_a_directory_is_listed_although_its_name_looks_like_a_glob(self, gcs):
        for name in ("x[1]/f", "x1/f", "x[1]y/f"):
            gcs.write(f"gs://bucket/{name}", b"")
        assert paths(filesystem.list_files("gs://bucket/x[1]")) == ["gs://bucket/x[1]/f"]

    def test_large_writes_and_partial_reads(self):
        data = os.urandom(3 << 20)
        file = filesystem.create("gs://bucket/large")
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
        filesystem.close_durably(file)
        with filesystem.open_read("gs://bucket/large") as stream:
            assert stream.seek(1_000_000) == 1_000_000
            assert stream.read(10) == data[1_000_000:1_000_010]
            assert stream.tell() == 1_000_010
            stream.seek(-5, os.SEEK_END)
            assert stream.read() == data[-5:]
            assert stream.read(1) == b""

    def test_files_are_read_as_they_are_stored(self, gcs):
        gcs.write("gs://bucket/a.gz", b"not compressed")
        assert filesystem.read_bytes("gs://bucket/a.gz") == b"not compressed"

    def test_delete_directory(self, gcs):
        for name in ("d/a", "d/e/b", "d2/c"):
            gcs.write(f"gs://bucket/{name}", b"")
        filesystem.delete_directory("gs://bucket/d")
        assert gcs.paths() == ["gs://bucket/d2/c"]

    def test_a_file_that_vanishes_while_it_is_read_is_an_os_error(self, gcs):
        gcs.write("gs://bucket/a", b"data")
        with filesystem.open_read("gs://bucket/a") as stream:
            gcs.delete()
            with pytest.raises(OSError, match=r"^gs://bucket/a: 404 "):
                stream.read()

    @pytest.mark.parametrize("path", ["gs://bucket/none", "gs://none/a", "gs://bucket/new\nline", "nosuch://a"])
    def test_what_cannot_be_read_is_an_os_error(self, path):
        with pytest.raises(OSError, match=r"404|GCS path must be|Unable to get filesystem"):
            filesystem.read_bytes(path)

    # Beam's writer tries once more when it is deleted.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_what_cannot_be_written_is_an_os_error(self):
        file = filesystem.create("gs://none/a")
        file.write(b"data")
        with pytest.raises(OSError, match=r"^gs://none/a: .*404"):
            filesystem.close_durably(file)
        del file
        gc.collect()
        with pytest.raises(OSError, match="404"):
            filesystem.rename("gs://bucket/none", "gs://bucket/other")
        with pytest.raises(OSError, match="none"):
            filesystem.list_files("gs://none/a")
