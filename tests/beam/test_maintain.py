import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipeline.beam.internals import make_direct_runner
from pipeline.beam.maintain import CheckFiles, ReadCurrent, Reports, Waves, WriteReports
from pipeline.beam.worker_errors import cause_of
from pipeline.core.errors import OutputError
from pipeline.core.json import from_json
from pipeline.dataset import reader
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.verify import FileReport
from tests.datasets import SPEC, add_wave, entry, make_batch, make_failure

FIRST = "embeddings/embeddings-00000-00000-of-00001.tfrecord"
SECOND = "embeddings/embeddings-00001-00000-of-00001.tfrecord"
FAILURES = "failures/failures-00000-00000-of-00001.jsonl"
TABLES = ("manifests/00000-inputs-00000.parquet", "manifests/00001-inputs-00000.parquet")


def fill(output, **options):
    """Two waves, of which the second has a newer `b` and read failure `x` again."""
    first = make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}, [make_failure("x"), make_failure("y")])
    add_wave(output, "00000", first, inputs=tuple(map(entry, "abxy")), **options)
    second = make_batch({"b": [2, 0, 0], "x": [2, 0, 0]})
    add_wave(output, "00001", second, inputs=(entry("b", size_bytes=11), entry("x", size_bytes=11)), **options)


def waves_of(output):
    return Waves.of(str(output), read_manifests(str(output)), ("tfrecord",))


@pytest.mark.parametrize("options", [{}, {"key_feature": "id"}])
def test_each_file_has_a_report(tmp_path, options):
    fill(tmp_path, **options)
    assert waves_of(tmp_path).needs_keys == bool(options)
    # With keys of a feature, the new version of input x supersedes its failure, and key b supersedes key b.
    expected = [
        FileReport(FIRST, (), current=1, superseded=1),
        FileReport(SECOND, (), current=2),
        FileReport(FAILURES, (), current=1, superseded=1),
        *map(FileReport, TABLES),
    ]
    with beam.Pipeline(runner=make_direct_runner()) as pipeline:
        assert_that(pipeline | CheckFiles(waves_of(tmp_path), SPEC), equal_to(expected))


@pytest.mark.parametrize("options", [{}, {"key_feature": "id"}])
@pytest.mark.parametrize("name", [FIRST, TABLES[0]])
def test_nothing_counts_where_a_table_is_damaged_or_keys_are_missing(tmp_path, name, options):
    fill(tmp_path, **options)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-5])

    def check(reports):
        assert {report.path for report in reports if report.problems} == {name}
        if name != FIRST or options:
            assert all((report.current, report.superseded) == (0, 0) for report in reports)

    with beam.Pipeline(runner=make_direct_runner()) as pipeline:
        assert_that(pipeline | CheckFiles(waves_of(tmp_path), SPEC), check)


def test_reports_become_one_file(tmp_path):
    reports = [FileReport("a", ("a: \udcff",), 1, 2), FileReport("b")]
    path = tmp_path / "temp/reports.json"
    with beam.Pipeline(runner=make_direct_runner()) as pipeline:
        pipeline | beam.Create(reports) | WriteReports(str(path))
    assert sorted(from_json(Reports, path.read_bytes()).reports, key=lambda report: report.path) == reports


@pytest.mark.parametrize("options", [{}, {"key_feature": "id"}])
def test_current_rows_and_failures_with_their_number(tmp_path, options):
    fill(tmp_path, **options)

    def check(batches):
        rows = [row for batch in batches for part in batch.rows for row in part.to_pylist()]
        assert sorted((row["key"], row["embedding"][0]) for row in rows) == [(b"a", 1), (b"b", 2), (b"x", 2)]
        assert [failure.key for batch in batches for failure in batch.failures] == [b"y"]

    with beam.Pipeline(runner=make_direct_runner()) as pipeline:
        read = pipeline | ReadCurrent(waves_of(tmp_path))
        assert_that(read.records, check, label="rows")
        assert_that(read.counts | beam.CombineGlobally(sum), equal_to([4]), label="count")


@pytest.mark.parametrize("options", [{}, {"key_feature": "id"}])
def test_a_damaged_shard_is_not_read_as_if_it_were_empty(tmp_path, options):
    fill(tmp_path, **options)
    (tmp_path / FIRST).write_bytes((tmp_path / FIRST).read_bytes()[:-5])
    with (
        pytest.raises(Exception, match="cannot be read") as caught,
        beam.Pipeline(runner=make_direct_runner()) as pipeline,
    ):
        pipeline | ReadCurrent(waves_of(tmp_path))
    assert isinstance(cause_of(caught.value), OutputError)


def test_keys_that_cannot_be_read_for_a_time_are_not_taken_for_none(tmp_path, monkeypatch):
    fill(tmp_path, key_feature="id")
    read, calls = reader.read_shard, []

    def fail_once(path, *args):
        calls.append(path)
        if len(calls) == 1:
            raise OutputError(f"{path} cannot be read: the network is gone")
        return read(path, *args)

    monkeypatch.setattr(reader, "read_shard", fail_once)
    pipeline = beam.Pipeline(runner=make_direct_runner())
    pipeline | CheckFiles(waves_of(tmp_path), SPEC)
    with pytest.raises(Exception, match="the network is gone") as caught:
        pipeline.run()
    assert isinstance(cause_of(caught.value), OutputError)
