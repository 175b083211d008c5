import errno
import os
import threading

import pytest

from pipeline.storage import filesystem, listing, pages
from pipeline.storage.cloud_listing import CloudListing
from pipeline.storage.object_store import FileStat
from pipeline.storage.pages import FilePage, Folder, pages_of
from tests.gcs_emulator import GcsEmulator
from tests.storage.test_filesystem import WEIRD_NAMES, fill


def match(pattern):
    """Returns the files that a pattern names, by path."""
    found = [
        (FileStat(*values), page.folder)
        for page in listing.match(pattern).pages
        for values in zip(page.paths, page.sizes, page.mtimes, strict=True)
    ]
    assert all(os.path.dirname(stat.path) == folder for stat, folder in found)
    return sorted((stat for stat, _ in found), key=lambda stat: stat.path)


def paths(pattern):
    return [stat.path for stat in match(pattern)]


class TestPages:
    def test_a_page_has_the_files_of_one_folder_and_not_too_many(self, monkeypatch):
        monkeypatch.setattr(pages, "PAGE_FILES", 2)
        stats = [FileStat(path, len(path), 1.5) for path in ("a/1", "a/2", "a/30", "b/4", "5")]
        assert list(pages_of(stats)) == [
            FilePage("a", ["a/1", "a/2"], [3, 3], [1.5, 1.5]),
            FilePage("a", ["a/30"], [4], [1.5]),
            FilePage("b", ["b/4"], [3], [1.5]),
            FilePage("", ["5"], [1], [1.5]),
        ]


class TestLocal:
    @pytest.mark.parametrize("name", WEIRD_NAMES)
    def test_any_name(self, tmp_path, name):
        path = filesystem.join(str(tmp_path), name, name)
        filesystem.write_atomically(path, b"data")
        expected = [FileStat(path, 4, os.stat(path).st_mtime)]
        assert match(path) == match(os.path.dirname(path)) == match(str(tmp_path)) == expected

    def test_directories_are_listed_recursively(self, tmp_path):
        fill(tmp_path, "b", "a/c", "a/b/d", ".hidden")
        assert paths(str(tmp_path)) == [str(tmp_path / name) for name in (".hidden", "a/b/d", "a/c", "b")]

    def test_a_file_has_one_path_whichever_pattern_finds_it(self, tmp_path, monkeypatch):
        fill(tmp_path, "a", "d/b")
        monkeypatch.chdir(tmp_path)
        assert paths(".") == ["a", "d/b"]
        assert paths("d") == paths("*/b") == ["d/b"]

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
            ("**/**/*.jpg", ["a.jpg", "b.jpg", "d/c.jpg", "d/e/f.jpg"]),
            ("*.png", []),
            ("nothing", []),
            ("nothing/*", []),
        ],
    )
    def test_globs(self, tmp_path, pattern, found):
        fill(tmp_path, "a.jpg", "b.jpg", "d/c.jpg", "d/e/f.jpg")
        assert paths(f"{tmp_path}/{pattern}") == [str(tmp_path / name) for name in found]

    def test_an_existing_path_is_no_glob(self, tmp_path):
        fill(tmp_path, "a[1].jpg", "a1.jpg", "d*/x", "dd/x")
        assert paths(str(tmp_path / "a[1].jpg")) == [str(tmp_path / "a[1].jpg")]
        assert paths(str(tmp_path / "d*")) == [str(tmp_path / "d*/x")]

    @pytest.mark.parametrize(
        ("pattern", "base", "is_file"),
        [("d", "d", False), ("d/a", "d", True), ("d/*", "d", False), ("a", "", True), ("*/a", "", False)],
    )
    def test_names_are_relative_to_a_base(self, tmp_path, monkeypatch, pattern, base, is_file):
        fill(tmp_path, "a", "d/a")
        monkeypatch.chdir(tmp_path)
        found = listing.match(pattern)
        assert (found.base, found.is_file) == (base, is_file)
        list(found.pages)

    def test_dangling_links_are_listed_and_other_things_are_not(self, tmp_path):
        fill(tmp_path, "file")
        (tmp_path / "link").symlink_to(tmp_path / "file")
        (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
        (tmp_path / "itself").symlink_to("itself")
        os.mkfifo(tmp_path / "pipe")
        assert [(os.path.basename(stat.path), stat.size_bytes) for stat in match(str(tmp_path))] == [
            ("dangling", 0),
            ("file", 4),
            ("itself", 0),
            ("link", 4),
        ]
        assert match(str(tmp_path / "pipe")) == []

    def test_linked_directories_are_listed_once_by_their_own_path_or_the_first_link(self, tmp_path):
        fill(tmp_path, "in/z/file", "elsewhere/more/file")
        (tmp_path / "in/a").symlink_to("z", target_is_directory=True)
        (tmp_path / "in/z/back").symlink_to("..", target_is_directory=True)
        (tmp_path / "in/second").symlink_to("../elsewhere", target_is_directory=True)
        (tmp_path / "in/first").symlink_to("../elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere/again").symlink_to("more", target_is_directory=True)
        expected = [str(tmp_path / "in" / name) for name in ("first/more/file", "z/file")]
        for _ in range(5):  # whichever thread is first
            assert paths(str(tmp_path / "in")) == expected

    def test_a_directory_that_cannot_be_read_is_not_passed_over(self, tmp_path, monkeypatch):
        fill(tmp_path, "a", "locked/b")
        scandir = os.scandir

        def refuse(path):
            if os.fspath(path).endswith("locked"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(PermissionError, match="locked"):
            match(str(tmp_path))

    def test_many_folders_and_many_files_are_all_listed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pages, "PAGE_FILES", 3)
        monkeypatch.setattr(listing, "PAGE_FILES", 5)
        monkeypatch.setattr(listing, "_WAITING_PAGES", 2)
        names = [f"{folder:02d}/{inner}/{file}" for folder in range(20) for inner in range(3) for file in range(7)]
        fill(tmp_path, *names)
        assert paths(str(tmp_path)) == sorted(str(tmp_path / name) for name in names)

    def test_a_listing_that_is_given_up_leaves_no_thread(self, tmp_path, monkeypatch):
        monkeypatch.setattr(listing, "_WAITING_PAGES", 1)
        fill(tmp_path, *(f"{folder}/file" for folder in range(50)))
        before = set(threading.enumerate())
        found = listing.match(str(tmp_path)).pages
        next(found)
        assert set(threading.enumerate()) - before
        found.close()
        assert not set(threading.enumerate()) - before


def test_several_folders_are_listed_at_once():
    barrier = threading.Barrier(listing.PARALLEL_FOLDERS)

    def list_folder(folder):
        if folder.path == "root":
            yield from (Folder(str(index), str(index)) for index in range(listing.PARALLEL_FOLDERS))
        else:
            barrier.wait(timeout=60)
            yield FilePage(folder.path, [f"{folder.path}/a"], [1], [1.5])

    found = [page.folder for page in listing._walk(Folder("root", "root"), list_folder)]
    assert sorted(found) == [str(index) for index in range(listing.PARALLEL_FOLDERS)]


REMOTE_NAMES = ("d/a.jpg", "d/e/b.jpg", "d/e/f/g.jpg", "d2/c.jpg", "x[1]/f.jpg")


class TestRemote:
    @pytest.fixture(autouse=True)
    def _clean(self, gcs: GcsEmulator):
        yield
        filesystem.delete(gcs.paths())

    @pytest.mark.parametrize("name", ["plain", "sp ace", "bra[ck]ets", "star*", "é\U0001f600"])
    def test_any_name(self, gcs, name):
        path = filesystem.join("gs://bucket/top", name)
        gcs.write(path, b"data")
        (stat,) = match(path)
        assert (stat.path, stat.size_bytes) == (path, 4)
        assert match("gs://bucket/top") == [stat]
        assert stat == filesystem.find_file(path)  # the time too, to the last bit

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("gs://bucket", REMOTE_NAMES),
            ("gs://bucket/", REMOTE_NAMES),
            ("gs://bucket/d", ["d/a.jpg", "d/e/b.jpg", "d/e/f/g.jpg"]),
            ("gs://bucket/d/", ["d/a.jpg", "d/e/b.jpg", "d/e/f/g.jpg"]),
            ("gs://bucket/d/*", ["d/a.jpg"]),
            ("gs://bucket/d/*/*", ["d/e/b.jpg"]),
            ("gs://bucket/d/**", ["d/a.jpg", "d/e/b.jpg", "d/e/f/g.jpg"]),
            ("gs://bucket/**/g.jpg", ["d/e/f/g.jpg"]),
            ("gs://bucket/d*/?.jpg", ["d/a.jpg", "d2/c.jpg"]),
            ("gs://bucket/d/[ab].jpg", ["d/a.jpg"]),
            ("gs://bucket/*/?.jpg", ["d/a.jpg", "d2/c.jpg", "x[1]/f.jpg"]),
            ("gs://bucket/d?a.jpg", []),
            ("gs://bucket/d/a.jpg", ["d/a.jpg"]),
            ("gs://bucket/none", []),
            ("gs://bucket/none/*", []),
        ],
    )
    def test_match(self, gcs, pattern, found):
        for name in REMOTE_NAMES:
            gcs.write(f"gs://bucket/{name}", b"")
        assert paths(pattern) == [f"gs://bucket/{name}" for name in found]

    def test_only_folders_that_may_hold_matches_are_listed(self, gcs):
        for name in ("a/2023/x.jpg", "a/2024/x.jpg", "a/2024/deep/x.jpg", "b/2024/x.jpg"):
            gcs.write(f"gs://bucket/{name}", b"")

        def folders(pattern, folder):
            found = CloudListing(pattern).list_folder(Folder(folder, folder))
            return [item.path for item in found if isinstance(item, Folder)]

        assert folders("gs://bucket/*/20?4/*", "gs://bucket/") == ["gs://bucket/a/", "gs://bucket/b/"]
        assert folders("gs://bucket/a*/x.jpg", "gs://bucket/") == ["gs://bucket/a/"]
        assert folders("gs://bucket/*/20?4/*", "gs://bucket/a/") == ["gs://bucket/a/2024/"]
        assert folders("gs://bucket/*/20?4/*", "gs://bucket/a/2024/") == []
        assert folders("gs://bucket/*/20?4/**", "gs://bucket/a/2024/") == ["gs://bucket/a/2024/deep/"]
        assert folders(None, "gs://bucket/a/") == ["gs://bucket/a/2023/", "gs://bucket/a/2024/"]

    def test_what_cannot_be_listed_is_an_os_error(self):
        with pytest.raises(OSError, match="none"):
            match("gs://none/a")
        with pytest.raises(OSError, match="none"):
            match("gs://none/a*")


class TestListFolders:
    def test_only_the_files_directly_in_the_folders(self, tmp_path):
        for name in ("a/1", "a/b/2", "c/3", "d/4"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        folders = [f"{tmp_path}/{name}/" for name in ("a", "c", "missing")]
        found = [path for page in listing.list_folders(folders) for path in page.paths]
        assert sorted(found) == [f"{tmp_path}/a/1", f"{tmp_path}/c/3"]

    def test_buckets(self, gcs, tmp_path):
        (tmp_path / "here").write_bytes(b"")
        names = ("folders/a/1", "folders/a/b/2", "folders/[c]/3", "folders/d/4")
        for name in names:
            gcs.write(f"gs://bucket/{name}", b"")
        folders = ["gs://bucket/folders/a/", "gs://bucket/folders/[c]/", "gs://bucket/missing/", f"{tmp_path}/"]
        found = [path for page in listing.list_folders(folders) for path in page.paths]
        expected = ["gs://bucket/folders/[c]/3", "gs://bucket/folders/a/1", f"{tmp_path}/here"]
        filesystem.delete(gcs.paths())
        assert sorted(found) == sorted(expected)

    def test_nothing(self):
        assert list(listing.list_folders([])) == []
