import contextlib
import dataclasses
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.verify import main
from pipeline.core.errors import OutputError, UsageError
from pipeline.core.failures import Failure
from pipeline.core.json import to_json
from pipeline.dataset.metadata import Manifest, read_manifests
from pipeline.dataset.ownership import owned_files
from pipeline.dataset.verify import show_failure, verify
from pipeline.storage import filesystem
from pipeline.storage.checksum import crc32c
from pipeline.storage.lock import DatasetLock
from pipeline.testing import make_example, make_tfrecord
from tests.datasets import add_wave, contents, entry, make_batch, make_failure
from tests.inputs.archives import make_tar

TFRECORD = "embeddings/embeddings-00000-00000-of-00001.tfrecord"
PARQUET = "embeddings-parquet/embeddings-00000-00000-of-00001.parquet"
FAILURES = "failures/failures-00000-00000-of-00001.jsonl"
MANIFEST = "manifests/00000.json"
INPUTS = "manifests/00000-inputs-00000.parquet"
RETRIED = "manifests/00000-retried-00000.parquet"


@pytest.fixture
def out(tmp_path):
    batch = make_batch({"a": [1, 2, 3], "b": [4, 5, 6]}, [make_failure("c"), make_failure("d", reason="empty")])
    options = {"inputs": tuple(map(entry, "abcd")), "retried": ("/in/a",), "formats": ("tfrecord", "parquet")}
    add_wave(tmp_path / "out", "00000", batch, **options)
    return tmp_path / "out"


def problems(out):
    return list(verify(str(out)).problems)


def rewrite(out, name, data):
    """Replaces a file, and says so in the manifest: only what is in it can be wrong then."""
    (out / name).write_bytes(data)
    (manifest,) = read_manifests(str(out))
    outputs = tuple(
        dataclasses.replace(item, size_bytes=len(data), crc32c=f"{crc32c(data):08x}") if item.path == name else item
        for item in manifest.outputs
    )
    (out / MANIFEST).write_bytes(to_json(dataclasses.replace(manifest, outputs=outputs)))


def change_manifest(out, **changes):
    (manifest,) = read_manifests(str(out))
    (out / MANIFEST).write_bytes(to_json(dataclasses.replace(manifest, **changes)))


def test_a_sound_data_set(out):
    report = verify(str(out))
    assert (report.problems, report.strays) == ((), ())
    assert (report.waves, report.rows, report.superseded, report.failures) == (1, 2, 0, 2)


def test_no_data_set_at_all(tmp_path):
    with pytest.raises(OutputError, match=r"holds no data set: it has no spec\.json"):
        verify(str(tmp_path))


@pytest.mark.parametrize("name", [TFRECORD, PARQUET, FAILURES, INPUTS, RETRIED])
class TestFiles:
    def test_missing(self, out, name):
        (out / name).unlink()
        (problem,) = problems(out)
        assert problem.startswith(f"{name}: ")
        assert "No such file" in problem

    def test_shorter(self, out, name):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:-1])
        assert f"{name}: {len(data) - 1} bytes, {len(data)} in the manifest" in problems(out)

    def test_longer(self, out, name):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data + b"\n")
        assert f"{name}: {len(data) + 1} bytes, {len(data)} in the manifest" in problems(out)

    def test_empty(self, out, name):
        (out / name).write_bytes(b"")
        assert any(problem.startswith(f"{name}: 0 bytes") for problem in problems(out))

    def test_a_directory_in_its_place(self, out, name):
        (out / name).unlink()
        (out / name).mkdir()
        assert any(problem.startswith(f"{name}: ") for problem in problems(out))

    def test_any_flipped_bit(self, out, name):
        data = (out / name).read_bytes()
        for position in range(0, len(data), max(1, len(data) // 40)):
            flipped = bytearray(data)
            flipped[position] ^= 1 << (position % 8)
            (out / name).write_bytes(flipped)
            assert any(problem.startswith(f"{name}: CRC-32C ") for problem in problems(out)), position


@pytest.mark.parametrize("name", [TFRECORD, PARQUET, FAILURES])
def test_the_wrong_number_of_rows(out, name):
    (manifest,) = read_manifests(str(out))
    outputs = tuple(
        dataclasses.replace(item, rows=item.rows + 1) if item.path == name else item for item in manifest.outputs
    )
    change_manifest(out, outputs=outputs)
    found = problems(out)
    assert f"{name}: 2 rows, 3 in the manifest" in found
    kind = "failures" if name == FAILURES else "embeddings"
    file_format = {TFRECORD: "tfrecord", PARQUET: "parquet", FAILURES: "jsonl"}[name]
    assert f"wave 00000: 3 {kind} in {file_format} files, 2 in the manifest" in found


class TestCounts:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"embedded": 3}, "wave 00000: 2 embeddings in tfrecord files, 3 in the manifest"),
            ({"embedded": 3}, "wave 00000: 2 embeddings in parquet files, 3 in the manifest"),
            ({"failed": 1}, "wave 00000: 2 failures in jsonl files, 1 in the manifest"),
            ({"failures_by_reason": {"empty": 1}}, "wave 00000: failures by reason do not add up to 2"),
        ],
    )
    def test_that_do_not_add_up(self, out, changes, expected):
        change_manifest(out, **changes)
        assert expected in problems(out)

    def test_records_without_any_file(self, out):
        change_manifest(out, outputs=())
        assert problems(out) == [
            "wave 00000: no embeddings, 2 in the manifest",
            "wave 00000: no failures, 2 in the manifest",
        ]


def tfrecord_of(*rows):
    return make_tfrecord(make_example({"key": key, "embedding": [float(x) for x in vector]}) for key, vector in rows)


def parquet_of(vectors):
    sink = pa.BufferOutputStream()
    columns = {
        "key": pa.array([f"k{index}" for index in range(len(vectors))]),
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(np.concatenate(vectors), pa.float32()), len(vectors[0])
        ),
    }
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


NAN = float("nan")
INFINITY = float("inf")


class TestVectors:
    @pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
    def test_that_are_not_finite(self, out, bad):
        rewrite(out, TFRECORD, tfrecord_of(("a", [1, bad, 3]), ("b", [1, 2, 3])))
        rewrite(out, PARQUET, parquet_of([[1, 2, bad], [bad, 2, 3]]))
        assert sorted(problems(out)) == [
            f"{PARQUET}: 2 vectors with values that are NaN or infinite",
            f"{TFRECORD}: 1 vectors with values that are NaN or infinite",
        ]

    def test_of_another_dimension(self, out):
        rewrite(out, TFRECORD, tfrecord_of(("a", [1, 2]), ("b", [1, 2])))
        rewrite(out, PARQUET, parquet_of([[1, 2, 3, 4], [1, 2, 3, 4]]))
        assert sorted(problems(out)) == [
            f"{PARQUET}: 2 vectors that do not have 3 values",
            f"{TFRECORD}: 2 vectors that do not have 3 values",
        ]

    def test_of_different_dimensions(self, out):
        rewrite(out, TFRECORD, tfrecord_of(("a", [1, 2, 3]), ("b", [1, 2])))
        (problem,) = problems(out)
        assert TFRECORD in problem

    @pytest.mark.parametrize(
        "examples",
        [
            [b"no example \xff"] * 2,
            [make_example({"key": "a"})] * 2,
            [make_example({"embedding": [1.0, 2.0, 3.0]})] * 2,
            [make_example({"key": "a", "embedding": "text"})] * 2,
        ],
    )
    def test_that_are_no_rows(self, out, examples):
        rewrite(out, TFRECORD, make_tfrecord(examples))
        assert any("cannot be read" in problem for problem in problems(out))

    def test_parquet_that_is_none_and_parquet_without_the_columns(self, out):
        rewrite(out, PARQUET, b"PAR1 no parquet PAR1")
        assert any("cannot be read" in problem for problem in problems(out))
        for table in ({"other": [1, 2]}, {"key": ["a", "b"], "embedding": [[1.0], [2.0]]}, {"key": [1, 2]}):
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(table), sink)
            rewrite(out, PARQUET, sink.getvalue().to_pybytes())
            assert any("cannot be read" in problem for problem in problems(out))

    def test_failures_that_are_none(self, out):
        rewrite(out, FAILURES, b"{}\n{}\n")
        assert any("cannot be read" in problem for problem in problems(out))


class TestStrays:
    NAMES = (
        "embeddings/embeddings-00001-00000-of-00001.tfrecord",
        "embeddings/notes.txt",
        "failures/x",
        "manifests/backup/00000.json",
        "staging/00001/embeddings-0a",
        f"staging/{'0a' * 16}/00001/embeddings-0a",
        "manifests/00001-inputs-00000.parquet",
        f"manifests/00000.json.{'0a' * 16}.tmp",
        f"summary.json.{'0a' * 16}.tmp",
    )

    @pytest.fixture
    def strays(self, out):
        for name in self.NAMES:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("x")
        return sorted(str(out / name) for name in self.NAMES)

    def test_are_found(self, out, strays):
        assert sorted(verify(str(out)).strays) == strays
        assert problems(out) == []

    def test_are_deleted_when_asked_and_nothing_else(self, out, strays, capsys):
        before = contents(out)
        assert main([str(out)]) == 1
        assert contents(out) == before
        found = capsys.readouterr().out
        assert found.count("no manifest names it; remove it with --delete_strays") == len(strays)
        assert found.endswith("; complete, but 9 strays\n")
        assert main([str(out), "--delete_strays"]) == 0
        assert capsys.readouterr().out == (
            "removed 9 files that no manifest names\n1 waves, 2 rows, 0 superseded, 2 failures; complete\n"
        )
        after = contents(out)
        after.pop("manifests/00002.json")  # keeps the number of the removed wave from being used again
        assert after == {name: data for name, data in before.items() if name not in self.NAMES}
        assert main([str(out)]) == 0

    def test_are_not_deleted_while_a_run_is_writing_them(self, out, strays, capsys):
        with DatasetLock(str(out)):
            assert main([str(out), "--delete_strays"]) == 2
        assert "is being written by" in capsys.readouterr().err
        assert sorted(verify(str(out)).strays) == strays

    def test_what_users_keep_below_staging_is_theirs(self, out):
        (out / "staging" / "photos").mkdir(parents=True)
        (out / "staging" / "photos" / "a.jpg").write_text("mine")
        assert verify(str(out)).strays == ()
        assert main([str(out), "--delete_strays"]) == 0
        assert (out / "staging" / "photos" / "a.jpg").exists()

    def test_a_data_set_in_the_current_directory_has_none(self, out, monkeypatch):
        monkeypatch.chdir(out)
        before = contents(out)
        assert main([".", "--delete_strays"]) == 0
        assert contents(out) == before

    def test_names_that_are_no_text_can_be_told(self, out, capsys):
        (out / "embeddings" / os.fsdecode(b"\xff")).write_text("x")
        assert main([str(out)]) == 1
        assert "embeddings/\\udcff: no manifest names it" in capsys.readouterr().out


def test_the_command_lists_what_is_wrong(out, capsys):
    (out / TFRECORD).unlink()
    assert main([str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"problem: {TFRECORD}: ")
    assert lines[-1].endswith("; damaged")


def test_superseded_rows_are_counted(out):
    add_wave(out, "00001", make_batch({"a": [7, 8, 9]}), inputs=(entry("a", size_bytes=11),))
    report = verify(str(out))
    assert (report.waves, report.rows, report.superseded) == (2, 2, 1)


def test_waves_that_others_replace_are_checked_but_not_counted(out):
    add_wave(out, "00001", make_batch({"a": [7, 8, 9]}), inputs=(entry("a"),), replaces=("00000",))
    report = verify(str(out))
    assert (report.waves, report.rows) == (1, 1)
    replaced = (TFRECORD, PARQUET, FAILURES, MANIFEST, INPUTS, RETRIED)
    assert sorted(report.strays) == sorted(str(out / name) for name in replaced)


class TestShow:
    def commit(self, tmp_path, *failures):
        add_wave(tmp_path / "out", "00000", make_batch({}, failures), image_feature="img")
        return str(tmp_path / "out")

    def test_an_image(self, tmp_path, capsys):
        path = tmp_path / os.fsdecode(b"bad\xff@3.jpg")
        path.write_bytes(b"the image")
        key = os.fsdecode(b"bad\xff@3.jpg")
        out = self.commit(tmp_path, dataclasses.replace(make_failure("x"), key=os.fsencode(key), source=str(path)))
        assert main([out, "--show", key, "--to", str(tmp_path / "shown")]) == 0
        assert (tmp_path / "shown").read_bytes() == b"the image"
        assert "bad\\udcff@3.jpg\ntruncated: made up\n" in capsys.readouterr().out

    @pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
    def test_a_record_and_a_range_of_bytes(self, tmp_path, pack):
        first = make_tfrecord([make_example({"img": b"first"})])
        data = first + make_tfrecord([make_example({"img": b"the image"})]) + b"damage"
        path = tmp_path / ("a.gz" if pack is gzip.compress else "a")
        path.write_bytes(pack(data))
        end = len(data)
        out = self.commit(
            tmp_path,
            make_failure("record", source=f"{path}@{len(first)}"),
            make_failure("range", source=f"{path}@{end - 6}-{end}", reason="corrupt_record"),
            make_failure("nothing", source=f"{path}@{end}-{end}", reason="corrupt_record"),
            make_failure("beyond", source=f"{path}@{end + 5}-{end + 9}", reason="corrupt_record"),
        )
        expected = {"record": b"the image", "range": b"damage", "nothing": b"", "beyond": b""}
        for key, shown in expected.items():
            show_failure(out, key, str(tmp_path / "shown"))
            assert (tmp_path / "shown").read_bytes() == shown

    def test_what_is_left_of_a_compressed_file_that_breaks_off(self, tmp_path):
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(os.urandom(5000))[:-1000])
        out = self.commit(tmp_path, make_failure("x", source=f"{path}@100-4900", reason="corrupt_record"))
        show_failure(out, "x", str(tmp_path / "shown"))
        assert 3000 < len((tmp_path / "shown").read_bytes()) <= 4800

    def test_a_record_without_the_image_is_shown_whole(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(make_tfrecord([b"no example"]))
        out = self.commit(tmp_path, make_failure("x", source=f"{path}@0"))
        show_failure(out, "x", str(tmp_path / "shown"))
        assert (tmp_path / "shown").read_bytes() == b"no example"

    def test_bytes_that_are_gone(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(b"something else entirely")
        out = self.commit(tmp_path, make_failure("x", source=f"{path}@5"), make_failure("y", source=f"{tmp_path}/gone"))
        with pytest.raises(OSError, match="holds no record any more; the file has changed"):
            show_failure(out, "x", str(tmp_path / "shown"))
        with pytest.raises(OSError, match="No such file"):
            show_failure(out, "y", str(tmp_path / "shown"))

    def test_records_of_tables_and_archives(self, tmp_path):
        table, archive = tmp_path / "a.parquet", tmp_path / "a.tar"
        pq.write_table(pa.table({"image": [b"zero", b"one"]}), table)
        archive.write_bytes(make_tar([("a.jpg", b"a"), ("b.jpg", b"b")]))
        out = self.commit(
            tmp_path,
            make_failure("row", source=f"{table}@1"),
            make_failure("rows", source=f"{table}@0-2"),
            make_failure("sample", source=f"{archive}@1024"),
            make_failure("range", source=f"{archive}@512-513"),
        )
        for key, data in (("row", b"one"), ("sample", b"b"), ("range", b"a")):
            show_failure(out, key, str(tmp_path / "shown"))
            assert (tmp_path / "shown").read_bytes() == data
        with pytest.raises(OSError, match=r"a\.parquet@0-2 are rows that cannot be read; there are no bytes to show"):
            show_failure(out, "rows", str(tmp_path / "shown"))

    def test_a_key_that_did_not_fail(self, out):
        with pytest.raises(UsageError, match=r"--show=a: no failure has this key; see .*/failures"):
            show_failure(str(out), "a", "unused")


def test_any_damage_to_any_file_is_found_or_told(out):
    """One byte anywhere in the data set is changed; the spec's and the manifest's texts are not all guarded."""
    rng = np.random.default_rng(0)
    original = contents(out)
    for name in (TFRECORD, PARQUET, FAILURES, INPUTS, RETRIED):
        for _ in range(25):
            data = bytearray(original[name])
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            (out / name).write_bytes(data)
            assert problems(out) != []
        (out / name).write_bytes(original[name])
    for _ in range(60):
        data = bytearray(original[MANIFEST])
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        (out / MANIFEST).write_bytes(data)
        with contextlib.suppress(OutputError):
            assert isinstance(verify(str(out)).problems, tuple)


def test_strays_on_a_path_that_python_writes_differently(out, monkeypatch):
    monkeypatch.chdir(out.parent)
    for name in ("out", "./out", "out/", f"file://{out}"):
        assert verify(name).strays == ()


def test_what_the_reports_count_is_what_is_there(out):
    assert json.loads((out / MANIFEST).read_text())["embedded"] == 2
    assert isinstance(read_manifests(str(out))[0], Manifest)
    assert all(filesystem.exists(path) for path in owned_files(str(out), read_manifests(str(out)))[:6])
    assert Failure.from_json((out / FAILURES).read_text().splitlines()[0]).key == b"c"
