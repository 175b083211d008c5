"""Exports with a file for each file of the data set: only files whose rows changed are written again.

`rows-<spec>-<wave>-<number>-<digest>` names the data set, the file's origin, and its contents: two files with one name
are equal. So the directory needs no other file with the state of the export, which readers would trip over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import pyarrow as pa

from pipeline.dataset.table import DatasetTable, TablePart
from pipeline.export.base import KeysDigest, spec_id
from pipeline.export.directory import ExportDirectory

_NAME = r"rows-{spec}-\d{{5,}}-\d{{5}}-[0-9a-f]{{16}}{extension}"
_UNNAMED = "rows-unnamed"


class PartWriter(Protocol):
    """Writes one file."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Writes the end of the file, and leaves it open."""
        ...


class PartFormat(Protocol):
    """The files of an export.

    Attributes:
      extension: of their names.
      version: changes with what is written for equal rows.
    """

    extension: str
    version: str

    def open(self, file: BinaryIO) -> PartWriter:
        """Returns the writer of a file."""
        ...

    def rows(self, part: TablePart, previous: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a part as they are written.

        Args:
          part: of the table.
          previous: paths of earlier files with rows of this part.
        """
        return part.rows()


def is_part(name: str, table: DatasetTable, extension: str) -> bool:
    """Returns whether an export of a data set wrote a file of this name."""
    pattern = _NAME.format(spec=spec_id(table.schema), extension=re.escape(extension))
    return re.fullmatch(pattern, name) is not None


def write_parts(table: DatasetTable, directory: ExportDirectory, form: PartFormat) -> int:
    """Writes or keeps a file for each part of a table; returns the number of rows."""
    return sum(_bring(part, directory, form) for part in table.parts())


def _bring(part: TablePart, directory: ExportDirectory, form: PartFormat) -> int:
    """Writes or keeps the file of a part; returns the number of its rows."""
    number = part.wave.entries.index(part.entry)
    prefix = f"rows-{spec_id(part.table.schema)}-{part.wave.manifest.wave}-{number:05d}-"
    previous = sorted(name for name in directory.names if name.startswith(prefix))
    if previous:
        digest, rows = _digest(part, form), 0
        for keys in part.read_keys():
            digest.add(keys)
            rows += len(keys)
        name = f"{prefix}{digest.hexdigest()[:16]}{form.extension}"
        if name in directory.names:
            directory.keep(name)
            return rows
    return _write(part, directory, form, prefix, [directory.read_path(name) for name in previous])


def _write(part: TablePart, directory: ExportDirectory, form: PartFormat, prefix: str, previous: Sequence[str]) -> int:
    digest, count = _digest(part, form), 0
    with directory.writing(_UNNAMED) as file:
        writer = form.open(file)
        for rows in form.rows(part, previous):
            digest.add(rows.column("key"))
            count += rows.num_rows
            writer.write(rows)
        writer.close()
    if count:
        directory.rename(_UNNAMED, f"{prefix}{digest.hexdigest()[:16]}{form.extension}")
    else:
        directory.discard(_UNNAMED)
    return count


def _digest(part: TablePart, form: PartFormat) -> KeysDigest:
    schema = bytes(part.table.schema.serialize()).hex()
    return KeysDigest(form.version, schema, part.entry.path, part.entry.crc32c)
