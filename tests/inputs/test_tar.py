import io
import shutil
import subprocess
import tarfile

import pytest

from pipeline.inputs.tar import Member, TarReader, is_tar
from pipeline.tfrecords.byte_window import ByteWindow
from pipeline.tfrecords.tfrecord import CorruptRange
from tests.inputs.archives import make_tar

LONG = "folder-" * 40 + "/é.jpg"
MEMBERS = [("a.jpg", b"a" * 700), ("b.json", b""), (LONG, b"c" * 512), ("d.txt", b"d"), ("e.txt", b"e" * 3000)]


def read(data, *, seekable=True, limit=10_000, start=0):
    """Returns the (name, data) of each member, and each damaged range."""
    reader = TarReader(ByteWindow(io.BytesIO(data), seekable=seekable), limit)
    return [
        item if isinstance(item, CorruptRange) else (item.name, reader.data(item) if item.size <= limit else None)
        for item in reader.items(start)
    ]


def offsets(data):
    return [item.offset for item in TarReader(ByteWindow(io.BytesIO(data), seekable=True), 10_000).items(0)]


@pytest.mark.parametrize("seekable", [True, False])
class TestIntact:
    @pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_members_with_names_of_any_length(self, seekable, tar_format):
        assert read(make_tar(MEMBERS, format=tar_format), seekable=seekable) == MEMBERS

    def test_data_that_is_too_large_is_passed_over(self, seekable):
        large = [("a", b"a" * 600_000), ("b", b"b")]
        assert read(make_tar(large), seekable=seekable) == [("a", None), ("b", b"b")]

    def test_empty_archives(self, seekable):
        assert read(make_tar([]), seekable=seekable) == read(b"", seekable=seekable) == []

    def test_archives_that_were_concatenated(self, seekable):
        data = make_tar(MEMBERS[:2]) + make_tar(MEMBERS[2:])
        assert read(data, seekable=seekable) == MEMBERS

    def test_an_archive_without_its_end(self, seekable):
        data = make_tar([("a.jpg", b"a" * 700), ("b", b"b" * 512)])[: 4 * 512 + 512]
        assert read(data, seekable=seekable) == [("a.jpg", b"a" * 700), ("b", b"b" * 512)]
        assert read(make_tar([("a.jpg", b"abc")])[: 512 + 3], seekable=seekable) == [("a.jpg", b"abc")]


def test_names_outside_utf_8():
    data = make_tar([(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), b"x")], format=tarfile.GNU_FORMAT)
    assert read(data) == [("caf\udce9.jpg", b"x")]


def test_folders_are_no_files_and_links_say_what_they_are():
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "" if kind == tarfile.DIRTYPE else "a.jpg"
            tar.addfile(info)
    items = TarReader(ByteWindow(io.BytesIO(archive.getvalue()), seekable=True), 100).items(0)
    text = "is a link to a.jpg; pack it with tar --dereference"
    assert [(item.name, item.problem) for item in items] == [("l.jpg", text), ("h.jpg", text)]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("flags", [["--format=gnu"], ["--format=pax"]])
def test_sparse_files(tmp_path, flags):
    with (tmp_path / "a.jpg").open("wb") as file:
        for index in range(30):
            file.seek(index << 16)
            file.write(b"x")
    (tmp_path / "b.txt").write_bytes(b"b")
    command = ["tar", "-C", tmp_path, *flags, "--sparse", "-cf", tmp_path / "x.tar", "a.jpg", "b.txt"]
    subprocess.run(command, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    items = list(TarReader(ByteWindow(io.BytesIO(data), seekable=True), 1 << 20).items(0))
    assert [(item.name, item.problem) for item in items] == [
        ("a.jpg", "is a sparse file; pack it without --sparse"),
        ("b.txt", ""),
    ]


class TestDamage:
    def test_a_damaged_header_costs_its_member(self):
        data = bytearray(make_tar(MEMBERS))
        start, stop = offsets(data)[1:3]
        data[start + 3] ^= 1
        found = read(bytes(data))
        message = "no tar header, or its checksum does not match"
        assert found == [MEMBERS[0], CorruptRange(start, stop, message), *MEMBERS[2:]]
        assert read(bytes(data), seekable=False) == found

    def test_missing_bytes_cost_the_member_that_lacks_them(self):
        data = make_tar(MEMBERS)
        start, stop = offsets(data)[:2]
        found = read(data[:600] + data[637:])
        message = "bytes are missing in the member a.jpg, in which a header begins"
        assert found == [CorruptRange(start, stop - 37, message), *MEMBERS[1:]]

    def test_a_damaged_header_does_not_cost_the_member_before_it(self):
        data = bytearray(make_tar([("a.jpg", b"a" * 700), ("b.json", b"b"), ("c", b"c")]))
        data[1536:1560] = bytes(range(24))
        assert read(bytes(data))[0] == ("a.jpg", b"a" * 700)

    def test_lost_bytes_at_the_start(self):
        data = make_tar(MEMBERS)
        stop = offsets(data)[1] - 100
        assert read(data[100:])[1:] == MEMBERS[1:]
        assert read(data[100:])[0].start == 0
        assert read(data[100:])[0].stop == stop

    def test_an_archive_that_is_cut_off_anywhere(self):
        data = make_tar(MEMBERS)
        begins = offsets(data)
        for cut in range(1, begins[-1] + 512 + 3000, 53):
            found = read(data[:cut])
            whole = [member for member in found if not isinstance(member, CorruptRange)]
            assert whole == MEMBERS[: len(whole)]
            if cut in begins or len(whole) == sum(begin < cut for begin in begins):
                assert len(found) == len(whole)  # at most padding is missing
            else:
                assert (found[-1].start, found[-1].stop) == (begins[len(whole)], cut)
            assert read(data[:cut], seekable=False) == found

    def test_many_zero_bytes_are_damage(self):
        data = make_tar(MEMBERS[:1]) + bytes(2 << 20) + make_tar(MEMBERS[1:])
        first, damage, *rest = read(data)
        assert (first, rest) == (MEMBERS[0], MEMBERS[1:])
        assert damage.message == f"{damage.stop - damage.start} zero bytes where members were expected"

    def test_noise(self):
        noise = bytes(range(1, 256)) * 100
        (damage,) = read(noise)
        assert (damage.start, damage.stop) == (0, len(noise))
        assert not is_tar(noise)
        assert is_tar(make_tar(MEMBERS)[:512])


@pytest.mark.parametrize("look_back", [1, 1000])
def test_the_boundary_before_any_place_is_a_member_before_it(look_back):
    data = make_tar(MEMBERS * 3)
    begins = offsets(data)
    for start in range(0, len(data), 211):
        reader = TarReader(ByteWindow(io.BytesIO(data), seekable=True), 10_000)
        found = reader.boundary_before(start, look_back)
        assert found in begins
        assert found < start or start == 0
        member = next(reader.items(found))
        assert isinstance(member, Member)
        assert member.name == MEMBERS[begins.index(found) % len(MEMBERS)][0]
