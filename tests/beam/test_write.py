import dataclasses
import datetime
import errno
import re

import apache_beam as beam
import pyarrow.parquet as pq
import pytest

from pipeline.beam import write
from pipeline.beam.options import make_runner, parse_beam_args
from pipeline.beam.worker_errors import WorkerError, cause_of
from pipeline.beam.write import WriteEmbeddings, _StageFn
from pipeline.core.errors import IntegrityError, OutputError, UsageError
from pipeline.core.json import to_json
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.tables import read_entries
from pipeline.dataset.verify import verify
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory
from tests.datasets import SPEC, contents, entry, make_batch, make_failure, make_header, read_rows, unlocked

BATCHES = [make_batch({f"{i}{j}": [i, j, 0] for j in range(3)}, [make_failure(f"bad{i}")]) for i in range(4)]


def run(output, batches=BATCHES, *args, read_counts=None, **options):
    beam_options = parse_beam_args(args)
    with beam.Pipeline(runner=make_runner(beam_options), options=beam_options) as root:
        batches = root | beam.Create(batches, reshuffle=bool(args))
        if read_counts is not None:
            options["read_counts"] = root | "Counts" >> beam.Create(read_counts)
        directory = output if isinstance(output, LockedDirectory) else str(output)
        batches | WriteEmbeddings(directory, **options)


@pytest.fixture
def out(tmp_path):
    write_spec(unlocked(tmp_path / "out"), SPEC)
    return tmp_path / "out"


@pytest.mark.parametrize("args", [(), ("--direct_num_workers=3", "--direct_running_mode=multi_threading")])
def test_batches_become_one_wave(out, args):
    run(out, BATCHES, *args)
    (manifest,) = read_manifests(str(out))
    assert (manifest.wave, manifest.embedded, manifest.failed, manifest.inputs) == ("00000", 12, 4, ())
    assert read_rows(out).keys() == {f"{i}{j}".encode() for i in range(4) for j in range(3)}
    report = verify(str(out))
    assert (report.rows, report.failures, report.problems, report.strays) == (12, 4, (), ())


def test_what_is_written_and_what_the_manifest_says(out):
    header = make_header(unlocked(out), "00042", inputs=[entry("a")], key_feature="id")
    run(out, formats=("parquet",), header=header, spec=SPEC)
    (manifest,) = read_manifests(str(out))
    assert (manifest.wave, manifest.key_feature) == ("00042", "id")
    assert list(read_entries(str(out), manifest)) == [entry("a", keys="feature")]
    path = out / manifest.outputs[0].path
    assert path.name == "embeddings-00042-00000-of-00001.parquet"
    assert pq.read_metadata(path).metadata[b"spec.json"] == to_json(SPEC)
    assert pq.read_table(path)["event_timestamp"][0].as_py() <= manifest.committed


def test_nothing_is_a_wave_too(out):
    run(out, [])
    assert read_manifests(str(out))[0].embedded == 0


def test_a_second_pipeline_adds_a_wave(out):
    run(out)
    run(out)
    assert [manifest.wave for manifest in read_manifests(str(out))] == ["00000", "00001"]
    assert verify(str(out)).superseded == 12


def test_a_second_pipeline_does_not_overwrite_the_first(out):
    run(out)
    before = contents(out)
    header = WaveHeader("00000", datetime.datetime.now(datetime.UTC), {})
    with pytest.raises(WorkerError, match=r"has a wave 00000 already.*give the new one another name") as raised:
        run(out, header=header)
    assert type(cause_of(raised.value)) is OutputError
    assert {name: data for name, data in contents(out).items() if not name.startswith("staging")} == before


def test_a_spec_makes_a_data_set_of_a_new_directory(tmp_path):
    run(tmp_path / "new", spec=SPEC)
    assert metadata.read_spec(str(tmp_path / "new")) == SPEC
    assert verify(str(tmp_path / "new")).problems == ()


def test_vectors_of_another_kind_are_refused_before_anything_runs(out):
    before = contents(out)
    with pytest.raises(OutputError, match=r"vectors of another kind \(normalization: none, now l2\)"):
        run(out, spec=dataclasses.replace(SPEC, normalization="l2"))
    assert contents(out) == before
    run(out, spec=dataclasses.replace(SPEC, module="elsewhere"))
    assert metadata.read_spec(str(out)) == SPEC


def test_nothing_is_left_in_the_staging_directory(tmp_path):
    run(tmp_path / "new", spec=SPEC)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "embeddings",
        "failures",
        "manifests",
        "schema.pbtxt",
        "spec.json",
    ]


def test_lost_records_commit_nothing(out):
    run(out, read_counts=[7, 9])
    before = contents(out)
    for counts in ([7, 8], [16, 1], []):
        message = rf"wave 00001: {sum(counts)} records were read, but 12 embedded and 4 failed"
        with pytest.raises(WorkerError, match=message) as raised:
            run(out, read_counts=counts)
        assert type(cause_of(raised.value)) is IntegrityError
        assert {name: data for name, data in contents(out).items() if not name.startswith("staging")} == before


def test_a_run_that_lost_its_lock_commits_nothing(out):
    with DatasetLock(str(out)) as robbed, DatasetLock(str(out), steal=True) as thief:
        with pytest.raises(WorkerError, match="was taken over by process") as raised:
            run(robbed)
        assert type(cause_of(raised.value)) is OutputError
        run(thief)
        (manifest,) = read_manifests(str(out))
        assert manifest.embedded == 12
    assert verify(str(out)).strays == ()


def test_a_bundle_ends_soon_after_its_run_lost_the_lock(out, monkeypatch):
    monkeypatch.setattr(write, "LOCK_CHECK_S", 0)
    lock = DatasetLock(str(out))
    with lock as directory:
        stage = _StageFn(directory, "00000", make_sinks(["tfrecord"]), SinkSettings("none", b"{}"))
        stage.start_bundle()
        stage.process(BATCHES[0])
    with pytest.raises(WorkerError, match="was taken over and released while this run went on") as raised:
        stage.process(BATCHES[1])
    assert type(cause_of(raised.value)) is OutputError


def test_a_disk_that_fails_commits_nothing(out, monkeypatch):
    create = filesystem.create
    calls = 0

    def full(path):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return create(path)

    monkeypatch.setattr(filesystem, "create", full)
    with pytest.raises(Exception, match="No space left on device"):
        run(out)
    assert read_manifests(str(out)) == ()
    assert not (out / "embeddings").exists()


def test_a_bundle_that_another_step_failed_leaves_no_file_open(out):
    write = _StageFn(unlocked(out), "00000", make_sinks(["parquet"]), SinkSettings("none", b"{}"))
    for end in (write.start_bundle, write.teardown):
        write.start_bundle()
        write.process(BATCHES[0])
        writer = write._writer
        end()
        assert writer is not write._writer
        assert writer.close().shards == ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"formats": "parquet"}, "got formats='parquet'; expected a tuple of names or sinks"),
        ({"formats": ()}, "no output format was given; expected some of tfrecord, parquet"),
        ({"formats": ("csv",)}, "--output_format='csv' is unknown; expected one of tfrecord, parquet"),
        ({"compression": "zip"}, "got compression='zip'; expected one of ('none', 'gzip')"),
    ],
)
def test_formats_that_do_not_exist_are_refused_at_once(options, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        WriteEmbeddings("out", **options)
