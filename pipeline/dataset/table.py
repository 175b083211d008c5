"""A data set as one table: `read_table`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from pipeline.core.errors import OutputError, UsageError
from pipeline.core.json import to_json
from pipeline.core.settings import TIMESTAMP_COLUMN
from pipeline.dataset.columns import TABLE_FORMATS, TableColumns, from_text
from pipeline.dataset.existing import gone_inputs
from pipeline.dataset.metadata import SPEC_NAME, Manifest, OutputEntry, read_spec
from pipeline.dataset.reader import LiveWave, live_manifests, waves_of
from pipeline.dataset.sinks.base import Sink
from pipeline.dataset.sinks.parquet_schema import TIMESTAMP_TYPE, to_schema
from pipeline.dataset.sinks.registry import SINKS
from pipeline.dataset.superseded import Superseded
from pipeline.dataset.tables import InputEntry
from pipeline.storage import filesystem

KeyType = Literal["string", "bytes"]
_KEY_TYPES = {"string": pa.string(), "bytes": pa.binary()}


def read_table(
    output: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    existing_only: bool = False,
    keys: KeyType = "string",
    sinks: Sequence[Sink] = (),
) -> pa.RecordBatchReader:
    r"""Returns the committed rows of the data set in directory `output` as one stream; the newest row of each key.

    All rows have one schema, with the spec (`spec.json`) as metadata:

    - `key`: string; bytes outside UTF-8 are written as `\xNN`.
    - `embedding`: fixed_size_list<float32>[D].
    - the copied features of all waves, by name; null where a row has none. A list becomes its value if no row of the
      data set has more than one, and bytes become a string if all are UTF-8. If the types of waves differ, the column
      has the type that holds all values.
    - `event_timestamp`: timestamp[us, UTC], the time right before the row was committed.

    Waves of this version hold their schema; of older ones, the features (but not the vectors) are read once before the
    first row. Rows are read as they are needed, from Parquet where the data set has several formats.

    Args:
      output: directory of the data set.
      columns: names of the columns to read, in this order; None for all. From Parquet, only these are read.
      existing_only: whether to leave out rows whose input does not exist any more. Lists the folders of all inputs
        first, as a run does, so they must be visible from here. Files on the web count as existing.
      keys: `string`, or `bytes` for the keys as they are, from TFRecords where the data set has several formats.
      sinks: the sinks that wrote the data set, if they are not registered.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged; or `existing_only`, and no input exists here.
      UsageError: a column is unknown; or `existing_only`, but an input is gone whose rows have keys from a feature.
      OSError: a folder of inputs cannot be listed.
    """
    table = open_table(output, columns=columns, existing_only=existing_only, keys=keys, sinks=sinks)
    return pa.RecordBatchReader.from_batches(table.schema, (rows for part in table.parts() for rows in part.rows()))


def open_table(
    output: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    existing_only: bool = False,
    keys: KeyType = "string",
    sinks: Sequence[Sink] = (),
) -> DatasetTable:
    """Returns what `read_table` reads, file by file; takes and raises the same."""
    if keys not in get_args(KeyType):
        raise UsageError(f"keys={keys!r}: expected one of {', '.join(get_args(KeyType))}")
    output = filesystem.normalize(output)
    manifests = live_manifests(output)
    gone = tuple(gone_inputs(output, manifests)) if existing_only else ()
    schema = _choose(_schema(output, manifests, keys, sinks), columns)
    return DatasetTable(output, schema, manifests, gone, keys, tuple(sinks))


@dataclass(frozen=True)
class DatasetTable:
    """The rows of a data set in the form of `read_table`, file by file.

    Attributes:
      output: directory of the data set.
      schema: of all rows.
      manifests: of the live waves, the oldest first.
      gone: the inputs whose rows are left out.
      keys: as in `read_table`.
      sinks: as in `read_table`.
    """

    output: str
    schema: pa.Schema
    manifests: tuple[Manifest, ...]
    gone: tuple[InputEntry, ...]
    keys: KeyType
    sinks: tuple[Sink, ...]

    def parts(self) -> Iterator[TablePart]:
        """Yields the files with rows, those of the newest wave first; each must be read before the next is taken."""
        superseded = Superseded.of(self.output, self.manifests)
        superseded.add_gone(self.gone)
        preferred = TABLE_FORMATS if self.keys == "string" else SINKS.names
        for wave in waves_of(self.output, self.manifests, superseded, self.sinks, preferred):
            for entry in wave.entries:
                yield TablePart(self, wave, entry)


@dataclass(frozen=True)
class TablePart:
    """The current rows of one file of a data set; may be read more than once.

    Attributes:
      table: the table that it is a part of.
      wave: the wave that wrote the file.
      entry: the file.
    """

    table: DatasetTable
    wave: LiveWave
    entry: OutputEntry

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows, with the schema of the table.

        Raises:
          OutputError: the file is damaged.
        """
        return _rows(self.table, self.wave, self.entry, self.table.schema)

    def read_keys(self) -> Iterator[pa.Array]:
        """Yields the keys of `rows`, in the same order and type, without a look at the vectors."""
        for rows in _rows(self.table, self.wave, self.entry, pa.schema([("key", _KEY_TYPES[self.table.keys])])):
            yield rows.column("key")


def _rows(table: DatasetTable, wave: LiveWave, entry: OutputEntry, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for rows in wave.columns_of(entry, lambda name: name in schema.names):
        current = wave.current(rows)
        if current.num_rows:
            try:
                yield to_schema(_with_key(current, schema), schema)
            except (ValueError, NotImplementedError) as error:
                raise OutputError(
                    f"wave {wave.manifest.wave} of {table.output} has a value that does not fit the table: {error}; "
                    "run python -m pipeline.verify"
                ) from error


def _with_key(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns rows with the key as a string, if the schema has it so."""
    if "key" not in schema.names or schema.field("key").type != pa.string():
        return rows
    index = rows.schema.get_field_index("key")
    try:
        key = rows.column(index).cast(pa.string())
    except pa.ArrowInvalid:
        key = pa.array([key.decode("utf-8", "backslashreplace") for key in rows.column(index).to_pylist()], pa.string())
    return rows.set_column(index, "key", key)


def _choose(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return schema
    for name in columns:
        if name not in schema.names:
            raise UsageError(f"columns: the data set has no {name!r}; expected some of {', '.join(schema.names)}")
    return pa.schema([schema.field(name) for name in columns], schema.metadata)


def _schema(output: str, manifests: Sequence[Manifest], keys: KeyType, sinks: Sequence[Sink]) -> pa.Schema:
    """Returns the schema of the whole table."""
    spec = read_spec(output)
    found = TableColumns()
    for manifest in manifests:
        if manifest.columns is not None:
            found.merge(_noted(output, manifest, manifest.columns))
            continue
        for rows in _look(output, manifest, sinks, lambda name: name != "embedding"):
            found.add(rows)
    dimension = spec.dimension if spec is not None else _dimension(output, manifests, sinks)
    return pa.schema(
        [
            ("key", _KEY_TYPES[keys]),
            ("embedding", pa.list_(pa.float32(), dimension)),
            *sorted(((item.name, item.type) for item in found.schema), key=lambda item: item[0]),
            (TIMESTAMP_COLUMN, TIMESTAMP_TYPE),
        ],
        {} if spec is None else {SPEC_NAME: to_json(spec)},
    )


def _noted(output: str, manifest: Manifest, text: str) -> pa.Schema:
    try:
        return from_text(text)
    except (ValueError, OSError, EOFError) as error:
        raise OutputError(
            f"the columns in the manifest of wave {manifest.wave} of {output} cannot be read: {error}; restore the "
            "manifest, or remove it to embed its inputs again"
        ) from error


def _look(
    output: str, manifest: Manifest, sinks: Sequence[Sink], is_wanted: Callable[[str], bool]
) -> Iterator[pa.RecordBatch]:
    """Yields some columns of all rows that a wave wrote, in the format of tables."""
    wave = LiveWave(output, manifest, Superseded(), sinks, notes_keys=False, preferred=TABLE_FORMATS)
    return wave.columns(is_wanted)


def _dimension(output: str, manifests: Sequence[Manifest], sinks: Sequence[Sink]) -> int:
    """Returns the dimension of the vectors of a data set without a spec; 0 if it has no rows."""
    for manifest in manifests:
        for rows in _look(output, manifest, sinks, lambda name: name == "embedding"):
            return int(rows.schema.field("embedding").type.list_size)
    return 0
