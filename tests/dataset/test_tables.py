import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import OutputError
from pipeline.core.json import to_json
from pipeline.dataset.metadata import manifest_path, read_manifests
from pipeline.dataset.tables import (
    copy_inputs,
    inputs_of,
    read_entries,
    read_inputs,
    read_retried,
    retried_of,
    stage_table,
)
from pipeline.storage.checksum import crc32c
from pipeline.storage.tables import Scratch
from tests.datasets import TOKEN, add_wave, entry, make_batch, unlocked

NAMES = ["a", "b\n\u2028", "\udcff", "\uf7ff", "ünï"]


@pytest.fixture
def manifest(tmp_path):
    sources = [f"/in/{name}@5" for name in NAMES]
    return add_wave(tmp_path, "00000", make_batch({}), inputs=list(map(entry, NAMES)), retried=sources)


def test_any_path_survives_the_round_trip(tmp_path, manifest):
    assert list(read_entries(str(tmp_path), manifest)) == list(map(entry, NAMES))
    assert list(read_retried(str(tmp_path), manifest)) == [f"/in/{name}@5" for name in NAMES]


def test_a_staged_table_has_its_size_checksum_and_rows(tmp_path):
    batches = [inputs_of([]), inputs_of([entry("a")]), inputs_of([entry("b"), entry("c")])]
    written = stage_table(unlocked(tmp_path), "00007", "inputs", batches)
    (path,) = (tmp_path / "staging" / TOKEN / "00007").iterdir()
    data = path.read_bytes()
    assert (written.path, written.size_bytes, written.crc32c, written.rows) == (str(path), len(data), crc32c(data), 3)
    assert pq.read_table(path).equals(pa.Table.from_batches(batches))


def test_a_table_without_rows_is_not_written(tmp_path):
    assert stage_table(unlocked(tmp_path), "00007", "retried", [retried_of([])]) is None
    assert list(tmp_path.iterdir()) == []


def test_columns_of_later_versions_are_ignored(tmp_path, manifest):
    path = tmp_path / manifest.inputs[0].path
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.array([1] * len(table))), path)
    assert pa.Table.from_batches(read_inputs(str(tmp_path), manifest)).equals(table)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"no Parquet", None])
def test_a_damaged_table_is_refused(tmp_path, manifest, damage):
    path = tmp_path / manifest.inputs[0].path
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(OutputError, match=r"inputs-00000\.parquet cannot be read: .*; run python -m pipeline\.verify"):
        list(read_entries(str(tmp_path), manifest))


def test_a_table_without_a_column_is_refused(tmp_path, manifest):
    path = tmp_path / manifest.inputs[0].path
    pq.write_table(pq.read_table(path).drop_columns(["keys"]), path)
    with pytest.raises(OutputError, match=r"inputs-00000\.parquet cannot be read: "):
        list(read_entries(str(tmp_path), manifest))


def test_a_table_of_another_length_is_refused(tmp_path, manifest):
    path = tmp_path / manifest.retried[0].path
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(OutputError, match=r"retried-00000\.parquet has 4 rows, 5 in the manifest; run python -m"):
        list(read_retried(str(tmp_path), manifest))


def test_the_copies_of_inputs_name_their_waves(tmp_path, manifest):
    add_wave(tmp_path, "100000", make_batch({}), inputs=[entry("a", size_bytes=11)])
    scratch = Scratch()
    path = copy_inputs(str(tmp_path), read_manifests(str(tmp_path)), scratch, "copy.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [(row["size_bytes"], row["wave"]) for row in rows] == [(10, 0)] * 5 + [(11, 100_000)]


def test_a_table_in_a_manifest_of_an_older_wave_is_read_beside_new_ones(tmp_path, manifest):
    """A data set of version 1 goes on in version 2."""
    fields = json.loads(to_json(dataclasses.replace(manifest, wave="00001", inputs=(), retried=(), input_keys=())))
    del fields["input_keys"]
    old = {"path": "/in/old", "name": "old", "size_bytes": 1, "mtime_s": 2.0}
    path = manifest_path(str(tmp_path), "00001")
    with open(path, "w") as file:
        json.dump({**fields, "inputs": [old], "format_version": 1}, file)
    found = [item.path for wave in read_manifests(str(tmp_path)) for item in read_entries(str(tmp_path), wave)]
    assert found == [*(f"/in/{name}" for name in NAMES), "/in/old"]
