import errno
import gc
import os

import pytest

from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat
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
        assert filesystem.match(path) == expected
        assert filesystem.match(os.path.dirname(path)) == expected
        assert filesystem.list_files(str(tmp_path)) == expected
        assert filesystem.exists(path)
        assert filesystem.read_bytes(path) == b"data"
        filesystem.rename(path, path + "2")
        assert paths(filesystem.list_files(str(tmp_path))) == [path + "2"]
        filesystem.delete([path, path + "2"])
        assert filesystem.list_files(str(tmp_path)) == []

    def test_directories_are_listed_recursively_by_path(self, tmp_path):
        fill(tmp_path, "b", "a/c", "a/b/d", ".hidden")
        assert paths(filesystem.match(str(tmp_path))) == [
            str(tmp_path / name) for name in (".hidden", "a/b/d", "a/c", "b")
        ]

    def test_a_file_has_one_path_whichever_pattern_finds_it(self, tmp_path, monkeypatch):
        fill(tmp_path, "a", "d/b")
        monkeypatch.chdir(tmp_path)
        assert paths(filesystem.match(".")) == ["a", "d/b"]
        assert paths(filesystem.match("d")) == paths(filesystem.match("*/b")) == ["d/b"]

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("*.jpg", ["a.jpg", "b.jpg"]),
            ("?.jpg", ["a.jpg", "b.jpg"]),
            ("[b-z].jpg", ["b.jpg"]),
            ("*", ["a.jpg", "b.jpg"]),
            ("**", ["a.jpg", "b.jpg", "d/c.jpg", "d/e/f.jpg"]),
            ("d/*", ["d/c.jpg"]),
            ("**/*.jpg", ["a.jpg", "b.jpg", "d/c.jpg", "d/e/f.jpg"]),
            ("*.png", []),
            ("nothing", []),
            ("nothing/*", []),
        ],
    )
    def test_globs(self, tmp_path, pattern, found):
        fill(tmp_path, "a.jpg", "b.jpg", "d/c.jpg", "d/e/f.jpg")
        assert paths(filesystem.match(f"{tmp_path}/{pattern}")) == [str(tmp_path / name) for name in found]

    def test_an_existing_path_is_no_glob(self, tmp_path):
        fill(tmp_path, "a[1].jpg", "a1.jpg", "d*/x", "dd/x")
        assert paths(filesystem.match(str(tmp_path / "a[1].jpg"))) == [str(tmp_path / "a[1].jpg")]
        assert paths(filesystem.match(str(tmp_path / "d*"))) == [str(tmp_path / "d*/x")]

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
        assert filesystem.match(str(tmp_path / "pipe")) == []

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
        for path in gcs.paths():  # Beam's own delete takes names for globs
            filesystem.rename(path, "gs://bucket/gone")
        gcs.delete()

    @pytest.mark.parametrize("name", ["plain", "sp ace", "bra[ck]ets", "star*", "é\U0001f600"])
    def test_any_name_can_be_written_found_read_and_deleted(self, name):
        path = filesystem.join("gs://bucket/top", name)
        filesystem.write_atomically(path, b"old")
        filesystem.write_atomically(path, b"data")
        (stat,) = filesystem.match(path)
        assert (stat.path, stat.size_bytes) == (path, 4)
        assert stat.mtime_s > 1.6e9
        assert filesystem.match("gs://bucket/top") == [stat]
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
        assert filesystem.find_file("gs://bucket/early") is None
        filesystem.delete(["gs://bucket/early/a"])

    def test_a_listing_can_be_limited(self):
        for name in "abcd":
            filesystem.write_atomically(f"gs://bucket/many/{name}", b"data")
        assert len(filesystem.list_files("gs://bucket/many", limit=2)) == 2
        filesystem.delete_directory("gs://bucket/many")

    def test_a_name_that_looks_like_a_glob_deletes_nothing_else(self, gcs):
        for name in ("a*", "ab"):
            gcs.write(f"gs://bucket/{name}", b"")
        with pytest.raises(
            OSError,
            match=r"^gs://bucket/a\*: not deleted, because Beam would delete every match of this name as a glob;",
        ):
            filesystem.delete(["gs://bucket/a*"])
        assert gcs.paths() == ["gs://bucket/a*", "gs://bucket/ab"]

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("gs://bucket", ["d/a.jpg", "d/e/b.jpg", "d2/c.jpg", "x[1]/f.jpg"]),
            ("gs://bucket/", ["d/a.jpg", "d/e/b.jpg", "d2/c.jpg", "x[1]/f.jpg"]),
            ("gs://bucket/d", ["d/a.jpg", "d/e/b.jpg"]),
            ("gs://bucket/d/", ["d/a.jpg", "d/e/b.jpg"]),
            ("gs://bucket/d/*", ["d/a.jpg"]),
            ("gs://bucket/d/**", ["d/a.jpg", "d/e/b.jpg"]),
            ("gs://bucket/*/?.jpg", ["d/a.jpg", "d2/c.jpg", "x[1]/f.jpg"]),
            ("gs://bucket/d/a.jpg", ["d/a.jpg"]),
            ("gs://bucket/none", []),
            ("gs://bucket/none/*", []),
        ],
    )
    def test_match(self, gcs, pattern, found):
        for name in ("d/a.jpg", "d/e/b.jpg", "d2/c.jpg", "x[1]/f.jpg"):
            gcs.write(f"gs://bucket/{name}", b"")
        assert paths(filesystem.match(pattern)) == [f"gs://bucket/{name}" for name in found]

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
            filesystem.match("gs://none/a")
