from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ModuleError
from pipeline.hub import archive
from pipeline.hub.archive import extract, safe_path


def file(name: str, content: bytes = b"x", type_: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.size = len(content) if type_ == tarfile.REGTYPE else 0
    info.linkname = "saved_model.pb"
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_) as writer:
        for info, content in members:
            writer.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def unpack(tmp_path: Path, packed: bytes) -> dict[str, bytes]:
    """Unpacks into a fresh directory and returns its files; nothing may appear beside it."""
    area = tmp_path / "area"
    area.mkdir()
    (area / "m.tar.gz").write_bytes(packed)
    try:
        extract(area / "m.tar.gz", area / "out", "m.tar.gz")
    finally:
        assert {path.name for path in area.iterdir()} <= {"m.tar.gz", "out"}
        assert {path.name for path in tmp_path.iterdir()} == {"area"}
    out = area / "out"
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_files_and_directories(tmp_path: Path, format_: int) -> None:
    long_name = "variables/" + "v" * 120
    members = [
        file("./", type_=tarfile.DIRTYPE),
        file("./saved_model.pb", b"graph"),
        file("assets", type_=tarfile.DIRTYPE),
        file(long_name, b"w" * 3_000_000),
        file("été", b""),
    ]
    packed = gzip.compress(tar(*members, format_=format_))
    assert unpack(tmp_path, packed) == {"saved_model.pb": b"graph", long_name: b"w" * 3_000_000, "été": b""}
    assert (tmp_path / "area" / "out" / "assets").is_dir()


def test_mode_bits_are_not_taken_over(tmp_path: Path) -> None:
    info, content = file("saved_model.pb")
    info.mode = 0o4777
    unpack(tmp_path, gzip.compress(tar((info, content))))
    (tmp_path / "plain").touch()
    mode = (tmp_path / "area" / "out" / "saved_model.pb").stat().st_mode
    assert mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (file("/etc/passwd"), "'/etc/passwd' is an absolute path"),
        (file("//host/share"), "is an absolute path"),
        (file("C:\\Windows\\x"), "is an absolute path"),
        (file("../outside"), r"'\.\./outside' is a path with '\.\.'"),
        (file("a/../../outside"), r"a path with '\.\.'"),
        (file("..", type_=tarfile.DIRTYPE), r"a path with '\.\.'"),
        (file("a\\..\\outside"), "a backslash"),
        (file("d/" * 15 + "x"), "a path of over 15 parts"),
        (file("v" * 256), "255 bytes in one"),
        (file("link", type_=tarfile.SYMTYPE), "'link' is a symbolic link"),
        (file("link", type_=tarfile.LNKTYPE), "'link' is a hard link"),
        (file("tty", type_=tarfile.CHRTYPE), "'tty' is a character device"),
        (file("sda", type_=tarfile.BLKTYPE), "'sda' is a block device"),
        (file("pipe", type_=tarfile.FIFOTYPE), "'pipe' is a named pipe"),
        (file("what", type_=b"Z"), "'what' is of an unknown kind"),
        (file("saved_model.pb"), "'saved_model.pb' is in the place of another member"),
        (file("saved_model.pb/x"), "'saved_model.pb/x' is in the place of another member"),
        (file("."), r"'\.' is in the place of another member"),
    ],
)
def test_hostile_member_is_refused_by_name(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], message: str) -> None:
    packed = gzip.compress(tar(file("saved_model.pb"), member))
    with pytest.raises(ModuleError, match=f"^module m.tar.gz: .*{message}.*, expected only files and directories"):
        unpack(tmp_path, packed)


def test_sparse_file_is_refused(tmp_path: Path) -> None:
    info, _ = file("hole", b"")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)}
    content = b"0\n".ljust(512, b"\0")
    info.size = len(content)
    with pytest.raises(ModuleError, match="'hole' is a sparse file"):
        unpack(tmp_path, gzip.compress(tar((info, content))))


def test_link_then_file_through_it_leaves_nothing_outside(tmp_path: Path) -> None:
    link, _ = file("door", type_=tarfile.SYMTYPE)
    link.linkname = ".."
    with pytest.raises(ModuleError, match="'door' is a symbolic link"):
        unpack(tmp_path, gzip.compress(tar((link, b""), file("door/outside"))))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "it starts with b'', expected a gzip-compressed tar file"),
        (b"\n<!DOCTYPE html><html>", r"it starts with .*DOCTYPE.* \(a web page\?\), expected a gzip"),
        (b"PK\x03\x04zip", "it starts with b'PK.*, expected a gzip"),
        (tar(file("saved_model.pb")), "it starts with b'saved_model.pb.*, expected a gzip"),
        (gzip.compress(b""), "the tar file in it cannot be read"),
        (gzip.compress(b"no tar file " * 100), "the tar file in it cannot be read"),
        (gzip.compress(tar(file("a", b"x" * 9000)))[:-1], "the compressed data ends too early"),
        (gzip.compress(tar(file("a")))[:-8] + bytes(8), "the compressed data is damaged"),
        (gzip.compress(tar(file("a")))[:12] + b"\xff" * 90, "the compressed data is damaged"),
        (gzip.compress(tar(file("a", b"x" * 9000))[:5000]), "the tar file in it cannot be read .it ends inside 'a'"),
        (
            gzip.compress(tar(file("a", b"x" * 512))[:1024]),
            "the tar file in it cannot be read .no header and no end mark at byte 1024",
        ),
    ],
    ids=[
        "empty",
        "html",
        "zip",
        "tar",
        "gzip of nothing",
        "gzip of text",
        "without last byte",
        "checksum",
        "deflate",
        "cut tar",
        "no end mark",
    ],
)
def test_not_a_whole_archive(tmp_path: Path, packed: bytes, message: str) -> None:
    with pytest.raises(ModuleError, match=f"^module m.tar.gz: {message}") as caught:
        unpack(tmp_path, packed)
    assert "\n" not in str(caught.value)


def test_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    damaged = bytearray(tar(file("a"), file("b"), format_=tarfile.USTAR_FORMAT))
    damaged[1024] ^= 1
    with pytest.raises(ModuleError, match="no header and no end mark at byte 1024"):
        unpack(tmp_path, gzip.compress(bytes(damaged)))


@settings(deadline=None, max_examples=60)
@given(st.integers(min_value=1, max_value=10_000))
def test_every_truncation_is_noticed(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    packed = gzip.compress(tar(file("saved_model.pb", bytes(range(256)) * 9), file("b")), compresslevel=0)
    with pytest.raises(ModuleError):
        unpack(tmp_path_factory.mktemp("cut"), packed[: -min(cut, len(packed))])


def set_field(start: int, value: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[start : start + len(value)] = value

    return change


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.builds(
            set_field,
            st.sampled_from([0, 124, 135, 156, 157, 257, 263, 345, 386, 483]),
            st.one_of(
                st.binary(min_size=1, max_size=12), st.sampled_from([b"S", b"x", b"L", b"K", b"g", b"\xff" * 12])
            ),
        ),
        max_size=3,
    ),
    st.integers(0, 3),
)
def test_any_header_is_unpacked_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Callable[[bytearray], None]], block: int
) -> None:
    content = bytearray(tar(file("saved_model.pb"), file("variables/é", b"y" * 600)))
    header = content[block * 512 : block * 512 + 512]
    for change in changes:
        change(header)
    header = header[:512].ljust(512, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[block * 512 : block * 512 + 512] = header
    with contextlib.suppress(ModuleError):  # and nothing else; unpack checks that nothing appears outside
        unpack(tmp_path_factory.mktemp("header"), gzip.compress(bytes(content)))


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 4_000_000)
    bomb = gzip.compress(tar(file("saved_model.pb"), file("zeros", bytes(5_000_000))))
    assert len(bomb) < 10_000
    with pytest.raises(ModuleError, match="it unpacks to more than 4,000,000 bytes, the limit for a module"):
        unpack(tmp_path, bomb)
    assert not (tmp_path / "area" / "out").exists()


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    assert len(unpack(tmp_path, gzip.compress(tar(*(file(str(i)) for i in range(3)))))) == 3
    (tmp_path / "area").rename(tmp_path.with_name("first"))
    with pytest.raises(ModuleError, match="it has more than 3 members, the limit for a module"):
        unpack(tmp_path, gzip.compress(tar(*(file(str(i)) for i in range(4)))))


def test_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    header = bytearray(tar(file("saved_model.pb"), format_=tarfile.USTAR_FORMAT)[:512])
    header[156:157] = tarfile.XHDTYPE
    header[124:136] = b"%011o\0" % (7 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ModuleError, match="a header claims 7516192768 bytes"):
        unpack(tmp_path, gzip.compress(bytes(header) + bytes(1 << 20)))


def test_limits() -> None:
    assert archive.MAX_BYTES == 8 * 1024**3
    assert archive.MAX_FILES == 10_000


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "a/./b", "a..b", "...", "", ".", "a/", "é"])
def test_safe_path_stays_inside(name: str) -> None:
    path = safe_path(name, "m")
    assert not path.is_absolute()
    assert ".." not in path.parts


@pytest.mark.parametrize("name", ["/a", "..", "a/..", "../a", "a\\b", "c:a", "\\\\host\\share", "a\0b"])
def test_safe_path_refuses(name: str) -> None:
    with pytest.raises(ModuleError, match=r"^module m: .*, expected only files and directories"):
        safe_path(name, "m")
