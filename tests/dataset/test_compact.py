import dataclasses
import itertools
import shutil

import pytest

from pipeline.commands.compact import main
from pipeline.core.errors import OutputError
from pipeline.core.records import Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import live, next_wave, read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.tables import read_entries
from pipeline.dataset.verify import verify
from pipeline.inputs.base import InputFile
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from tests.dataset.planning import Covered
from tests.datasets import add_wave, complete, contents, entry, make_batch, make_failure, read_rows, read_vectors


def fill(output, formats=("tfrecord",), compression="none"):
    """Three waves, of which the second has a newer `b` and the third tried failure `x` again."""
    options = {"formats": formats, "compression": compression}
    first = make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}, [make_failure("x"), make_failure("y")])
    add_wave(output, "00000", first, inputs=tuple(map(entry, "abxy")), **options)
    labelled = make_batch({"b": [2, 0, 0]}, features={"label": Feature("int64", (7,))})
    add_wave(output, "00001", labelled, inputs=(entry("b", size_bytes=11),), **options)
    add_wave(output, "00002", make_batch({"x": [3, 0, 0]}), retried=("/in/x",), **options)


def inputs_of(output, manifest):
    return {item.path: item for item in read_entries(str(output), manifest)}


def test_who_has_a_name_last_keeps_it(tmp_path):
    covered = Covered(tmp_path)
    x, y = (dataclasses.replace(entry("a.jpg"), path=f"/{folder}/a.jpg", keys="name") for folder in "xy")
    for index, item in enumerate((x, y, x)):
        add_wave(tmp_path, f"{index:05d}", make_batch({"a.jpg": [index, 0, 0]}), inputs=(item,))
    files = [InputFile(x.path, x.name, "images", x.size_bytes, x.mtime_s)]
    assert covered.plan(files).waves == []
    compact(str(tmp_path))
    assert covered.plan(files).waves == []
    assert {key: row["embedding"][0] for key, row in read_rows(tmp_path).items()} == {b"a.jpg": 2}


def test_images_keep_their_names_beside_keys_of_a_feature(tmp_path):
    image = dataclasses.replace(entry("a.jpg"), keys="name")
    add_wave(tmp_path, "00000", make_batch({"a.jpg": [1, 0, 0]}), inputs=(image,))
    add_wave(tmp_path, "00001", make_batch({"k": [1, 0, 0]}), inputs=(entry("r"),), key_feature="id")
    compact(str(tmp_path))
    (manifest,) = live(read_manifests(str(tmp_path)))
    assert [(item.name, item.keys) for item in read_entries(str(tmp_path), manifest)] == [
        ("a.jpg", "name"),
        ("r", "feature"),
    ]
    assert (manifest.key_feature, manifest.input_keys) == ("id", ("feature", "name"))


def test_the_newest_state_of_each_input_is_kept(tmp_path):
    old, new = entry("\udcff", mtime_s=1.0), entry("\udcff", mtime_s=2.0)
    add_wave(tmp_path, "99999", make_batch({b"\xff": [1, 0, 0]}), inputs=(old, entry("a")))
    add_wave(tmp_path, "100000", make_batch({b"\xff": [2, 0, 0]}), inputs=(new,))
    compact(str(tmp_path))
    (manifest,) = live(read_manifests(str(tmp_path)))
    assert inputs_of(tmp_path, manifest) == {"/in/\udcff": new, "/in/a": entry("a")}


FORMATS = [
    (("tfrecord",), "none"),
    (("tfrecord",), "gzip"),
    (("parquet",), "none"),
    (("tfrecord", "parquet"), "none"),
]


@pytest.mark.parametrize(("formats", "compression"), FORMATS)
def test_one_wave_with_what_counts(tmp_path, formats, compression):
    fill(tmp_path, formats, compression)
    before = {key: row["embedding"] for key, row in read_rows(tmp_path).items()}
    report = verify(str(tmp_path))
    assert (report.rows, report.superseded, report.failures) == (3, 1, 1)
    done = compact(str(tmp_path))
    assert (done.waves, done.rows, done.superseded) == (3, 3, 1)
    after = read_rows(tmp_path)
    assert (
        {key: row["embedding"] for key, row in after.items()}
        == before
        == {
            b"a": [1, 0, 0],
            b"b": [2, 0, 0],
            b"x": [3, 0, 0],
        }
    )
    assert after[b"b"]["label"] == [7]
    assert [failure.key for failure in read_failures(str(tmp_path))] == [b"y"]
    report = verify(str(tmp_path))
    assert (report.problems, report.strays, report.waves, report.superseded) == ((), (), 1, 0)
    (manifest,) = read_manifests(str(tmp_path))
    assert manifest.wave == "00003"
    assert inputs_of(tmp_path, manifest)["/in/b"].size_bytes == 11
    assert {item.format for item in manifest.outputs if item.kind == "embeddings"} == set(formats)
    assert all(item.path.endswith(".gz") for item in manifest.files("embeddings")) == (compression == "gzip")


def test_a_data_set_of_one_wave_is_left_alone(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}))
    before = contents(tmp_path)
    assert compact(str(tmp_path)).waves == 1
    assert contents(tmp_path) == before


def test_no_data_set_and_a_locked_one_are_refused(tmp_path):
    with pytest.raises(OutputError, match="holds no data set"):
        compact(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path)
    with DatasetLock(str(tmp_path)), pytest.raises(OutputError, match="is being written by"):
        compact(str(tmp_path))


def test_a_damaged_data_set_is_refused_and_kept(tmp_path):
    fill(tmp_path)
    path = tmp_path / "embeddings/embeddings-00001-00000-of-00001.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(OutputError, match=r"cannot be read: .*run python -m pipeline\.verify"):
        compact(str(tmp_path))
    assert [manifest.wave for manifest in read_manifests(str(tmp_path))] == ["00000", "00001", "00002"]


def test_an_interruption_anywhere_loses_nothing(tmp_path, monkeypatch):
    """Stopped before each of its steps on the disk in turn, it leaves the same rows, and doing it again ends it."""

    class Killed(BaseException):
        pass

    fill(tmp_path / "original")
    expected = read_vectors(tmp_path / "original")
    steps = ("create", "rename_all", "delete", "delete_directory")
    for last in itertools.count():
        output = tmp_path / str(last)
        shutil.copytree(tmp_path / "original", output)
        done = 0

        def stop_before(function, last=last):
            def step(*args, **options):
                nonlocal done
                if done == last:
                    raise Killed
                done += 1
                return function(*args, **options)

            return step

        killed = False
        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(filesystem, name, stop_before(getattr(filesystem, name)))
            try:
                compact(str(output))
            except Killed:
                killed = True
        assert read_vectors(output) == expected
        assert [failure.key for failure in read_failures(str(output))] == [b"y"]
        assert verify(str(output)).problems == ()  # no manifest is left without its files
        compact(str(output), steal_lock=True)
        assert read_vectors(output) == expected
        report = verify(str(output))
        assert (report.waves, report.problems, report.strays) == (1, (), ())
        if not killed:
            break
    assert last > 10


def test_the_command(tmp_path, capsys):
    fill(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "3 waves became one: 3 rows kept, 1 superseded dropped\n"
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to do: the data set has one wave\n"


def test_a_lock_can_be_stolen_when_asked(tmp_path):
    fill(tmp_path)
    with DatasetLock(str(tmp_path)):
        assert main([str(tmp_path), "--steal_lock"]) == 0
    assert len(read_manifests(str(tmp_path))) == 1


def test_waves_go_on_after_a_compaction(tmp_path):
    """A wave may be removed while another program still lists its files: no file name is used again."""
    fill(tmp_path)
    compact(str(tmp_path))
    add_wave(tmp_path, next_wave(read_manifests(str(tmp_path))), make_batch({"b": [4, 0, 0]}), inputs=(entry("b"),))
    assert [manifest.wave for manifest in read_manifests(str(tmp_path))] == ["00003", "00004"]
    assert compact(str(tmp_path)).superseded == 1
    assert [manifest.wave for manifest in read_manifests(str(tmp_path))] == ["00005"]
    assert complete(tmp_path)
