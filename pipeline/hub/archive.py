"""Unpacking the `.tar.gz` of a module that nobody vouches for.

An archive is a claim about where its files belong. Only plain files and directories that stay inside the
target are taken; anything else is refused by name, and nothing is repaired on the way.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.core.errors import ModuleError
from pipeline.hub.contents import LFS_POINTER, locate_module

MAX_BYTES = 8 << 30
"""Bytes that a module may have, compressed or not."""

MAX_FILES = 10_000
"""Files and directories that a module may have."""

_CHUNK_BYTES = 1 << 20
_MAX_DEPTH = 15
_MAX_PART_BYTES = 255
_GZIP_MAGIC = b"\x1f\x8b"

_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
}


def is_archive_name(name: str) -> bool:
    """Says whether a path or an address ends like that of a gzip-compressed tar file."""
    return name.lower().endswith(_ARCHIVE_SUFFIXES)


def check_size(size_bytes: int, origin: str) -> None:
    """Raises `ModuleError` if a module, called `origin`, has more than `MAX_BYTES`."""
    if size_bytes > MAX_BYTES:
        raise ModuleError(
            f"module {origin}: it has more than {MAX_BYTES:,} bytes, the limit for a module; check the address"
        )


def unpack_module(archive: Path, work: Path, origin: str) -> Path:
    """Unpacks a module's tarball into `work`; returns the root of the module, see `locate_module`.

    Raises:
      ModuleError: as `extract`; or there is no module, or more than one.
      OSError: the disk refuses.
    """
    root = work / "unpacked"
    extract(archive, root, origin)
    return locate_module(root, origin)


def extract(archive: Path, directory: Path, origin: str) -> None:
    """Unpacks a gzip-compressed tar file.

    Files get the permissions of new files: owner, mode and times in the archive are not used. The
    uncompressed tar file lies beside `directory`, as `NAME.tar`, until the call ends.

    Args:
      archive: the `.tar.gz`.
      directory: receives the files; made here.
      origin: what to call the archive in an error.

    Raises:
      ModuleError: it is not a gzip-compressed tar file, it is damaged or truncated, it has a member that is
        neither a file nor a directory or whose name leads elsewhere, or it has more than `MAX_BYTES`
        uncompressed or more than `MAX_FILES` members.
      OSError: the disk refuses.
    """
    uncompressed = directory.with_name(directory.name + ".tar")
    try:
        # In a step of its own, so that gzip's checksum covers everything before any of it is believed.
        with uncompressed.open("xb") as stream:
            for chunk in _gunzip(archive, origin):
                stream.write(chunk)
        directory.mkdir()
        _unpack(uncompressed, directory, origin)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ModuleError(
            f"module {origin}: the tar file in it cannot be read ({error}), expected a whole one; fetch or pack it "
            "again"
        ) from error
    finally:
        uncompressed.unlink(missing_ok=True)


def safe_path(name: str, origin: str) -> PurePosixPath:
    """Returns the relative path that `name` stands for, `.` for the root itself.

    Args:
      name: a name with `/` between its parts, from an archive or a listing.
      origin: what to call the archive or the listing in an error.

    Raises:
      ModuleError: on some operating system, the path would lead out of the directory it is put into; or it is
        too long or too deep to be a module's.
    """
    path, foreign = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or foreign.anchor:
        raise _refused(origin, name, "an absolute path")
    if ".." in path.parts or "\\" in name or "\0" in name:
        raise _refused(origin, name, "a path with '..', a backslash or a NUL")
    lengths_bytes = [len(part.encode("utf-8", "surrogateescape")) for part in path.parts]
    if len(lengths_bytes) > _MAX_DEPTH or any(length > _MAX_PART_BYTES for length in lengths_bytes):
        raise _refused(origin, name, f"a path of over {_MAX_DEPTH} parts or {_MAX_PART_BYTES} bytes in one")
    return path


def _gunzip(archive: Path, origin: str) -> Iterator[bytes]:
    """Yields the uncompressed bytes; ends normally only if gzip's length and checksum hold."""
    with archive.open("rb") as compressed:
        start = compressed.read(32)
        if start.startswith(LFS_POINTER):
            raise ModuleError(
                f"module {origin}: it is a pointer of Git LFS in the place of the file; run `git lfs pull` in its "
                "repository"
            )
        if not start.startswith(_GZIP_MAGIC):
            page = " (a web page?)" if start.lstrip().startswith(b"<") else ""
            raise ModuleError(
                f"module {origin}: it starts with {start[:16]!r}{page}, expected a gzip-compressed tar file; "
                "check that the address names the module's .tar.gz itself"
            )
        compressed.seek(0)
        total_bytes = 0
        with gzip.GzipFile(fileobj=compressed) as stream:
            while chunk := _read_gzip(stream, origin):
                total_bytes += len(chunk)
                if total_bytes > MAX_BYTES:
                    raise ModuleError(
                        f"module {origin}: it unpacks to more than {MAX_BYTES:,} bytes, the limit for a module; "
                        "unpack it by hand and name the directory if it is to be trusted"
                    )
                yield chunk


def _read_gzip(stream: gzip.GzipFile, origin: str) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except EOFError as error:
        raise ModuleError(
            f"module {origin}: the compressed data ends too early, expected a whole .tar.gz; fetch it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ModuleError(
            f"module {origin}: the compressed data is damaged ({error}), expected a whole .tar.gz; fetch it again"
        ) from error


class _TarFile(io.FileIO):
    """A tar file on disk that lets no header ask for a large read, which would be held in memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _CHUNK_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if offset < 0:
            raise tarfile.ReadError(f"a header points to byte {offset}")
        return super().seek(offset, whence)


def _unpack(uncompressed: Path, directory: Path, origin: str) -> None:
    with _TarFile(uncompressed) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for number, member in enumerate(archive, start=1):
            if number > MAX_FILES:
                raise ModuleError(
                    f"module {origin}: it has more than {MAX_FILES:,} members, the limit for a module; unpack it by "
                    "hand and name the directory if it is to be trusted"
                )
            _make(member, file, directory / safe_path(member.name, origin), origin)
        # tarfile takes a damaged header for the end, unless it is the first one.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")


def _make(member: tarfile.TarInfo, file: _TarFile, target: Path, origin: str) -> None:
    if not (member.isdir() or member.isreg()) or member.issparse():
        kind = "a sparse file" if member.isreg() else _KINDS.get(member.type, "of an unknown kind")
        raise _refused(origin, member.name, kind)
    try:
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _refused(origin, member.name, "in the place of another member") from error
    with stream:
        file.seek(member.offset_data)
        remaining_bytes = member.size
        while remaining_bytes:
            chunk = file.read(min(remaining_bytes, _CHUNK_BYTES))
            if not chunk:
                raise tarfile.ReadError(f"it ends inside {member.name!r}")
            stream.write(chunk)
            remaining_bytes -= len(chunk)


def _refused(origin: str, name: str, kind: str) -> ModuleError:
    return ModuleError(
        f"module {origin}: {name!r} is {kind}, expected only files and directories inside the module; use a module "
        "from a source that you trust"
    )
