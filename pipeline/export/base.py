"""The interface of destinations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from pipeline.dataset.metadata import SPEC_NAME
from pipeline.dataset.table import DatasetTable
from pipeline.export.directory import ExportDirectory

IndexKind = Literal["auto", "flat", "ivf", "hnsw"]


@dataclass(frozen=True)
class ExportSettings:
    """The settings of an export.

    Attributes:
      output: directory of the export.
      index: kind of the index, for destinations that are one.
    """

    output: str
    index: IndexKind = "auto"


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
      rows: number of rows that the destination holds now.
      written: number of files that were written.
      removed: number of files that were removed.
      kept: number of files that did not change.
      written_bytes: size of the files that were written.
      advice: a line for the user, or nothing.
    """

    rows: int
    written: int
    removed: int
    kept: int
    written_bytes: int
    advice: str = ""

    @classmethod
    def of(cls, directory: ExportDirectory, rows: int, advice: str = "") -> Exported:
        """Returns the result of an export to a directory, before its publication."""
        removed = len(directory.removed)
        return cls(rows, directory.written, removed, directory.kept, directory.written_bytes, advice)


class Destination(Protocol):
    """A form of a data set for another system.

    Attributes:
      name: the value of `--to`.
    """

    name: str

    def export(self, table: DatasetTable, settings: ExportSettings) -> Exported:
        """Brings a directory to the state of a data set; writes only what changed.

        An interrupted export leaves the directory as it was.

        Raises:
          OutputError: the directory holds something else, such as the export of another data set.
          UsageError: the destination cannot hold these rows.
          OSError: a file cannot be written.
        """
        ...


def spec_id(schema: pa.Schema) -> str:
    """Returns what identifies the spec of a data set in names of files: 12 hexadecimal digits.

    Args:
      schema: of the data set's table, or of a part of it.
    """
    return hashlib.sha256((schema.metadata or {}).get(SPEC_NAME.encode(), b"")).hexdigest()[:12]


class KeysDigest:
    """Collects keys; `hexdigest` then identifies them and their order."""

    def __init__(self, *about: object) -> None:
        """Begins with values that are identified, too."""
        self._digest = hashlib.sha256(repr(about).encode())

    def add(self, keys: pa.Array) -> None:
        """Adds keys."""
        self._digest.update("".join(f"{len(key)}:{key}" for key in keys.to_pylist()).encode("utf-8", "surrogatepass"))

    def add_all(self, keys: Iterable[pa.Array]) -> None:
        """Adds keys from several arrays."""
        for array in keys:
            self.add(array)

    def hexdigest(self) -> str:
        """Returns 64 hexadecimal digits."""
        return self._digest.hexdigest()
