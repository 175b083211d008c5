"""Making a module appear on disk whole or not at all, as a directory or an archive."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import OutputError
from pipeline.savedmodel.digest import module_digest

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")


def check_output(output: str) -> Path:
    """Returns the path of a module to be made.

    Raises:
      OutputError: there is something already.
    """
    path = Path(os.path.expanduser(output))
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{path} exists, and no module replaces anything; name another --output or remove it first")
    return path


def publish(output: Path, write: Callable[[Path], None], before: Callable[[str], None] | None = None) -> str:
    """Writes a module and returns its digest.

    Args:
      output: the module's directory, or an archive if it ends in `.tar.gz` or `.tgz`.
      write: writes the module's files below a directory, which it makes.
      before: called with the digest when all is written, just before the module appears.

    Raises:
      OutputError: it cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
            directory = Path(temporary, "module")
            write(directory)
            digest = module_digest(directory)
            finished = directory
            if output.name.endswith(ARCHIVE_SUFFIXES):
                finished = Path(temporary, "archive")
                write_archive(directory, finished)
            if before:
                before(digest)
            finished.rename(output)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}; name another --output") from error
    return digest


def write_archive(directory: Path, archive: Path) -> None:
    """Packs a module as tensorflow_hub wants it: a gzipped tar file without an enclosing directory.

    Owners, times and permissions are left out, so that equal modules give equal archives.
    """

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(directory.rglob("*")):
            name = f"./{path.relative_to(directory).as_posix()}"
            tar.add(path, name, recursive=False, filter=anonymous)
