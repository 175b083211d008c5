"""Exports of a data set that changes: what each holds, what it writes, and what it refuses."""

import json
import os

import duckdb
import faiss
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipeline.commands.export import main
from pipeline.core.records import Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import read_manifests
from pipeline.export.directory import ExportDirectory
from tests.datasets import add_wave, entry, make_batch, snapshot
from tests.disk_store import SCHEME, DiskFileSystem
from tests.export import waves

PARTS = ("parquet", "feast", "vertex")
ALL = (*PARTS, "faiss")


def export(output, to, directory, *flags):
    assert main([str(output), f"--to={to}", f"--output={directory}", *flags]) == 0


def refused(capsys, output, to, directory, *flags):
    assert main([str(output), f"--to={to}", f"--output={directory}", *flags]) == 2
    return capsys.readouterr().err


def parquet_vectors(directory):
    table = pq.read_table(directory)
    return waves.by_key(table["key"].to_pylist(), table["embedding"].to_pylist())


def vertex_vectors(directory):
    lines = [json.loads(line) for path in directory.glob("*.json") for line in path.read_text().splitlines()]
    return waves.by_key([line["id"] for line in lines], [line["embedding"] for line in lines])


def faiss_vectors(directory):
    index = faiss.read_index(str(directory / "index.faiss"))
    keys = pq.read_table(directory / "keys.parquet")["key"].to_pylist()
    return waves.by_key(keys, index.reconstruct_n(0, index.ntotal))


READ = {
    "parquet": parquet_vectors,
    "feast": lambda directory: parquet_vectors(directory / "rows"),
    "vertex": vertex_vectors,
    "faiss": faiss_vectors,
}


@pytest.mark.parametrize("to", ALL)
def test_the_newest_rows_to_the_bit(to, two_waves, tmp_path):
    export(two_waves, to, tmp_path / "all")
    assert READ[to](tmp_path / "all") == waves.expected()
    export(two_waves, to, tmp_path / "existing", "--existing_only")
    assert READ[to](tmp_path / "existing") == waves.expected(existing_only=True)
    assert (len(waves.expected()), len(waves.expected(existing_only=True))) == (252, 251)


@pytest.mark.parametrize("to", PARTS)
def test_a_second_export_writes_only_files_whose_rows_changed(to, first_of_two, tmp_path, capsys):
    export(first_of_two, to, tmp_path / to)
    before = snapshot(tmp_path / to)
    export(first_of_two, to, tmp_path / to)
    assert snapshot(tmp_path / to) == before
    assert capsys.readouterr().out.splitlines()[-1 - (to == "feast")] == (
        f"nothing to do: {tmp_path / to} has all 250 rows"
    )
    waves.second_wave(first_of_two)
    export(first_of_two, to, tmp_path / to)
    assert READ[to](tmp_path / to) == waves.expected()
    # The changed images are in one file of the first wave, and the one that no longer decodes in another.
    rows = {name for name in before if "rows-" in name}
    after = snapshot(tmp_path / to)
    assert len(rows - after.keys()) == 2
    assert len({name for name in after if "rows-" in name} - rows) == 3
    assert {name: after[name] for name in rows & after.keys()} == {name: before[name] for name in rows & after.keys()}
    again = tmp_path / "again"
    export(first_of_two, to, again)
    assert {name for name in snapshot(again) if "rows-" in name} == {name for name in after if "rows-" in name}


def test_an_index_is_written_again_only_if_rows_changed(first_of_two, tmp_path):
    export(first_of_two, "faiss", tmp_path / "faiss")
    before = snapshot(tmp_path / "faiss")
    export(first_of_two, "faiss", tmp_path / "faiss")
    assert snapshot(tmp_path / "faiss") == before
    waves.second_wave(first_of_two)
    export(first_of_two, "faiss", tmp_path / "faiss")
    assert faiss_vectors(tmp_path / "faiss") == waves.expected()
    export(first_of_two, "faiss", tmp_path / "faiss", "--existing_only")
    assert faiss_vectors(tmp_path / "faiss") == waves.expected(existing_only=True)


def test_one_per_cent_of_new_images_writes_one_per_cent(first_of_two, tmp_path, capsys):
    waves.add_images(first_of_two, "00001", [f"{index:03d}.jpg" for index in range(250, 500)], shards=5)
    export(first_of_two, "parquet", tmp_path / "parquet")
    waves.add_images(first_of_two, "00002", [f"{index:03d}.jpg" for index in range(500, 505)])
    capsys.readouterr()
    export(first_of_two, "parquet", tmp_path / "parquet")
    assert "505 rows" in (line := capsys.readouterr().out)
    assert ": 1 files written" in line
    assert "10 kept, 0 removed" in line


@pytest.mark.parametrize("to", ALL)
def test_after_a_compaction(to, first_of_two, tmp_path):
    waves.second_wave(first_of_two)
    export(first_of_two, to, tmp_path / to)
    compact(str(first_of_two))
    export(first_of_two, to, tmp_path / to)
    assert READ[to](tmp_path / to) == waves.expected()


@pytest.mark.parametrize("to", ALL)
def test_an_interrupted_export_leaves_the_old_state(to, first_of_two, tmp_path, monkeypatch):
    export(first_of_two, to, tmp_path / "exports" / to)
    before = snapshot(tmp_path / "exports")
    waves.second_wave(first_of_two)

    def publish(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ExportDirectory, "publish", publish)
        assert main([str(first_of_two), f"--to={to}", f"--output={tmp_path / 'exports' / to}"]) == 130
    assert snapshot(tmp_path / "exports") == before
    export(first_of_two, to, tmp_path / "exports" / to)
    assert READ[to](tmp_path / "exports" / to) == waves.expected()


def test_what_a_kill_left_beside_the_directory_goes_away(first_of_two, tmp_path, capsys):
    remains = tmp_path / "exports" / ".parquet.export-0123"
    remains.mkdir(parents=True)
    (remains / "rows-unnamed").write_bytes(b"half")
    export(first_of_two, "parquet", tmp_path / "exports" / "parquet")
    assert os.listdir(tmp_path / "exports") == ["parquet"]


def test_an_export_refuses_to_run_beside_another(first_of_two, tmp_path, capsys):
    directory = tmp_path / "exports" / "parquet"
    with ExportDirectory(str(directory), lambda name: True):
        assert refused(capsys, first_of_two, "parquet", directory) == (
            f"error: another export to {directory} is running; wait for its end\n"
        )


def test_a_reader_that_has_opened_the_old_files_reads_them_to_the_end(first_of_two, tmp_path):
    export(first_of_two, "parquet", tmp_path / "parquet")
    files = [path.open("rb") for path in sorted((tmp_path / "parquet").iterdir())]
    waves.second_wave(first_of_two)
    export(first_of_two, "parquet", tmp_path / "parquet")
    assert sum(pq.read_table(file).num_rows for file in files) == 250
    for file in files:
        file.close()


def test_other_systems_read_the_directory_as_it_is(exported):
    assert pd.read_parquet(exported).shape == (252, 5)
    assert pl.scan_parquet(exported).collect().shape == (252, 5)
    assert pyarrow.dataset.dataset(exported).count_rows() == 252
    assert duckdb.sql(f"SELECT count(DISTINCT key), min(image_label) FROM '{exported}/*.parquet'").fetchall() == [
        (252, 0)
    ]
    schemas = {pq.read_schema(path) for path in exported.iterdir()}
    assert [item.name for item in schemas.pop()] == ["key", "embedding", "image_label", "title", "event_timestamp"]
    assert schemas == set()


def test_names_that_sql_does_not_distinguish(tmp_path, capsys):
    features = {"a/b": Feature("int64", (1,)), "A_b": Feature("int64", (2,)), "7": Feature("int64", (3,))}
    add_wave(tmp_path / "out", "00000", make_batch({"k": [1, 2, 3]}, features=features), inputs=[entry("k")])
    assert refused(capsys, tmp_path / "out", "parquet", tmp_path / "parquet") == (
        "error: the columns 'A_b' and 'a/b' would both be called 'a_b'; leave one out with --columns\n"
    )
    export(tmp_path / "out", "parquet", tmp_path / "parquet", "--columns=a/b,7")
    assert pq.read_table(tmp_path / "parquet").column_names == ["key", "embedding", "a_b", "_7", "event_timestamp"]


def test_foreign_directories_are_refused(two_waves, first_of_two, exported, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    assert refused(capsys, two_waves, "parquet", tmp_path / "mine") == (
        f"error: {tmp_path / 'mine'} holds notes.txt, which is not of an export of this data set in this form; name a "
        "new or empty directory with --output\n"
    )
    add_wave(tmp_path / "other", "00000", make_batch({"k": [1, 2, 3]}), inputs=[entry("k")])
    assert "which is not of an export of this data set" in refused(capsys, tmp_path / "other", "parquet", exported)
    export(two_waves, "faiss", tmp_path / "faiss")
    assert "holds keys.parquet, which is not" in refused(capsys, tmp_path / "other", "faiss", tmp_path / "faiss")
    assert "lie in each other" in refused(capsys, two_waves, "parquet", two_waves / "parquet")
    assert "holds no data set" in refused(capsys, tmp_path / "none", "parquet", tmp_path / "new")


def test_mistakes_in_flags(two_waves, tmp_path, capsys):
    assert refused(capsys, two_waves, "parket", tmp_path / "new") == (
        "error: --to='parket' is unknown; expected one of parquet, feast, faiss, vertex; did you mean parquet?\n"
    )
    assert refused(capsys, two_waves, "faiss", tmp_path / "new", "--index=tree") == (
        "error: --index='tree' is unknown; expected one of auto, flat, ivf, hnsw\n"
    )
    assert "the data set has no 'label'" in refused(capsys, two_waves, "parquet", tmp_path / "new", "--columns=label")


def test_columns_are_a_choice(two_waves, tmp_path):
    export(two_waves, "vertex", tmp_path / "vertex", "--columns=title")
    lines = [
        json.loads(line) for path in (tmp_path / "vertex").glob("*.json") for line in path.read_text().splitlines()
    ]
    assert {tuple(line) for line in lines} == {("id", "embedding", "restricts")}
    by_id = {line["id"]: line["restricts"] for line in lines}
    assert by_id["003.jpg"] == [{"namespace": "title", "allow": ["image 003.jpg"]}]


def test_removed_ids_of_a_vertex_index_stay_listed(first_of_two, tmp_path):
    directory = tmp_path / "vertex"
    export(first_of_two, "vertex", directory)
    assert not (directory / "delete").exists()
    waves.second_wave(first_of_two)
    export(first_of_two, "vertex", directory)
    assert (directory / "delete" / "ids.txt").read_text() == f"{waves.BROKEN}\n"
    export(first_of_two, "vertex", directory, "--existing_only")
    assert (directory / "delete" / "ids.txt").read_text() == f"{waves.GONE}\n{waves.BROKEN}\n"
    waves.add_images(first_of_two, "00002", [waves.BROKEN])
    export(first_of_two, "vertex", directory, "--existing_only")
    assert (directory / "delete" / "ids.txt").read_text() == f"{waves.GONE}\n"


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_each_index_finds_the_vectors(kind, tmp_path):
    generator = np.random.default_rng(1)
    vectors = {f"{index:03d}": generator.standard_normal(3) for index in range(200)}
    add_wave(tmp_path / "out", "00000", make_batch(vectors), inputs=[entry(key) for key in vectors])
    export(tmp_path / "out", "faiss", tmp_path / "faiss", f"--index={kind}")
    index = faiss.read_index(str(tmp_path / "faiss" / "index.faiss"))
    keys = pq.read_table(tmp_path / "faiss" / "keys.parquet")["key"].to_pylist()
    assert isinstance(index, {"flat": faiss.IndexFlat, "ivf": faiss.IndexIVFFlat, "hnsw": faiss.IndexHNSWFlat}[kind])
    distances, found = index.search(np.array([vectors[key] for key in keys], np.float32), 1)
    assert [keys[number] for number in found[:, 0]] == keys
    assert not distances.any()


def published(directory):
    table = pq.read_table(directory / "rows")
    return dict(zip(table["key"].to_pylist(), table["event_timestamp"].cast(pa.int64()).to_pylist(), strict=True))


def end_time(directory):
    return pd.Timestamp((directory / "end_time.txt").read_text().strip()).value // 1000


def test_times_of_a_feast_export(first_of_two, tmp_path):
    directory = tmp_path / "feast"
    export(first_of_two, "feast", directory)
    first = end_time(directory)
    assert set(published(directory).values()) == {first}
    waves.second_wave(first_of_two)
    export(first_of_two, "feast", directory, "--existing_only")
    second = end_time(directory)
    # New rows are later than any reader of the first export can have passed; others keep their time.
    assert second > first
    times = published(directory)
    assert {key for key, time in times.items() if time == second} == {*waves.CHANGED, *waves.NEW}
    assert set(times.values()) == {first, second}
    # An input that was out of sight returns: its row was in the export before, but a reader may have missed it.
    (first_of_two.parent / "images" / waves.GONE).write_bytes(b"image")
    export(first_of_two, "feast", directory, "--existing_only")
    assert published(directory)[waves.GONE] == end_time(directory) > second
    # A compaction changes no time.
    before = published(directory)
    committed = {manifest.time for manifest in read_manifests(str(first_of_two))}
    compact(str(first_of_two))
    export(first_of_two, "feast", directory, "--existing_only")
    after = published(directory)
    assert {key: time for key, time in after.items() if key != waves.GONE} == {
        key: time for key, time in before.items() if key != waves.GONE
    }
    assert set(pq.read_table(directory / "rows")["commit_time"].to_pylist()) == committed


def test_a_feature_store_of_the_user_stays(first_of_two, tmp_path):
    export(first_of_two, "feast", tmp_path / "feast")
    (tmp_path / "feast" / "feature_store.yaml").write_text("mine")
    waves.second_wave(first_of_two)
    export(first_of_two, "feast", tmp_path / "feast")
    assert (tmp_path / "feast" / "feature_store.yaml").read_text() == "mine"


@pytest.mark.parametrize("to", ALL)
def test_in_an_object_store(to, first_of_two, tmp_path):
    assert DiskFileSystem.scheme() == SCHEME  # imported: Beam knows the scheme then
    directory = tmp_path / "store" / to
    export(first_of_two, to, f"{SCHEME}://{directory}")
    waves.second_wave(first_of_two)
    stale = directory / ("rows" if to == "feast" else "") / "_staging" / "0123" / "rows-unnamed"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    export(first_of_two, to, f"{SCHEME}://{directory}")
    assert not stale.exists()
    assert READ[to](directory) == waves.expected()
