import os
import re

import pytest

from pipeline.core.errors import InputError
from pipeline.storage import filesystem
from tests.inputs.finding import find, names


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A directory with some files, the current one."""
    for name in ("photos/a.jpg", "photos/b.PNG", "photos/2024/c.jpeg", "other/f.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestLists:
    def test_keys_are_the_lines_as_they_stand(self, tree):
        lines = ["photos/a.jpg", f"{tree}/photos/2024/c.jpeg", "./other/f.tif", "gs://nowhere/x.jpg", "missing.jpg"]
        (tree / "all.txt").write_text("\n".join(["", *lines, "   ", ""]))
        files = find("all.txt")
        assert sorted(names(files)) == sorted(lines)
        assert {file.kind for file in files} == {"images"}
        by_name = {file.name: file for file in files}
        assert by_name["./other/f.tif"].path == f"{tree}/other/f.tif"
        assert by_name["photos/a.jpg"].size_bytes == 5
        assert (by_name["missing.jpg"].size_bytes, by_name["missing.jpg"].mtime_s) == (0, 0.0)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_lines_end_as_they_do_on_any_system(self, tree, end):
        (tree / "all.lst").write_bytes(f"photos/a.jpg{end}other/f.tif{end}".encode())
        assert names(find("all.lst")) == ["other/f.tif", "photos/a.jpg"]

    def test_other_characters_end_no_line(self, tree):
        line = "a\u2028b\x0bc\x85.jpg"
        (tree / "all.list").write_text(line, encoding="utf-8")
        assert names(find("all.list")) == [line]

    def test_a_byte_order_mark_is_no_part_of_the_first_line(self, tree):
        (tree / "all.txt").write_bytes("photos/a.jpg\n".encode("utf-8-sig"))
        assert names(find("all.txt")) == ["photos/a.jpg"]

    def test_lines_that_are_not_utf_8_name_files_all_the_same(self, tree):
        (tree / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"123")
        (tree / "all.txt").write_bytes(b"caf\xe9.jpg\n")
        (file,) = find("all.txt")
        assert (os.fsencode(file.name), file.size_bytes) == (b"caf\xe9.jpg", 3)

    @pytest.mark.parametrize("line", ["nul\0.jpg", "x" * 5000, "photos", "*.jpg", "nosuch://a"])
    def test_lines_that_name_no_file_stay_in_the_plan(self, tree, line):
        (tree / "all.txt").write_text(line)
        (file,) = find("all.txt")
        assert (file.name, file.size_bytes) == (line, 0)

    def test_any_name_may_be_said_to_be_a_list(self, tree):
        (tree / "images.csv").write_text("photos/a.jpg\n")
        assert names(find("images.csv", input_format="list")) == ["photos/a.jpg"]

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    def test_encodings_with_a_mark(self, tree, encoding):
        (tree / "photos/é.jpg").write_bytes(b"123")
        mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
        (tree / "all.txt").write_bytes(f"{mark}photos/é.jpg\r\nphotos/a.jpg\r\n".encode(encoding))
        assert [(file.name, file.size_bytes) for file in find("all.txt")] == [("photos/a.jpg", 5), ("photos/é.jpg", 3)]

    def test_comments_quotes_and_file_addresses(self, tree):
        (tree / "photos/a b#é.jpg").write_bytes(b"123")
        (tree / "#1.jpg").write_bytes(b"1")
        (tree / 'say "x".jpg').write_bytes(b"12")
        lines = [
            "# all photos",
            "#1.jpg",
            '"photos/a.jpg"',
            '"say ""x"".jpg"',
            f"file://{tree}/photos/a%20b%23%C3%A9.jpg",
            f"file://localhost{tree}/photos/b.PNG",
            f"file:{tree}/other/f.tif",
        ]
        (tree / "all.txt").write_text("\n".join(lines), encoding="utf-8")
        found = {file.name: (file.path.removeprefix(f"{tree}/"), file.size_bytes) for file in find("all.txt")}
        assert found == {
            lines[1]: ("#1.jpg", 1),
            lines[2]: ("photos/a.jpg", 5),
            lines[3]: ('say "x".jpg', 2),
            lines[4]: ("photos/a b#é.jpg", 3),
            lines[5]: ("photos/b.PNG", 5),
            lines[6]: ("other/f.tif", 5),
        }

    @pytest.mark.parametrize(
        "line", ["# holiday photos, 2024\nphotos/a.jpg", '"photos/a, b.jpg"', '"a; b"', "a, b", "file:{}/a,%20b"]
    )
    def test_a_first_line_with_a_comma_may_be_a_comment_or_a_path(self, tree, line):
        (tree / "a, b").write_bytes(b"1")
        (tree / "all.txt").write_text(f"{line.format(tree)}\n")
        assert names(find("all.txt")) == [line.format(tree).splitlines()[-1]]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (
                "# labels, 2024\n\nfile,label\nphotos/a.jpg,3\n",
                "list file {} seems to be a table: its first line is file,label; read it with --input_format=csv",
            ),
            (
                '"photos/a.jpg","cat"\n',
                'list file {} seems to be a table: its first line is "photos/a.jpg","cat"; read it with '
                "--input_format=csv",
            ),
            (
                "https://example.com/b.jpg,a cat\n",
                "list file {} seems to be a table: its first line is https://example.com/b.jpg,a cat; read it with "
                "--input_format=csv",
            ),
            (
                "https://example.com/b.jpg\tcat\n",
                "list file {} seems to be a table: its first line is https://example.com/b.jpg\tcat; read it with "
                "--input_format=csv",
            ),
            (
                "file,label\nphotos/a.jpg,3\n",
                "list file {} seems to be a table: its first line is file,label; read it with --input_format=csv",
            ),
            (
                "photos/a.jpg\tcat\n",
                "list file {} seems to be a table: its first line is photos/a.jpg\tcat; read it with "
                "--input_format=csv",
            ),
            (
                "file://host/a.jpg\n",
                "in a list file, the address file://host/a.jpg names the computer host; expected file:///PATH",
            ),
        ],
    )
    def test_lists_of_something_else_say_what_they_are(self, tree, lines, message):
        (tree / "all.txt").write_text(lines)
        with pytest.raises(InputError, match=f"^{re.escape(message.format(tree / 'all.txt'))}$"):
            find(tree / "all.txt")

    def test_a_path_that_is_listed_twice_is_read_once(self, tree, caplog):
        (tree / "all.txt").write_text("photos/a.jpg\nphotos/a.jpg\n./photos/a.jpg\n")
        assert names(find("all.txt")) == ["photos/a.jpg"]
        assert caplog.messages == [
            "1 list lines name a file that an earlier line names differently; the earlier line gives the key"
        ]

    def test_a_list_that_cannot_be_read(self, tree, monkeypatch):
        (tree / "all.txt").write_text("")

        def fail(path):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(filesystem, "open_read", fail)
        with pytest.raises(InputError, match=r"^list file .*/all.txt cannot be read: .*Permission denied"):
            find("all.txt")
