"""Which inputs of a data set are gone: one listing of the folders that held them, as a run lists its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline.core.errors import OutputError, UsageError
from pipeline.core.keys import from_column, to_column
from pipeline.dataset.metadata import Manifest
from pipeline.dataset.tables import InputEntry, copy_inputs
from pipeline.storage import listing
from pipeline.storage.tables import Scratch, TableWriter, read_batches

_FOLDERS_AT_A_TIME = 10_000
_CANNOT_SEE = ("http://", "https://")
"""Schemes whose files cannot be listed; such inputs count as existing."""

_NEWEST = """
    CREATE TABLE newest AS
    SELECT name, arg_max(path, wave) AS path, arg_max(keys, wave) AS keys
    FROM read_parquet('{covered}') GROUP BY name, CASE WHEN keys = 'feature' THEN path END
"""
"""The file that the rows with the keys of a name are from; with keys from a feature, each file."""
_FOLDERS = r"SELECT DISTINCT regexp_replace(path, '[^/]*$', '') FROM newest"
_GONE = """
    COPY (SELECT name, path, keys FROM newest
    WHERE path NOT IN (SELECT path FROM read_parquet('{existing}')) AND NOT ({unseen})) TO '{gone}'
"""


def gone_inputs(output: str, manifests: Sequence[Manifest]) -> Iterator[InputEntry]:
    """Yields the inputs of live waves that are gone, each with `path`, `name` and `keys`.

    An input whose name is a newer input's, such as a file that was moved together with its folder, is not gone.
    Memory does not grow with the number of inputs. Files on the web are not looked up: they count as existing.

    Raises:
      UsageError: rows of a gone input cannot be told from others, because their keys are values of a feature.
      OutputError: no input exists: they are probably elsewhere.
      OSError: a folder cannot be listed.
    """
    scratch = Scratch()
    covered = copy_inputs(output, manifests, scratch, "covered.parquet")
    existing, gone = scratch.path("existing.parquet"), scratch.path("gone.parquet")
    with scratch.database() as database:
        database.execute(_NEWEST.format(covered=covered))
        (total,) = database.execute("SELECT count(*) FROM newest").fetchall()[0]
        folders = (from_column(row[0]) for row in iter(database.execute(_FOLDERS).fetchone, None))
        with TableWriter(existing, pa.schema([("path", pa.string())])) as writer:
            while chunk := list(itertools.islice(folders, _FOLDERS_AT_A_TIME)):
                for page in listing.list_folders([folder for folder in chunk if not folder.startswith(_CANNOT_SEE)]):
                    writer.write(pa.record_batch([pa.array(map(to_column, page.paths), pa.string())], ["path"]))
        unseen = " OR ".join(f"path LIKE '{scheme}%'" for scheme in _CANNOT_SEE)
        database.execute(_GONE.format(existing=existing, gone=gone, unseen=unseen))
        count, first, has_features = database.execute(
            f"SELECT count(*), min(path), coalesce(bool_or(keys = 'feature'), false) FROM read_parquet('{gone}')"
        ).fetchall()[0]
    if count and count == total:
        raise OutputError(
            f"existing_only: none of the {total} inputs of {output} exists, such as {from_column(first)}; read it "
            "where the inputs are, or without existing_only"
        )
    if has_features:
        raise UsageError(
            f"existing_only: {count} inputs of {output} are gone, such as {from_column(first)}, but the keys of its "
            "rows are values of a feature, which do not say which rows were theirs; read it without existing_only"
        )
    for batch in read_batches(gone):
        for row in batch.to_pylist():
            yield InputEntry(from_column(row["path"]), from_column(row["name"]), 0, 0.0, keys=row["keys"])
