import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import OutputError
from pipeline.core.json import to_json
from pipeline.dataset import metadata, ownership
from pipeline.dataset.metadata import (
    Manifest,
    OutputEntry,
    TableEntry,
    live,
    next_wave,
    read_manifests,
    read_spec,
    wave_after,
)
from pipeline.embedding.dataset_spec import differing_fields
from tests.datasets import SPEC, add_wave, make_batch, make_failure, unlocked

MANIFEST = Manifest(
    wave="00003",
    inputs=(TableEntry("manifests/00003-inputs-00000.parquet", 90, "0badcafe", 2),),
    outputs=(
        OutputEntry("embeddings/embeddings-00003-00000-of-00001.tfrecord", "embeddings", "tfrecord", 9, "00c0ffee", 8),
    ),
    embedded=8,
    failed=0,
    failures_by_reason={"empty": 0},
    started="2024-05-17T08:30:15+00:00",
    seconds=1.25,
    versions={"numpy": "2.1"},
    key_feature="id",
    input_keys=("feature", "name"),
    retried=(TableEntry("manifests/00003-retried-00000.parquet", 70, "0badcafe", 1),),
    replaces=("00001",),
)


def commit(output: Path, manifest: Manifest) -> None:
    unlocked(output).replace(f"manifests/{manifest.wave}.json", to_json(manifest))


def write_manifest(output: Path, fields: object, name: str = "00003") -> None:
    (output / "manifests").mkdir(parents=True, exist_ok=True)
    text = fields if isinstance(fields, str) else json.dumps(fields)
    (output / "manifests" / f"{name}.json").write_text(text)


def test_spec_and_manifest_survive_the_round_trip(tmp_path):
    assert read_spec(str(tmp_path)) is None
    assert read_manifests(str(tmp_path)) == ()
    ownership.write_spec(unlocked(tmp_path), SPEC)
    commit(tmp_path, MANIFEST)
    assert read_spec(str(tmp_path)) == SPEC
    assert read_manifests(str(tmp_path)) == (MANIFEST,)
    assert metadata.read_manifest(str(tmp_path), "00003") == MANIFEST
    assert to_json(read_spec(str(tmp_path))) == (tmp_path / "spec.json").read_bytes()


def test_waves_are_in_order_when_there_are_a_hundred_thousand(tmp_path):
    for wave in ("99999", "100000", "00002"):
        commit(tmp_path, dataclasses.replace(MANIFEST, wave=wave, outputs=()))
    manifests = read_manifests(str(tmp_path))
    assert [manifest.wave for manifest in manifests] == ["00002", "99999", "100000"]
    assert next_wave(manifests) == "100001"
    assert next_wave(()) == "00000"
    assert wave_after(["99999", "00002"]) == "100000"


def test_what_another_wave_replaces_does_not_count():
    manifests = [dataclasses.replace(MANIFEST, wave=f"{index:05d}", replaces=()) for index in range(3)]
    compacted = dataclasses.replace(MANIFEST, wave="00003", replaces=("00000", "00002"))
    assert [manifest.wave for manifest in live([*manifests, compacted])] == ["00001", "00003"]


def test_a_wave_that_only_replaces_others_does_not_count():
    marker = dataclasses.replace(MANIFEST, wave="00005", inputs=(), outputs=(), retried=(), embedded=0)
    older = dataclasses.replace(MANIFEST, replaces=())
    assert live([older, marker]) == (older,)
    assert live([older, dataclasses.replace(marker, replaces=("00003",))]) == ()
    empty = dataclasses.replace(marker, replaces=())
    assert live([older, empty]) == (older, empty)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"input_keys": ("name",)}, True),
        ({"key_feature": None, "input_keys": ("name", "offset")}, True),
        ({"key_feature": None, "inputs": (), "retried": (), "input_keys": ()}, False),
    ],
)
def test_whether_names_of_inputs_determine_the_keys(changes, expected):
    assert dataclasses.replace(MANIFEST, **changes).has_keys_from_names == expected


def test_only_files_that_are_called_like_manifests_are_manifests(tmp_path):
    commit(tmp_path, MANIFEST)
    for name in ("00003.json.bak", "00003 (copy).json", "notes.json", "00004.json." + "0" * 32 + ".tmp"):
        (tmp_path / "manifests" / name).write_text("{}")
    assert read_manifests(str(tmp_path)) == (MANIFEST,)


def test_a_copied_manifest_does_not_count_twice(tmp_path):
    commit(tmp_path, MANIFEST)
    shutil.copy(tmp_path / "manifests/00003.json", tmp_path / "manifests/00004.json")
    with pytest.raises(OutputError, match=r"00004\.json is the manifest of wave 00003, not of 00004"):
        read_manifests(str(tmp_path))


FIELDS = json.loads(to_json(MANIFEST))
WITH_KIND = {**FIELDS, "outputs": [{**FIELDS["outputs"][0], "kind": "secrets"}]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "no attribute 'get'"),
        ("[" * 100_000, "recursion"),
        ({}, r"its inputs are malformed: KeyError\('inputs'\)"),
        ({"format_version": 2}, "missing required field `wave`"),
        ({**FIELDS, "surplus": 1}, "has no field 'surplus'"),
        ({**FIELDS, "embedded": "8"}, r"Expected `int`, got `str` - at `\$\.embedded`"),
        ({**FIELDS, "embedded": True}, r"Expected `int`, got `bool` - at `\$\.embedded`"),
        ({**FIELDS, "inputs": {}}, r"Expected `array`, got `object` - at `\$\.inputs`"),
        ({**FIELDS, "inputs": [3]}, r"Expected `object`, got `int` - at `\$\.inputs\[0\]`"),
        ({**FIELDS, "inputs": [{**FIELDS["inputs"][0], "path": "manifests/../spec.json"}]}, "a table is called"),
        ({**FIELDS, "retried": [{**FIELDS["retried"][0], "path": "../../etc/passwd"}]}, "a table is called"),
        ({**FIELDS, "input_keys": ["luck"]}, r"Invalid enum value 'luck' - at `\$\.input_keys\[0\]`"),
        ({**FIELDS, "versions": {"numpy": 2}}, r"Expected `str`, got `int` - at `\$\.versions"),
        ({**FIELDS, "wave": "../3"}, "the wave is called '../3'"),
        ({**FIELDS, "outputs": [{**FIELDS["outputs"][0], "path": "../../etc/passwd"}]}, "an output is called"),
        ({**FIELDS, "outputs": [{**FIELDS["outputs"][0], "path": "embeddings/.."}]}, "an output is called"),
        (WITH_KIND, r"Invalid enum value 'secrets' - at `\$\.outputs\[0\]\.kind`"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, fields, message):
    write_manifest(tmp_path, fields)
    with pytest.raises(OutputError, match=rf"00003\.json is not a manifest of this program: .*{message}") as raised:
        read_manifests(str(tmp_path))
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("; restore it, or remove it to embed its inputs again")


def test_a_later_format_is_refused(tmp_path):
    write_manifest(tmp_path, {**FIELDS, "format_version": 4, "unheard": "of"})
    with pytest.raises(OutputError, match="has format version 4; this program reads up to 3; update it"):
        read_manifests(str(tmp_path))


def test_a_wave_that_is_not_committed_has_no_manifest(tmp_path):
    with pytest.raises(OutputError, match=r"wave 00007 of .* is not committed"):
        metadata.read_manifest(str(tmp_path), "00007")


def attempt(read):
    try:
        return read()
    except OutputError as error:
        return error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw, original):
    """Takes the JSON of a record, and changes a few of the values in it, or of its bytes."""
    fields = json.loads(original)
    for _ in range(draw(st.integers(1, 3))):
        where = fields
        while isinstance(where, (dict, list)) and where:
            key = draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
            if not isinstance(where[key], (dict, list)) or draw(st.booleans()):
                action = draw(st.sampled_from(["replace", "remove", "add"]))
                if action == "remove":
                    del where[key]
                elif action == "add" and isinstance(where, dict):
                    where[draw(st.text(max_size=5))] = draw(JSON)
                else:
                    where[key] = draw(JSON)
                break
            where = where[key]
    data = bytearray(json.dumps(fields).encode())
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=50) | mutated(to_json(MANIFEST)))
def test_any_bytes_in_a_manifest_are_read_or_refused(tmp_path_factory, data):
    output = tmp_path_factory.getbasetemp() / "fuzz-manifest"
    write_manifest(output, "")
    (output / "manifests/00003.json").write_bytes(data)
    found = attempt(lambda: read_manifests(str(output)))
    if isinstance(found, OutputError):
        assert "\n" not in str(found)
    else:
        (manifest,) = found
        assert to_json(manifest)
        assert all(Path(path).is_relative_to(output) for path in ownership.owned_files(str(output), [manifest]))
        assert next_wave([manifest]) == "00004"


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=50) | mutated(to_json(SPEC)))
def test_any_bytes_in_a_spec_are_read_or_refused(tmp_path_factory, data):
    output = tmp_path_factory.getbasetemp() / "fuzz-spec"
    output.mkdir(exist_ok=True)
    (output / "spec.json").write_bytes(data)
    found = attempt(lambda: read_spec(str(output)))
    if isinstance(found, OutputError):
        assert "\n" not in str(found)
    else:
        assert isinstance(differing_fields(found, SPEC), list)


def test_of_several_formats_the_one_that_keeps_keys_is_read(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, [make_failure("b")]), formats=("tfrecord", "parquet"))
    (manifest,) = read_manifests(str(tmp_path))
    assert {item.format for item in manifest.outputs} == {"tfrecord", "parquet", "jsonl"}
    assert [item.format for item in manifest.files("embeddings")] == ["tfrecord"]
    assert [item.format for item in manifest.files("failures")] == ["jsonl"]
    assert dataclasses.replace(manifest, outputs=()).files("embeddings") == ()
