"""`--to=vertex`: the files that an index of Vertex AI Vector Search is made or updated from.

JSON lines with `id`, `embedding`, `restricts` and `numeric_restricts`; `delete/ids.txt` has the ids that only earlier
exports to the directory held. Format: https://cloud.google.com/vertex-ai/docs/vector-search/setup/format-structure
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import UsageError
from pipeline.core.settings import OUTPUT_FEATURES, TIMESTAMP_COLUMN
from pipeline.dataset.table import DatasetTable
from pipeline.export.base import Exported, ExportSettings
from pipeline.export.directory import ExportDirectory
from pipeline.export.parts import PartFormat, is_part, write_parts
from pipeline.storage import filesystem

MAX_FILES = 5000
_EXTENSION = ".json"
_DELETED = "delete/ids.txt"
_START = '{"id": '


class VertexFiles(PartFormat):
    """Files of JSON lines."""

    extension = _EXTENSION
    version = "1"

    def open(self, file: BinaryIO) -> _Lines:
        """See `PartFormat`."""
        return _Lines(file)


class _Lines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: pa.RecordBatch) -> None:
        keys = rows.column("key").to_pylist()
        columns = {name: rows.column(name).to_pylist() for name in _restricting(rows.schema)}
        for index, (key, vector) in enumerate(zip(keys, _vectors(rows.column("embedding")), strict=True)):
            about = "".join(_restricts({name: values[index] for name, values in columns.items()}))
            if "\n" in key or "\r" in key:
                raise UsageError(f"the key {key!r} has a line break, which Vector Search does not take in an id")
            self._file.write(f'{_START}{json.dumps(key)}, "embedding": [{vector}]{about}}}\n'.encode())

    def close(self) -> None:
        pass


def _vectors(column: pa.Array) -> Iterator[str]:
    """Yields the values of each vector as text, in the fewest digits from which float32 has the same bits again."""
    size = column.type.list_size
    texts = pa.FixedSizeListArray.from_arrays(column.flatten().cast(pa.string()), size)
    return iter(pc.binary_join(texts.cast(pa.list_(pa.string())), ",").to_pylist())


def _restricting(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name not in (*OUTPUT_FEATURES, TIMESTAMP_COLUMN)]


def _restricts(values: dict[str, Any]) -> Iterator[str]:
    tokens, numbers = [], []
    for name, value in values.items():
        several = value if isinstance(value, list) else [value]
        for item in several:
            if isinstance(item, bool | str):
                tokens.append((name, str(item)))
            elif isinstance(item, int):
                numbers.append({"namespace": name, "value_int": item})
            elif isinstance(item, float):
                numbers.append({"namespace": name, "value_double": item})
    allowed: dict[str, list[str]] = {}
    for name, token in tokens:
        allowed.setdefault(name, []).append(token)
    if allowed:
        yield ', "restricts": ' + json.dumps([{"namespace": name, "allow": allow} for name, allow in allowed.items()])
    if numbers:
        yield ', "numeric_restricts": ' + json.dumps(numbers)


class VertexDestination:
    """See `Destination`."""

    name = "vertex"

    def export(self, table: DatasetTable, settings: ExportSettings) -> Exported:
        """See `Destination`."""
        form = VertexFiles()
        with ExportDirectory(
            settings.output, lambda name: name == _DELETED or is_part(name, table, form.extension)
        ) as directory:
            rows = write_parts(table, directory, form)
            files = directory.kept + directory.written
            if files > MAX_FILES:
                raise UsageError(
                    f"the export would have {files} files, but Vector Search takes at most {MAX_FILES} of one "
                    "directory; run python -m pipeline.compact first"
                )
            self._delete(table, directory)
            done = Exported.of(directory, rows)
            directory.publish()
        return done

    def _delete(self, table: DatasetTable, directory: ExportDirectory) -> None:
        """Writes the ids of earlier exports that the table does not hold."""
        gone = [name for name in sorted(directory.removed) if name != _DELETED]
        known = _DELETED in directory.names
        if known and not (gone or directory.written):
            directory.keep(_DELETED)
            return
        deleted = set(_lines(directory.read_path(_DELETED))) if known else set()
        for name in gone:
            lines = _lines(directory.read_path(name))
            deleted.update(json.JSONDecoder().raw_decode(line, len(_START))[0] for line in lines)
        if deleted:
            for part in table.parts():
                for keys in part.read_keys():
                    deleted.difference_update(keys.to_pylist())
        if deleted:
            with directory.writing(_DELETED) as file:
                file.writelines(f"{key}\n".encode() for key in sorted(deleted))


def _lines(path: str) -> Iterable[str]:
    return (line.decode() for line in filesystem.read_lines(path))
