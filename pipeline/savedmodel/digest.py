"""The digest of a module, which says what is in it wherever it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import ModuleError

SAVED_MODEL = "saved_model.pb"
"""The file that every SavedModel has at its root."""

_CHUNK_BYTES = 1 << 20


def module_digest(directory: str | os.PathLike[str]) -> str:
    """Returns the digest of a module, as 64 lower-case hexadecimal digits.

    It is the SHA-256 over, for each file at any depth,

        the length of its path, its path, the length of its content, its content

    Lengths are unsigned 64-bit integers, most significant byte first. Paths are relative to `directory`, in UTF-8
    (a name that is not UTF-8, as its bytes stand), with `/` between the parts; files come in the order of their
    paths as byte strings. Every file counts, hidden ones too; empty directories, permissions and times do not. A
    symbolic link to a file counts as the file that it points to.

    Raises:
      ModuleError: the directory cannot be read, changes meanwhile, or holds something that is neither a file nor
        a directory (which a link to a directory is not).
    """
    root = Path(directory)
    digest = hashlib.sha256()
    try:
        files = {path.relative_to(root).as_posix().encode("utf-8", "surrogateescape"): path for path in _files(root)}
        for name, path in sorted(files.items()):
            with path.open("rb") as stream:
                size_bytes = os.fstat(stream.fileno()).st_size
                digest.update(len(name).to_bytes(8, "big") + name + size_bytes.to_bytes(8, "big"))
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                if stream.tell() != size_bytes:
                    raise ModuleError(
                        f"module {root}: {path} changed while it was being read; try again when nothing writes to it"
                    )
    except OSError as error:
        raise ModuleError(
            f"module {root}: {error}; expected files that can be read; check their permissions"
        ) from error
    return digest.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path
        else:
            raise ModuleError(
                f"module {directory}: {path.name!r} is neither a file nor a directory, expected nothing else in a "
                "module; remove it"
            )


def not_a_module(handle: str) -> ModuleError:
    """Returns the error for a directory that holds something else."""
    return ModuleError(
        f"module {handle}: not a module, it holds no {SAVED_MODEL}; expected a TF Hub module or a SavedModel, or a "
        "directory with one .onnx or OpenVINO .xml file; check the handle"
    )


def check_digest(digest: str, sha256: str | None, handle: str) -> None:
    """Raises `ModuleError` unless `digest` is the expected one, if one is."""
    if sha256 not in (None, digest):
        raise ModuleError(
            f"module {handle}: its SHA-256 is {digest}, expected {sha256}; check where it comes from and which digest "
            "was given"
        )
