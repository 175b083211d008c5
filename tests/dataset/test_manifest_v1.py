"""Reading of data sets that earlier versions wrote; `tests/test_golden.py` reads a whole one."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import OutputError
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.ownership import owned_files
from pipeline.dataset.tables import InputEntry, read_entries, read_retried
from tests.dataset.test_metadata import attempt, mutated, write_manifest
from tests.datasets import entry

FIELDS = {
    "wave": "00003",
    "inputs": [
        {"path": "/in/a\udcff", "name": "a\udcff", "size_bytes": 10, "mtime_s": 1.5, "records": 7, "keys": "name"},
        {"path": "/in/b", "name": "b", "size_bytes": 10, "mtime_s": 1, "records": 1, "keys": None},
        {"path": "/in/c", "name": "c", "size_bytes": 10, "mtime_s": 1.5},
    ],
    "outputs": [],
    "embedded": 0,
    "failed": 0,
    "failures_by_reason": {},
    "started": "2024-05-17T08:30:15+00:00",
    "seconds": 1.25,
    "versions": {},
    "key_feature": "id",
    "retried": ["x\udcff"],
    "replaces": [],
    "format_version": 1,
}


def read(output):
    (manifest,) = read_manifests(str(output))
    return manifest, list(read_entries(str(output), manifest)), list(read_retried(str(output), manifest))


def test_inputs_and_retried_sources_are_read_from_the_manifest(tmp_path):
    write_manifest(tmp_path, FIELDS)
    manifest, entries, retried = read(tmp_path)
    a, c = entry("a\udcff", records=7, keys="name"), entry("c", keys="feature")
    assert entries == [a, InputEntry("/in/b", "b", 10, 1.0, 1, "feature"), c]
    assert retried == ["x\udcff"]
    assert ([table.rows for table in manifest.inputs], manifest.input_keys) == ([3], ("feature", "name"))
    assert all(table.is_inline for table in (*manifest.inputs, *manifest.retried))
    assert not manifest.has_keys_from_names


def test_without_a_key_feature_keys_are_names_and_offsets(tmp_path):
    write_manifest(tmp_path, {**FIELDS, "key_feature": None})
    manifest, entries, _ = read(tmp_path)
    assert [item.keys for item in entries] == ["name", "offset", "offset"]
    assert manifest.has_keys_from_names


def test_a_manifest_without_lists_has_no_tables(tmp_path):
    fields = {name: value for name, value in FIELDS.items() if name not in ("retried", "format_version")}
    write_manifest(tmp_path, {**fields, "inputs": []})
    manifest, entries, retried = read(tmp_path)
    assert (manifest.inputs, manifest.retried, entries, retried) == ((), (), [], [])


def test_the_manifest_itself_is_no_table_to_remove_with_it(tmp_path):
    write_manifest(tmp_path, FIELDS)
    owned = owned_files(str(tmp_path), read_manifests(str(tmp_path)))
    assert owned == [
        str(tmp_path / name) for name in ("manifests/00003.json", "summary.json", "schema.pbtxt", "spec.json")
    ]


@pytest.mark.parametrize("inputs", [3, [3], [{}], [{**FIELDS["inputs"][0], "size_bytes": "many"}], None])
def test_malformed_inputs_are_refused(tmp_path, inputs):
    write_manifest(tmp_path, {**FIELDS, "inputs": inputs})
    with pytest.raises(OutputError, match=r"00003\.json is not a manifest of this program: "):
        read_manifests(str(tmp_path))


@pytest.mark.parametrize("fields", [{"retried": ["\udaff"]}, {"inputs": [{**FIELDS["inputs"][0], "name": "a\udaff"}]}])
def test_surrogates_that_stand_for_no_bytes_are_refused(tmp_path, fields):
    write_manifest(tmp_path, {**FIELDS, **fields})
    with pytest.raises(OutputError, match=r"00003\.json is not a manifest of this program: .*surrogates not allowed"):
        read_manifests(str(tmp_path))


@settings(deadline=None, max_examples=300)
@given(data=mutated(json.dumps(FIELDS)) | st.binary(max_size=50))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    output = tmp_path_factory.getbasetemp() / "fuzz-manifest-v1"
    write_manifest(output, "")
    Path(output, "manifests/00003.json").write_bytes(data)
    found = attempt(lambda: read(output))
    if isinstance(found, OutputError):
        assert "\n" not in str(found)
