"""A data set that a runner checks and compacts; the runner is here, and counts as one whose workers are elsewhere."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam.options import parse_beam_args
from pipeline.commands import compact as compact_command
from pipeline.commands import verify as verify_command
from pipeline.core.errors import IntegrityError, OutputError, PipelineError
from pipeline.core.json import to_json
from pipeline.core.records import Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import live, read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.tables import read_entries
from pipeline.dataset.verify import verify
from pipeline.job import maintain
from pipeline.job.maintain import compact_on_runner, verify_on_runner
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from tests.datasets import add_wave, complete, contents, entry, make_batch, make_failure, read_rows

ROOT = Path(__file__).parents[2]


class RemoteRunner(FnApiRunner):
    pass


class FailingRunner(RemoteRunner):
    def run_pipeline(self, pipeline, options):
        raise RuntimeError("Traceback:\n  File x\nthe cluster is gone")


class InterruptedRunner(RemoteRunner):
    def run_pipeline(self, pipeline, options):
        return self

    def wait_until_finish(self):
        raise KeyboardInterrupt

    def cancel(self):
        raise NotImplementedError("cannot be cancelled")


class IdleRunner(RemoteRunner):
    def run_pipeline(self, pipeline, options):
        return self

    def wait_until_finish(self):
        pass


def flags(tmp_path, runner=RemoteRunner):
    return [f"--runner={__name__}.{runner.__name__}", f"--temp_location={tmp_path}/temp"]


def options_for(tmp_path, runner=RemoteRunner):
    return parse_beam_args(flags(tmp_path, runner))


def by_names(output, **options):
    """Three waves, of which the second has a newer `b` and the third tried failure `x` again."""
    first = make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}, [make_failure("x"), make_failure("y")])
    add_wave(output, "00000", first, inputs=tuple(map(entry, "abxy")), **options)
    labelled = make_batch({"b": [2, 0, 0]}, features={"label": Feature("int64", (7,))})
    add_wave(output, "00001", labelled, inputs=(entry("b", size_bytes=11),), **options)
    add_wave(output, "00002", make_batch({"x": [3, 0, 0]}), retried=("/in/x",), **options)


def by_feature(output):
    """Keys of a feature: a newer row, a row that failed in a newer wave, and one of another input that failed there."""
    rows = make_batch({"k": [1, 0, 0], "l": [1, 0, 0], "m": [1, 0, 0]}, [make_failure("n", source="/in/r@7")])
    add_wave(output, "00000", rows, inputs=(entry("r"),), key_feature="id")
    newer = [make_failure("l", source="/in/r@9"), make_failure("m", source="/in/other@9")]
    changed = make_batch({"k": [2, 0, 0], "o": [2, 0, 0]}, newer)
    add_wave(output, "00001", changed, inputs=(entry("s"),), key_feature="id")
    image = dataclasses.replace(entry("a.jpg"), keys="name")
    add_wave(output, "00002", make_batch({"a.jpg": [3, 0, 0]}), inputs=(image,))


def of_another_pipeline(output):
    """A custom pipeline lists no inputs: keys alone tell which rows and failures are of the same record."""
    add_wave(output, "00000", make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}, [make_failure("c"), make_failure("d")]))
    add_wave(output, "00001", make_batch({"a": [2, 0, 0], "c": [2, 0, 0]}, [make_failure("e")]))
    add_wave(output, "00002", make_batch({"a": [3, 0, 0]}, [make_failure("e")]))


def nothing(output):
    add_wave(output, "00000", make_batch({}))


def two_formats(output):
    by_names(output, formats=("tfrecord", "parquet"))


def compressed(output):
    by_names(output, compression="gzip")


def parquet(output):
    by_names(output, formats=("parquet",))


DATA_SETS = [by_names, two_formats, compressed, parquet, by_feature, of_another_pipeline, nothing]


def spoil(path, damage):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[:-5] if damage == "shorter" else data)
    if damage == "missing":
        path.unlink()


def describe(output):
    """What a reader finds in a data set, and what its manifest says of its inputs."""
    manifest = live(read_manifests(str(output)))[-1]
    return (
        read_rows(output),
        sorted(read_failures(str(output)), key=lambda failure: failure.key),
        list(read_entries(str(output), manifest)),
        dataclasses.replace(manifest, inputs=(), outputs=(), started="", seconds=0),
        {(item.kind, item.format, item.path.rpartition(".")[2]) for item in manifest.outputs},
    )


@pytest.mark.parametrize("fill", DATA_SETS)
def test_the_same_report(tmp_path, fill):
    fill(tmp_path / "out")
    before = contents(tmp_path / "out")
    expected = verify(str(tmp_path / "out"))
    assert expected.problems == ()
    assert verify_on_runner(str(tmp_path / "out"), options_for(tmp_path)) == expected
    assert contents(tmp_path / "out") == before
    assert contents(tmp_path / "temp") == {}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["shorter", "changed", "missing"])
@pytest.mark.parametrize("fill", [two_formats, by_feature])
def test_the_same_problems_for_each_damaged_file(tmp_path, fill, damage):
    fill(tmp_path / "original")
    names = [name for name in contents(tmp_path / "original") if not name.endswith((".json", ".pbtxt"))]
    assert len(names) > 5
    for name in names:
        output = tmp_path / name.replace("/", "-")
        shutil.copytree(tmp_path / "original", output)
        spoil(output / name, damage)
        expected = verify(str(output))
        assert len(expected.problems) >= 1
        assert verify_on_runner(str(output), options_for(tmp_path)) == expected


@pytest.mark.parametrize("fill", [two_formats, by_feature])
def test_the_same_problems_of_several_damaged_files(tmp_path, fill):
    fill(tmp_path / "out")
    names = sorted(name for name in contents(tmp_path / "out") if not name.endswith((".json", ".pbtxt")))
    for name, damage in zip(names, ["shorter", "changed", "missing"] * len(names), strict=False):
        spoil(tmp_path / "out" / name, damage)
    expected = verify(str(tmp_path / "out"))
    assert len(expected.problems) >= len(names)
    assert verify_on_runner(str(tmp_path / "out"), options_for(tmp_path)) == expected


def test_the_same_problems_of_all_waves_in_their_order(tmp_path):
    output = tmp_path / "out"
    by_names(output)
    first, second, third = read_manifests(str(output))
    wrong = dataclasses.replace(first.outputs[0], rows=5)
    (output / "manifests/00000.json").write_bytes(
        to_json(dataclasses.replace(first, embedded=4, outputs=(wrong, *first.outputs[1:])))
    )
    (output / second.outputs[0].path).unlink()
    (output / "manifests/00002.json").write_bytes(to_json(dataclasses.replace(third, failed=1)))
    (output / "embeddings/stray.tfrecord").write_bytes(b"")
    expected = verify(str(output))
    assert (len(expected.problems), len(expected.strays)) == (5, 1)
    assert verify_on_runner(str(output), options_for(tmp_path)) == expected


@pytest.mark.parametrize("fill", DATA_SETS[:-1])
def test_the_same_compaction(tmp_path, fill):
    here, there = tmp_path / "here", tmp_path / "there"
    fill(here)
    shutil.copytree(here, there)
    rows = {key: row["embedding"] for key, row in read_rows(here).items()}
    expected = compact(str(here))
    assert (expected.waves, expected.superseded > 0) == (3, True)
    assert compact_on_runner(str(there), options_for(tmp_path)) == expected
    assert describe(there) == describe(here)
    assert {key: row["embedding"] for key, row in read_rows(there).items()} == rows
    assert complete(there)
    assert (verify(str(there)).waves, verify(str(there)).superseded) == (1, 0)
    assert compact_on_runner(str(there), options_for(tmp_path)).waves == 1


def test_in_an_object_store(gcs, tmp_path, capsys):
    by_names(tmp_path / "out")
    base = f"gs://bucket/{tmp_path.name}"
    for name, data in contents(tmp_path / "out").items():
        gcs.write(f"{base}/out/{name}", data)
    expected = read_rows(tmp_path / "out")
    assert verify_command.main([f"{base}/out", *flags(base)]) == 0
    assert compact_command.main([f"{base}/out", *flags(base)]) == 0
    assert verify_command.main([f"{base}/out", *flags(base)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 waves, 3 rows, 1 superseded, 1 failures; complete",
        "3 waves became one: 3 rows kept, 1 superseded dropped",
        "1 waves, 3 rows, 0 superseded, 1 failures; complete",
    ]
    assert read_rows(f"{base}/out") == expected
    assert gcs.paths(f"{base}/temp/") == []


@pytest.mark.parametrize("fill", [by_names, by_feature])
def test_a_damaged_data_set_is_not_compacted(tmp_path, fill):
    output = tmp_path / "out"
    fill(output)
    path = output / "embeddings/embeddings-00001-00000-of-00001.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    before = contents(output)
    with pytest.raises(OutputError, match=r"^.*cannot be read: .*run python -m pipeline\.verify$"):
        compact_on_runner(str(output), options_for(tmp_path))
    assert contents(output) == before


@pytest.mark.parametrize("on_runner", [False, True])
def test_a_shard_that_lacks_rows_is_not_compacted(tmp_path, on_runner):
    output = tmp_path / "out"
    by_names(output)
    name = "embeddings/embeddings-00000-00000-of-00001.tfrecord"
    data = (output / name).read_bytes()
    (output / name).write_bytes(data[: len(data) // 2])  # two rows of equal length
    before = contents(output)
    text = f"{name} has 1 rows, 2 in the manifest; run python -m pipeline.verify"
    with pytest.raises(OutputError, match=f"^{re.escape(text)}$"):
        compact_on_runner(str(output), options_for(tmp_path)) if on_runner else compact(str(output))
    assert contents(output) == before


def test_rows_that_the_job_lost_are_noticed_before_the_commit(tmp_path, monkeypatch):
    from pipeline.beam import write

    def lose(*args, records_read):
        return commit(*args, records_read=records_read + 1)

    commit = write.commit_wave
    monkeypatch.setattr(write, "commit_wave", lose)
    by_names(tmp_path / "out")
    before = contents(tmp_path / "out")
    text = r"^the compaction of .*/out failed and changed nothing: wave 00003: 5 records were read, but 3 embedded"
    with pytest.raises(IntegrityError, match=text):
        compact_on_runner(str(tmp_path / "out"), options_for(tmp_path))
    assert contents(tmp_path / "out") == before


def test_a_file_without_a_result_is_not_taken_for_sound(tmp_path, monkeypatch):
    by_names(tmp_path / "out")
    parse = maintain.from_json
    monkeypatch.setattr(maintain, "from_json", lambda kind, data: kind(parse(kind, data).reports[1:]))
    text = r"^the check of .*/out failed: 1 of 7 files have no result, such as .*; expected one for each; please report"
    with pytest.raises(IntegrityError, match=text):
        verify_on_runner(str(tmp_path / "out"), options_for(tmp_path))


def test_a_lock_that_is_held_and_one_that_is_stolen(tmp_path):
    by_names(tmp_path / "out")
    with DatasetLock(str(tmp_path / "out")):
        with pytest.raises(OutputError, match="is being written by"):
            compact_on_runner(str(tmp_path / "out"), options_for(tmp_path))
        assert compact_on_runner(str(tmp_path / "out"), options_for(tmp_path), steal_lock=True).waves == 3


def test_a_job_that_fails_is_one_line(tmp_path, capsys):
    output = tmp_path / "out"
    by_names(output)
    before = contents(output)
    runner = f"{__name__}.FailingRunner"
    for main, name in ((verify_command.main, "checks"), (compact_command.main, "compacts")):
        assert main([str(output), *flags(tmp_path, FailingRunner)]) == 1
        assert capsys.readouterr().err == (
            f"error: the job that {name} {output} failed on {runner}: the cluster is gone; see the runner's logs, and "
            "start again\n"
        )
    assert contents(output) == before


def test_an_error_of_a_worker_is_one_line(tmp_path, monkeypatch):
    def fail(path, data):
        raise OSError(28, "No space left on device", path)

    by_names(tmp_path / "out")
    monkeypatch.setattr(filesystem, "write_atomically", fail)
    text = (
        r"^the check of .*/out failed: .*/temp/verify-[0-9a-f]{32}\.json: No space left on device; "
        r"make room there and start again$"
    )
    with pytest.raises(PipelineError, match=text):
        verify_on_runner(str(tmp_path / "out"), options_for(tmp_path))


def test_an_interrupted_job_is_cancelled(tmp_path, caplog):
    output = tmp_path / "out"
    by_names(output)
    before = contents(output)
    for command in (verify_on_runner, compact_on_runner):
        with pytest.raises(KeyboardInterrupt):
            command(str(output), options_for(tmp_path, InterruptedRunner))
    assert caplog.messages == [
        f"interrupted: cancelling the job that checks {output}",
        "the job could not be cancelled (cannot be cancelled); it changes nothing",
        f"interrupted: cancelling the job that compacts {output}",
        "the job could not be cancelled (cannot be cancelled); its wave will not count",
    ]
    assert contents(output) == before


def test_a_job_that_did_nothing_removes_nothing(tmp_path):
    output = tmp_path / "out"
    by_names(output)
    before = contents(output)
    with pytest.raises(OutputError, match=r"wave 00003 of .* is not committed"):
        compact_on_runner(str(output), options_for(tmp_path, IdleRunner))
    assert contents(output) == before


@pytest.mark.parametrize("main", [verify_command.main, compact_command.main])
class TestArguments:
    def test_a_remote_runner_needs_a_temp_location(self, main, tmp_path, capsys):
        by_names(tmp_path / "out")
        assert main([str(tmp_path / "out"), flags(tmp_path)[0]]) == 2
        assert capsys.readouterr().err == (
            f"error: --runner={__name__}.RemoteRunner needs --temp_location=DIRECTORY for the results of its workers; "
            "name one that they can read too, such as gs://BUCKET/temp\n"
        )

    def test_unknown_arguments_are_refused(self, main, tmp_path, capsys):
        assert main([str(tmp_path), "--runer=DirectRunner"]) == 2
        assert capsys.readouterr().err == "error: unknown argument '--runer=DirectRunner'; did you mean --runner?\n"

    @pytest.mark.parametrize("runner", ["DirectRunner", "direct"])
    def test_the_direct_runner_is_this_process(self, main, runner, tmp_path, capsys, monkeypatch):
        by_names(tmp_path / "out")
        for name in ("verify_on_runner", "compact_on_runner"):
            monkeypatch.delattr(maintain, name)
        assert main([str(tmp_path / "out"), f"--runner={runner}"]) == 0
        assert "3 waves" in capsys.readouterr().out

    def test_no_data_set(self, main, tmp_path, capsys):
        assert main([str(tmp_path / "out"), *flags(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path}/out holds no data set: it has no spec.json; name the --output of a run\n"
        )
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["pipeline.verify", "pipeline.compact"])
def test_help_loads_no_heavy_package(module):
    code = (
        f"import runpy, sys\nsys.argv = ['{module}', '--help']\n"
        f"try:\n    runpy.run_module('{module}', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('apache_beam', 'duckdb', 'numpy', 'pyarrow', 'tensorflow') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed.endswith("\n[]\n")
    assert "With --runner, the workers of that runner do the work" in printed
