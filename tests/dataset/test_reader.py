import dataclasses
import io

import pytest

from pipeline.core.errors import OutputError
from pipeline.core.records import Feature
from pipeline.dataset.reader import read_embeddings, read_failures, read_failures_file
from pipeline.storage import filesystem
from tests.datasets import add_wave, entry, make_batch, make_failure, read_rows


def keys(output):
    return sorted(key.decode("utf-8", "surrogateescape") for key in read_rows(output))


def failed(output):
    return sorted(failure.key.decode() for failure in read_failures(str(output)))


def values(output):
    return {key.decode(): row["embedding"][0] for key, row in read_rows(output).items()}


def test_rows_of_all_waves(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}, [make_failure("x")]), inputs=(entry("a"), entry("x")))
    add_wave(tmp_path, "00001", make_batch({"b": [2, 0, 0]}), inputs=(entry("b"),))
    assert values(tmp_path) == {"a": 1, "b": 2}
    assert failed(tmp_path) == ["x"]


def test_a_directory_without_a_data_set(tmp_path):
    for read in (read_embeddings, read_failures):
        with pytest.raises(OutputError, match=r"holds no data set: it has no spec\.json; name the --output of a run"):
            list(read(str(tmp_path)))


def test_home_and_file_urls_are_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    add_wave(tmp_path / "out", "00000", make_batch({"a": [1, 0, 0]}))
    assert keys("~/out") == keys(f"file://{tmp_path}/out") == ["a"]


class TestTheNewestWins:
    def test_where_an_image_changed(self, tmp_path):
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}), inputs=(entry("a"), entry("b")))
        add_wave(tmp_path, "00001", make_batch({"b": [2, 0, 0]}), inputs=(entry("b", size_bytes=11),))
        assert values(tmp_path) == {"a": 1, "b": 2}

    def test_where_an_image_cannot_be_read_any_more(self, tmp_path):
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}), inputs=(entry("a"),))
        add_wave(tmp_path, "00001", make_batch({}, [make_failure("a")]), inputs=(entry("a", size_bytes=11),))
        assert (values(tmp_path), failed(tmp_path)) == ({}, ["a"])

    def test_where_a_tfrecord_changed_and_lost_records(self, tmp_path):
        first = make_batch({"r@0": [1, 0, 0], "r@9": [1, 0, 0], "s@0": [1, 0, 0]}, [make_failure("r@20-30")])
        add_wave(tmp_path, "00000", first, inputs=(entry("r"), entry("s")))
        add_wave(tmp_path, "00001", make_batch({"r@0": [2, 0, 0]}), inputs=(entry("r", mtime_s=2.0),))
        assert (values(tmp_path), failed(tmp_path)) == ({"r@0": 2, "s@0": 1}, [])

    def test_where_keys_are_a_feature(self, tmp_path):
        first = make_batch({"k1": [1, 0, 0], "k2": [1, 0, 0]}, source="/in/r@0")
        add_wave(tmp_path, "00000", first, inputs=(entry("r"),), key_feature="id")
        second = make_batch({"k2": [2, 0, 0], "k3": [2, 0, 0]}, source="/in/r@0")
        add_wave(tmp_path, "00001", second, inputs=(entry("r", mtime_s=2.0),), key_feature="id")
        assert values(tmp_path) == {"k1": 1, "k2": 2, "k3": 2}

    def test_a_repaired_file_has_no_failures_even_where_keys_are_a_feature(self, tmp_path):
        failures = [make_failure("r@9", source="/in/r@9-20"), make_failure("s", source="/in/s", reason="read_error")]
        add_wave(
            tmp_path,
            "00000",
            make_batch({"k1": [1, 0, 0]}, failures),
            inputs=(entry("r"), entry("s")),
            key_feature="id",
        )
        assert failed(tmp_path) == ["r@9", "s"]
        repaired = (entry("r", mtime_s=2.0), entry("s", mtime_s=2.0))
        add_wave(tmp_path, "00001", make_batch({"k1": [2, 0, 0], "k2": [2, 0, 0]}), inputs=repaired, key_feature="id")
        assert (values(tmp_path), failed(tmp_path)) == ({"k1": 2, "k2": 2}, [])

    def test_a_failure_that_was_tried_again_is_the_newer_waves(self, tmp_path):
        first = make_batch({"a": [1, 0, 0]}, [make_failure("b"), make_failure("c")])
        add_wave(tmp_path, "00000", first, inputs=(entry("a"), entry("b"), entry("c")))
        add_wave(tmp_path, "00001", make_batch({"b": [2, 0, 0]}, [make_failure("c")]), retried=("/in/b", "/in/c"))
        assert (values(tmp_path), failed(tmp_path)) == ({"a": 1, "b": 2}, ["c"])

    def test_a_failure_that_was_tried_again_is_the_one_of_its_place(self, tmp_path):
        failures = [make_failure("id", source="/in/a@5"), make_failure("id", source="/in/b@9")]
        inputs = (entry("a"), entry("b"))
        add_wave(tmp_path, "00000", make_batch({}, failures), inputs=inputs, key_feature="id")
        add_wave(tmp_path, "00001", make_batch({"id": [1, 0, 0]}), retried=("/in/a@5",), key_feature="id")
        assert [failure.source for failure in read_failures(str(tmp_path))] == ["/in/b@9"]
        again = (make_failure("id", source="/in/b@9"), make_failure("id", source="/in/c@0"))
        add_wave(tmp_path, "00002", make_batch({}, again), retried=("/in/b@9", "/in/c@0"), key_feature="id")
        other = make_failure("id", source="/in/c@0")
        add_wave(tmp_path, "00003", make_batch({}, [other]), retried=("/in/c@0",), key_feature="id")
        assert sorted(failure.source for failure in read_failures(str(tmp_path))) == ["/in/b@9", "/in/c@0"]

    def test_names_with_an_at_sign_are_names(self, tmp_path):
        names = ("a", "a@2x", "a@3", "user@host/a")
        images = tuple(dataclasses.replace(entry(name), keys="name") for name in names)
        add_wave(tmp_path, "00000", make_batch({name: [1, 0, 0] for name in names}), inputs=images)
        changed = tuple(dataclasses.replace(entry(name, size_bytes=11), keys="name") for name in ("a", "user"))
        add_wave(tmp_path, "00001", make_batch({"a": [2, 0, 0], "user": [2, 0, 0]}), inputs=changed)
        assert values(tmp_path) == {"a": 2, "a@2x": 1, "a@3": 1, "user@host/a": 1, "user": 2}
        records = dataclasses.replace(entry("a", size_bytes=12), keys="offset")
        add_wave(tmp_path, "00002", make_batch({"a@3": [3, 0, 0], "a@77": [3, 0, 0]}), inputs=(records,))
        assert values(tmp_path) == {"a@2x": 1, "user@host/a": 1, "user": 2, "a@3": 3, "a@77": 3}

    def test_a_failure_takes_the_place_of_a_row_of_its_own_file(self, tmp_path):
        first = (entry("a"), entry("b"))
        add_wave(tmp_path, "00000", make_batch({"k": [1, 0, 0], "l": [1, 0, 0]}), inputs=first, key_feature="id")
        other = [make_failure("k", source="/in/c@0")]
        add_wave(tmp_path, "00001", make_batch({}, other), inputs=(entry("c"),), key_feature="id")
        assert values(tmp_path) == {"k": 1, "l": 1}
        own = [make_failure("l", source="/in/b@0")]
        add_wave(tmp_path, "00002", make_batch({}, own), inputs=(entry("b", size_bytes=11),), key_feature="id")
        assert values(tmp_path) == {"k": 1}

    def test_waves_of_somebodys_own_pipeline(self, tmp_path):
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}))
        add_wave(tmp_path, "00001", make_batch({"a": [2, 0, 0]}))
        add_wave(tmp_path, "00002", make_batch({}, [make_failure("x"), make_failure("y")]))
        add_wave(tmp_path, "00003", make_batch({"x": [1, 0, 0]}))
        assert (values(tmp_path), failed(tmp_path)) == ({"a": 2, "b": 1, "x": 1}, ["y"])

    @pytest.mark.parametrize("formats", [("tfrecord",), ("parquet",), ("parquet", "tfrecord")])
    def test_where_the_name_is_no_text(self, tmp_path, formats):
        changed = dataclasses.replace(entry("x"), name="\udcff")
        add_wave(tmp_path, "00000", make_batch({b"\xff": [1, 0, 0]}), inputs=(changed,), formats=formats)
        add_wave(tmp_path, "00001", make_batch({b"\xff": [2, 0, 0]}), inputs=(changed,), formats=formats)
        ((key, row),) = read_rows(tmp_path).items()
        assert row["embedding"][0] == 2
        assert key == (rb"\xff" if formats == ("parquet",) else b"\xff")


def test_a_wave_that_another_replaces_is_not_read(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}), inputs=(entry("a"), entry("b")))
    add_wave(tmp_path, "00001", make_batch({"a": [2, 0, 0]}), inputs=(entry("a"),), replaces=("00000",))
    assert values(tmp_path) == {"a": 2}


def test_rows_of_one_wave_that_share_a_key_are_all_kept(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}), make_batch({"a": [2, 0, 0]}), key_feature="id")
    assert sum(batch.num_rows for batch in read_embeddings(str(tmp_path))) == 2


def test_a_file_that_no_manifest_names_is_not_part_of_the_data_set(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}))
    stray = tmp_path / "embeddings/embeddings-00001-00000-of-00001.tfrecord"
    stray.write_bytes((tmp_path / "embeddings/embeddings-00000-00000-of-00001.tfrecord").read_bytes())
    assert sum(batch.num_rows for batch in read_embeddings(str(tmp_path))) == 1


@pytest.mark.parametrize("formats", [("tfrecord",), ("parquet",)])
def test_features_come_back_with_their_types(tmp_path, formats):
    features = {
        "label": Feature("int64", (3, -1)),
        "name": Feature("bytes", (b"\xff",)),
        "box": Feature("float", (0.5, 0.25)),
    }
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=features), formats=formats)
    assert list(read_rows(tmp_path).values()) == [
        {"key": b"a", "embedding": [1, 2, 3], "label": [3, -1], "name": [b"\xff"], "box": [0.5, 0.25]}
    ]


@pytest.mark.parametrize(
    "line",
    ["", "{", "3", "[]", "{}", '{"key": 3, "source": "", "stage": "", "reason": "", "message": ""}', "[" * 99999],
)
def test_a_damaged_failures_file_makes_an_error_of_one_line(tmp_path, line):
    (tmp_path / "x").write_text(f"{line}\n{line}")
    with pytest.raises(OutputError, match=r"x cannot be read: .*; run python -m pipeline\.verify"):
        list(read_failures_file(str(tmp_path / "x")))


def test_a_failures_file_that_is_not_utf8(tmp_path):
    (tmp_path / "x").write_bytes(make_failure("a").to_json().encode() + b"\n\xff\n")
    with pytest.raises(OutputError, match=r"x cannot be read: 'utf-8' codec .*; run python -m pipeline\.verify"):
        list(read_failures_file(str(tmp_path / "x")))


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_only_line_feeds_end_a_line_of_failures(tmp_path, end):
    failures = [make_failure("a"), make_failure("b\u2028\x85c")]
    lines = [failures[0].to_json(), failures[1].to_json().replace("\\u2028", "\u2028").replace("\\u0085", "\x85")]
    (tmp_path / "x").write_bytes(("\n".join(lines) + end).encode())
    assert list(read_failures_file(str(tmp_path / "x"))) == failures


def test_a_failures_file_is_read_as_it_is_needed(tmp_path, monkeypatch):
    line = make_failure("a").to_json().encode() + b"\n"
    file = io.BytesIO(line * ((4 << 20) // len(line)))
    monkeypatch.setattr(filesystem, "open_read", lambda path: file)
    failures = read_failures_file("x")
    assert next(failures) == make_failure("a")
    assert file.tell() <= 1 << 20
