"""`--to=faiss`: an index of FAISS, and the keys of its vectors in the same order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import UsageError
from pipeline.dataset.metadata import SPEC_NAME
from pipeline.dataset.table import DatasetTable
from pipeline.export.base import Exported, ExportSettings, IndexKind, KeysDigest, spec_id
from pipeline.export.directory import ExportDirectory
from pipeline.storage import filesystem

INDEX_NAME = "index.faiss"
KEYS_NAME = "keys.parquet"
MOST_FLAT_ROWS = 1_000_000
"""Above this number, `auto` is an inverted file: an exhaustive search would take seconds."""
_HNSW_LINKS = 32
_ROWS_PER_CELL = 39
"""Training vectors for each cell of an inverted file, below which FAISS warns."""
_TRAINING_BYTES = 1 << 30
_DIGEST = "digest"
_ROWS_AT = 8
"""Position of the number of vectors in a serialized flat index: after its name and its dimension, 4 bytes each."""
_Vectors = np.ndarray[Any, np.dtype[np.float32]]


class FaissDestination:
    """See `Destination`.

    A flat index is written in the memory of a few rows. FAISS builds the other kinds in memory: rows times dimension
    times 4 bytes, and for HNSW about 300 bytes more for each row.
    """

    name = "faiss"

    def export(self, table: DatasetTable, settings: ExportSettings) -> Exported:
        """See `Destination`."""
        faiss = _import()
        names = (INDEX_NAME, KEYS_NAME)
        with ExportDirectory(settings.output, names.__contains__) as directory:
            known = _known_digest(directory, table)
            digest, rows = KeysDigest("1", settings.index, sorted(_files(table))), 0
            for part in table.parts():
                for keys in part.read_keys():
                    digest.add(keys)
                    rows += len(keys)
            if digest.hexdigest() == known:
                for name in names:
                    directory.keep(name)
            else:
                _write_keys(table, directory, digest.hexdigest())
                _write_index(faiss, table, directory, settings.index, rows)
            done = Exported.of(directory, rows)
            directory.publish()
        return done


def _import() -> Any:
    try:
        import faiss
    except ImportError:
        raise UsageError("--to=faiss needs FAISS; install it with pip install faiss-cpu") from None
    return faiss


def _files(table: DatasetTable) -> Iterator[tuple[str, str]]:
    return ((entry.path, entry.crc32c) for manifest in table.manifests for entry in manifest.outputs)


def _known_digest(directory: ExportDirectory, table: DatasetTable) -> str | None:
    """Returns the digest of the present export; None if there is none.

    Raises:
      OutputError: it is of another data set.
    """
    if KEYS_NAME not in directory.names:
        return None
    with filesystem.open_read(directory.read_path(KEYS_NAME)) as file:
        schema = pq.read_schema(file)
    if spec_id(schema) != spec_id(table.schema):
        raise directory.refuse(KEYS_NAME)
    return str((schema.metadata or {})[_DIGEST.encode()].decode())


def _write_keys(table: DatasetTable, directory: ExportDirectory, digest: str) -> None:
    spec = (table.schema.metadata or {}).get(SPEC_NAME.encode(), b"")
    schema = pa.schema([("key", pa.string())], {SPEC_NAME: spec, _DIGEST: digest})
    with directory.writing(KEYS_NAME) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in table.parts():
            for keys in part.read_keys():
                writer.write_batch(pa.record_batch([keys], schema=schema))


def _write_index(faiss: Any, table: DatasetTable, directory: ExportDirectory, asked: IndexKind, rows: int) -> None:
    kind = asked if asked != "auto" else "flat" if rows <= MOST_FLAT_ROWS else "ivf"
    spec = json.loads((table.schema.metadata or {}).get(SPEC_NAME.encode(), b"{}"))
    metric = faiss.METRIC_INNER_PRODUCT if spec.get("normalization") == "l2" else faiss.METRIC_L2
    dimension = table.schema.field("embedding").type.list_size
    with directory.writing(INDEX_NAME) as file:
        if kind == "flat":
            _write_flat(file, faiss.IndexFlat(dimension, metric), faiss, table, rows)
            return
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, metric)
        else:
            cells = max(1, min(int(4 * math.sqrt(rows)), rows // _ROWS_PER_CELL))
            index = faiss.IndexIVFFlat(faiss.IndexFlat(dimension, metric), dimension, cells, metric)
            index.nprobe = max(1, cells // 16)
            index.train(_sample(table, dimension, rows))
        for vectors in _matrices(table):
            index.add(vectors)
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _write_flat(file: BinaryIO, empty: Any, faiss: Any, table: DatasetTable, rows: int) -> None:
    """Writes what `faiss.write_index` writes for a flat index: a header with the size, and the vectors."""
    header = bytearray(faiss.serialize_index(empty))
    header[_ROWS_AT : _ROWS_AT + 8] = rows.to_bytes(8, "little")
    header[-8:] = (rows * empty.d).to_bytes(8, "little")
    file.write(header)
    for vectors in _matrices(table):
        file.write(vectors.data)


def _matrices(table: DatasetTable) -> Iterator[_Vectors]:
    """Yields the vectors of a table as arrays of float32 [N, D]."""
    for part in table.parts():
        for rows in part.rows():
            column = rows.column("embedding")
            values = column.flatten().to_numpy(zero_copy_only=False)
            yield np.ascontiguousarray(values).reshape(len(column), -1)


def _sample(table: DatasetTable, dimension: int, rows: int) -> _Vectors:
    """Returns vectors to train an index with: evenly distributed, at most 1 GiB."""
    step = max(1, math.ceil(rows * dimension * 4 / _TRAINING_BYTES))
    return np.concatenate([vectors[::step] for vectors in _matrices(table)])
