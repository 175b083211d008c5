import gzip
import logging
import os
import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.dataset.ownership import outputs_in
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs import image_files
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.tasks import make_tasks
from pipeline.testing import make_example, make_tfrecord, png_bytes
from tests.inputs.archives import make_tar
from tests.inputs.finding import find, names

RECORDS = make_tfrecord([make_example({"image/encoded": bytes([i])}) for i in range(5)])


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A directory with some files, the current one; their contents do not matter to the plan."""
    for name in (
        "photos/a.jpg",
        "photos/b.PNG",
        "photos/2024/c.jpeg",
        "photos/2024/d.webp",
        "photos/notes.md",
        "photos/.thumbs/e.jpg",
        "photos/.hidden.jpg",
        "records/train-00000-of-00002",
        "records/train-00001-of-00002",
        "records/x.tfrecord.gz",
        "other/f.tif",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestKeys:
    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            # One input: relative to the directory, or to what stands before the first wildcard.
            (["photos"], ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]),
            (["photos/"], ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]),
            (["./photos/../photos"], ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]),
            (["photos/2024"], ["c.jpeg", "d.webp"]),
            (["photos/2024/c.jpeg"], ["c.jpeg"]),
            (["photos/*.jpg"], ["a.jpg"]),
            (["photos/*/c.jpeg"], ["2024/c.jpeg"]),
            (["photos/20*/c.jpeg"], ["2024/c.jpeg"]),
            (["ph*s/2024/c.jpeg"], ["photos/2024/c.jpeg"]),
            (["**/*.jpeg"], ["photos/2024/c.jpeg"]),
            (["photos/**/?.jp*g"], ["2024/c.jpeg", "a.jpg"]),
            # Several: relative to their common parent.
            (["photos/2024", "other"], ["other/f.tif", "photos/2024/c.jpeg", "photos/2024/d.webp"]),
            (["photos/2024", "photos/a.jpg"], ["2024/c.jpeg", "2024/d.webp", "a.jpg"]),
            (["photos/*.jpg", "photos/2024/*.jpeg"], ["2024/c.jpeg", "a.jpg"]),
            (["photos/a.jpg", "other/f.tif"], ["other/f.tif", "photos/a.jpg"]),
            (["o*/f*", "photos/a.jpg"], ["other/f.tif", "photos/a.jpg"]),
            # Named twice: read once.
            (["photos/a.jpg", "photos/*.jpg", "photos/a.jpg"], ["a.jpg"]),
            (["photos/a.jpg", "photos/a.jpg"], ["a.jpg"]),
            (["photos/a.jpg", "photos/b.PNG", "photos/2024/../a.jpg"], ["a.jpg", "b.PNG"]),
        ],
    )
    def test_names(self, tree, patterns, expected):
        assert names(find(*patterns)) == expected
        # The same from anywhere else.
        absolute = [f"{tree}/{pattern}" for pattern in patterns]
        os.chdir("/")
        assert names(find(*absolute)) == expected

    def test_the_current_directory(self, tree):
        os.chdir(tree / "photos")
        assert names(find(".")) == ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]
        assert names(find(".", "a.jpg")) == ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]

    def test_home(self, tree, monkeypatch):
        monkeypatch.setenv("HOME", str(tree))
        assert names(find("~/photos/2024")) == ["c.jpeg", "d.webp"]

    def test_what_is_known_of_a_file(self, tree):
        stat = os.stat(tree / "photos/a.jpg")
        expected = InputFile(f"{tree}/photos/a.jpg", "a.jpg", "images", 5, stat.st_mtime)
        assert find(tree / "photos/a.jpg") == [expected]
        assert not expected.is_compressed

    @pytest.mark.parametrize("name", ["sp ace.jpg", "bra[1].jpg", "é.jpg", "new\nline.jpg", "star*.jpg", "\udcff.jpg"])
    def test_weird_names(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / "star1.jpg").write_bytes(b"")
        assert names(find(tmp_path / name)) == [name]
        assert name in names(find(tmp_path))

    def test_a_directory_that_looks_like_a_glob(self, tmp_path):
        for directory in ("d[1]", "d1"):
            (tmp_path / directory).mkdir()
            (tmp_path / directory / "a.jpg").write_bytes(b"")
        assert [file.path for file in find(tmp_path / "d[1]")] == [f"{tmp_path}/d[1]/a.jpg"]
        assert names(find(tmp_path / "d[1]")) == ["a.jpg"]

    @given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=4, unique=True))
    @settings(deadline=None, max_examples=30)
    def test_every_file_of_a_tree_has_its_own_key(self, tmp_path_factory, directories):
        root = tmp_path_factory.mktemp("tree")
        for directory in directories:
            for path in (root / directory / "x.jpg", root / f"{directory}.jpg"):
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"")
        everything = find(root)
        assert len(set(names(everything))) == len(everything) == 2 * len(directories)
        assert {root / file.name for file in everything} == {Path(file.path) for file in everything}
        parts = find(*(root / directory for directory in directories))
        assert {Path(file.path) for file in parts} == {root / directory / "x.jpg" for directory in directories}
        assert len(set(names(parts))) == len(parts)


@pytest.fixture(scope="module")
def _remote_photos(gcs):
    for name in ("photos/a.jpg", "photos/2024/b.jpg", "other/c.jpg"):
        gcs.write(f"gs://bucket/{name}", b"123")


@pytest.mark.usefixtures("_remote_photos")
class TestRemoteKeys:
    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            (["gs://bucket"], ["other/c.jpg", "photos/2024/b.jpg", "photos/a.jpg"]),
            (["gs://bucket/photos"], ["2024/b.jpg", "a.jpg"]),
            (["gs://bucket/photos/"], ["2024/b.jpg", "a.jpg"]),
            (["gs://bucket/photos/a.jpg"], ["a.jpg"]),
            (["gs://bucket/photos/*.jpg"], ["a.jpg"]),
            (["gs://bucket/p*/a.jpg"], ["photos/a.jpg"]),
            (["gs://bucket/photos", "gs://bucket/other/*"], ["other/c.jpg", "photos/2024/b.jpg", "photos/a.jpg"]),
            (["gs://bucket/photos/2024", "gs://bucket/photos/a.jpg"], ["2024/b.jpg", "a.jpg"]),
        ],
    )
    def test_names(self, patterns, expected):
        files = find(*patterns)
        assert names(files) == expected
        assert all(file.size_bytes == 3 and file.mtime_s > 1.6e9 for file in files)

    def test_lines_of_a_list_in_the_store(self, gcs):
        lines = ["gs://bucket/photos/a.jpg", "gs://bucket/other/caf\u00e9.jpg"]
        gcs.write("gs://bucket/lists/all.txt", "\r\n".join(lines).encode("utf-8-sig"))
        assert names(find("gs://bucket/lists/all.txt")) == sorted(lines)
        gcs.delete("gs://bucket/lists/")

    def test_inputs_without_a_common_parent_have_their_whole_paths(self, tree):
        expected = [f"{tree}/other/f.tif", "gs://bucket/photos/a.jpg"]
        assert names(find("gs://bucket/photos/a.jpg", tree / "other")) == expected


class TestPaths:
    def test_a_path_means_the_same_file_wherever_the_next_run_is_started(self, tree, monkeypatch):
        before = find("photos")
        monkeypatch.chdir(tree / "other")
        assert find("../photos") == before
        assert before[0].path.startswith(f"{tree}/photos/")

    def test_links_to_directories_are_followed(self, tree):
        (tree / "linked").mkdir()
        (tree / "linked" / "more").symlink_to(tree / "photos", target_is_directory=True)
        assert set(names(find("linked"))) == {f"more/{name}" for name in names(find("photos"))}

    def test_a_link_to_itself_stays_in_the_plan(self, tree):
        (tree / "photos" / "itself.jpg").symlink_to("itself.jpg")
        assert [file.size_bytes for file in find("photos") if file.name == "itself.jpg"] == [0]

    def test_links_in_a_circle_end(self, tree):
        (tree / "photos" / "again").symlink_to(tree / "photos", target_is_directory=True)
        (tree / "photos" / "twice").symlink_to(tree / "other", target_is_directory=True)
        assert sorted(names(find("photos"))) == ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG", "twice/f.tif"]


class TestKinds:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *((f"a{extension}", "images") for extension in EXTENSIONS),
            ("a.JPG", "images"),
            ("a.tfrecord.jpg", "images"),
            ("a.tfrecord", "tfrecord"),
            ("a.tfrecords", "tfrecord"),
            ("a.TFRecord", "tfrecord"),
            ("a.tfrecord.gz", "tfrecord"),
            ("a.tfrec", "tfrecord"),
            ("a.tfrec.gz", "tfrecord"),
            ("a.tfrecord-00000-of-00010", "tfrecord"),
            ("train-00000-of-01024", "tfrecord"),
            ("train-00000-of-01024.gz", "tfrecord"),
            ("a.tar", "webdataset"),
            ("a-00000-of-00010.tar", "webdataset"),
            ("a.tar.gz", "webdataset"),
            ("a.TGZ", "webdataset"),
            ("a.parquet", "parquet"),
            ("train-00000-of-00010.parquet", "parquet"),
        ],
    )
    def test_by_name(self, tmp_path, name, kind):
        (tmp_path / name).write_bytes(b"")
        (directory_finds,) = find(tmp_path)
        (path_finds,) = find(tmp_path / name)
        assert directory_finds.kind == path_finds.kind == kind
        assert path_finds.is_compressed == name.lower().endswith("gz")

    @pytest.mark.parametrize("name", ["a.md", "noextension", "a.jpg.bak", "jpg", "a-0-of-1", "a.xls", "a.tfrecord.idx"])
    def test_a_file_that_was_named_must_tell_what_it_is(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"")
        message = (
            f"neither the name nor the first bytes of {tmp_path / name} show its kind; use --input_format=images, "
            "tfrecord, webdataset, parquet, csv or list"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            find(tmp_path / name)

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (png_bytes(), "images"),
            (RECORDS, "tfrecord"),
            (gzip.compress(RECORDS), "tfrecord"),
            (zlib.compress(RECORDS), "tfrecord"),
            (make_tar([("a.jpg", b"x")]), "webdataset"),
            (gzip.compress(make_tar([("a.jpg", b"x")])), "webdataset"),
            (b"PAR1...", "parquet"),
        ],
    )
    def test_a_file_that_was_named_may_show_its_kind_by_its_first_bytes(self, tmp_path, data, kind):
        (tmp_path / "part-7").write_bytes(data)
        (file,) = find(tmp_path / "part-7")
        assert file.kind == kind

    def test_a_file_of_another_kind_says_so(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"PK\x03\x04")
        with pytest.raises(
            InputError, match=r"a\.bin show its kind \(it is a ZIP archive: unpack it\); use --input_for"
        ):
            find(tmp_path / "a.bin")

    def test_in_a_directory_other_files_and_hidden_ones_are_ignored_with_a_warning(self, tree, caplog):
        with caplog.at_level(logging.WARNING):
            assert names(find("photos")) == ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG"]
        assert caplog.messages == [
            "left out 3 files: 2 hidden, by names that begin with a dot; 1 of no known kind by their names (1 of .md)"
        ]

    def test_hidden_directories_that_are_named_are_read(self, tree):
        assert names(find("photos/.thumbs")) == ["e.jpg"]
        assert names(find("photos/.hidden.jpg")) == [".hidden.jpg"]

    def test_both_kinds_at_once(self, tree):
        kinds = {file.name: file.kind for file in find("photos", "records")}
        assert kinds["photos/a.jpg"] == "images"
        assert kinds["records/x.tfrecord.gz"] == kinds["records/train-00000-of-00002"] == "tfrecord"

    def test_kinds_of_the_caller_come_first(self, tree):
        class Dotted(InputKind):
            name = "dotted"
            file_names = r"\.(?:JPG|md)$"

        kinds = {file.name: file.kind for file in find("photos", kinds=[Dotted()])}
        assert kinds == {
            "2024/c.jpeg": "images",
            "2024/d.webp": "images",
            "a.jpg": "dotted",
            "b.PNG": "images",
            "notes.md": "dotted",
        }

    @pytest.mark.parametrize(("wanted", "kind"), [("images", "images"), ("tfrecord", "tfrecord")])
    def test_the_format_that_is_asked_for_is_believed(self, tree, wanted, kind):
        files = find("photos", input_format=wanted)
        assert names(files) == ["2024/c.jpeg", "2024/d.webp", "a.jpg", "b.PNG", "notes.md"]
        assert {file.kind for file in files} == {kind}


class TestNothing:
    @pytest.mark.parametrize("pattern", ["nothing", "nothing/*.jpg", "photos/*.gif", "photos/nothing.jpg"])
    def test_no_match(self, tree, pattern):
        message = f"no input matched {pattern}; expected image files, TFRecords, tar or Parquet files; check the path"
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            find(pattern)

    def test_one_pattern_of_several_without_a_match(self, tree):
        message = "no input matched nothing/*; expected image files, TFRecords, tar or Parquet files; check the path"
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            find("photos", "nothing/*")

    def test_one_empty_directory_of_several_is_no_mistake(self, tree):
        (tree / "photos" / "later").mkdir()
        assert names(find("photos/2024", "photos/later")) == ["2024/c.jpeg", "2024/d.webp"]

    def test_an_empty_directory(self, tmp_path):
        with pytest.raises(InputError, match=r"^no input matched"):
            find(tmp_path)

    def test_nothing_but_other_files(self, tree):
        message = (
            "no input matched photos/*.md; expected image files, TFRecords, tar or Parquet files; "
            "left out 1 files: 1 of no known kind by their names (1 of .md); name their --input_format"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            find("photos/*.md")

    def test_an_empty_list(self, tree):
        (tree / "none.txt").write_text("\n \n")
        with pytest.raises(InputError, match=r"^no input matched none.txt"):
            find("none.txt")

    def test_a_store_that_cannot_be_listed(self):
        with pytest.raises(InputError, match=r"^--input=nosuch://b/\* cannot be listed: "):
            find("nosuch://b/*")


def test_every_file_is_in_one_task():
    count = 2 * image_files.IMAGES_PER_TASK + 1
    files = [InputFile(f"{i}.jpg", f"{i}.jpg", "images", 1, 0.0) for i in range(count)]
    files.insert(3, InputFile("a.tfrecord", "a.tfrecord", "tfrecord", 1, 0.0))
    files.append(InputFile("b.tfrecord.gz", "b.tfrecord.gz", "tfrecord", 1, 0.0))
    tasks = make_tasks(iter(files))
    records = [task.files[0] for task in tasks if task.kind == "tfrecord"]
    images = [task.files for task in tasks if task.kind == "images"]
    assert [file.path for file in records] == ["a.tfrecord", "b.tfrecord.gz"]
    assert [len(group) for group in images] == [image_files.IMAGES_PER_TASK, image_files.IMAGES_PER_TASK, 1]
    assert [file for group in images for file in group] == [file for file in files if file.kind == "images"]
    assert [task.kind for task in tasks] == ["tfrecord"] * 2 + ["images"] * 3  # large tasks first
    assert make_tasks([]) == []


def test_what_runs_have_written_is_no_input(tmp_path):
    output = tmp_path / "photos" / "out"
    for name in ("a.jpg", "out/b.jpg", "out/embeddings/mine.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    shard = output / "embeddings" / "embeddings-00000-00000-of-00001.tfrecord"
    shard.write_bytes(RECORDS)
    photos, outputs = tmp_path / "photos", outputs_in(str(output))
    assert names(find(photos, outputs=outputs)) == ["a.jpg", "out/b.jpg", "out/embeddings/mine.jpg"]
    assert f"out/embeddings/{shard.name}" in names(find(photos))
    with pytest.raises(InputError, match=r"^no input matched"):
        find(shard, outputs=outputs)


@pytest.mark.parametrize(
    ("given", "output"), [("link", "real/out"), ("real", "link/out"), ("real", "elsewhere"), ("link/out", "real/out")]
)
def test_a_data_set_is_no_input_by_whatever_path(tmp_path, given, output):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    target = tmp_path / "elsewhere" if output == "elsewhere" else tmp_path / "real/out"
    (target / "embeddings").mkdir(parents=True)
    if output == "elsewhere":
        (tmp_path / "real/out").symlink_to("../elsewhere")
    (target / "embeddings/embeddings-00000-00000-of-00001.tfrecord").write_bytes(RECORDS)
    (target / "mine.jpg").write_bytes(b"x")
    files = find(tmp_path / given, outputs=outputs_in(str(tmp_path / output)))
    assert [os.path.basename(file.path) for file in files] == ["mine.jpg"]


def test_a_list_must_not_give_one_key_to_two_files(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "x.jpg", tmp_path / "d/x.jpg"):
        path.write_bytes(b"x")
    (tmp_path / "d/list.txt").write_text("x.jpg\n")
    monkeypatch.chdir(tmp_path)
    text = f"{tmp_path}/d/x.jpg and {tmp_path}/x.jpg would have the same key, x.jpg; write the list's line in another"
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        find(tmp_path / "d/x.jpg", tmp_path / "d/list.txt")


def test_lines_of_a_list_are_files_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.jpg").write_bytes(b"x")
    (tmp_path / "list.txt").write_bytes(b"folder\n**\nf*\na\0*.jpg\n")
    monkeypatch.chdir(tmp_path)
    files = find(tmp_path / "list.txt")
    assert sorted(file.name for file in files) == ["**", "a\0*.jpg", "f*", "folder"]
    assert {file.size_bytes for file in files} == {0}
