import gc
import os

from pipeline.inputs import input_table
from pipeline.inputs.base import InputFile
from pipeline.inputs.input_table import INPUT_SCHEMA, InputTable, from_files, to_files

FILES = [
    InputFile("/in/b.jpg", "b.jpg", "images", 5, 1.5),
    InputFile("/in/\udce9.jpg", "\udce9.jpg", "images", 0, 0.0),
    InputFile("gs://b/a.tfrecord.gz", "a.tfrecord.gz", "tfrecord", 1 << 40, 1700000000.123456),
]


def test_files_are_rows_and_back():
    rows = from_files(iter(FILES))
    assert rows.schema == INPUT_SCHEMA
    assert to_files(rows) == FILES
    assert to_files(from_files([])) == []


def test_a_table_of_files(monkeypatch):
    monkeypatch.setattr(input_table, "GROUP_ROWS", 2)
    table = InputTable.of(iter(FILES))
    assert table.rows == 3
    assert list(table) == list(table) == FILES
    assert table.by_path() == sorted(FILES, key=lambda file: file.path)
    path = table.path
    del table
    gc.collect()
    assert not os.path.exists(path)


def test_samples_of_each_kind(monkeypatch):
    monkeypatch.setattr(input_table, "GROUP_ROWS", 2)
    sizes = {"m": 3, "c": 2, "z": 1, "b": 9, "a": 2, "x": 0}
    files = [InputFile(f"/in/{name}.tar", name, "webdataset", size, 0.0) for name, size in sizes.items()]
    files.insert(2, FILES[0])
    samples = InputTable.of(files).samples_of_each_kind()
    assert {kind: [file.name for file in some] for kind, some in samples.items()} == {
        "webdataset": ["a", "b", "z"],
        "images": ["b.jpg"],
    }
