import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import clusters, commits, data, fidelity, inputs, planning, presets, reading, run, scale, waves
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.measure import Measurement, Round
from benchmarks.report import format_table, summarize
from benchmarks.vectors import Difference, WrongOutput, compare_vectors, read_vectors
from pipeline.core.settings import InputConfig
from pipeline.images.decoder import ImageDecoder
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import make_tasks, read_tasks
from pipeline.storage import listing
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord


def measurement(images, seconds, cpu_s=1.0, peak_mib=100.0):
    return Measurement(images, seconds, cpu_s, peak_mib, 0.0)


def test_sustained_speed_is_the_slope_and_the_rest_is_start_up():
    item = Round(measurement(500, 7.0, cpu_s=4), measurement(2500, 17.0, cpu_s=14))
    assert item.images_per_second == 200
    assert item.startup_s == pytest.approx(4.5)
    assert item.cpu_s_per_1000 == 5
    assert math.isnan(Round(measurement(500, 7.0), measurement(2500, 6.0)).images_per_second)


def test_ratios_are_taken_within_a_round():
    def rounds(*speeds):
        return [Round(measurement(0, 0.0), measurement(1000, 1000 / speed)) for speed in speeds]

    rows = summarize(
        {"limit": rounds(100, 400, 200), "pipeline": rounds(90, 380, 200), "Beam RunInference": rounds(50, 100, 40)}
    )
    pipeline = rows[1]
    assert pipeline["images_per_second"] == pytest.approx(200)
    assert pipeline["of_limit"] == pytest.approx(0.95)
    assert pipeline["of_run_inference"] == pytest.approx(3.8)
    assert "| pipeline | 200 (90-380) | 0.95 | 3.80 |" in format_table(rows)


def test_a_ratio_with_nobody_is_left_empty():
    rows = summarize({"tf.data": [Round(measurement(0, 0.0), measurement(10, 1.0))]})
    assert rows[0]["of_limit"] is None
    assert "| tf.data | 10 (10-10) |  |  |" in format_table(rows)


def test_a_round_that_says_nothing_does_not_count():
    odd = Round(measurement(10, 2.0), measurement(20, 1.0))
    good = Round(measurement(10, 1.0), measurement(20, 2.0))
    both, none = summarize({"limit": [odd, good, good], "tf.data": [odd, odd, odd]})
    assert (both["images_per_second"], both["slowest"], both["of_limit"]) == (10, 10, 1)
    assert none["images_per_second"] is None
    assert "| tf.data |  (-) |  |  |  |" in format_table([none])


def test_what_waves_cost_is_told_as_the_median_of_the_rounds():
    ones = [measurement(100, 10.0, cpu_s=20.0)] * 3
    many = [measurement(100, seconds, cpu_s=cpu) for seconds, cpu in ((10.2, 21.0), (14.0, 22.0), (10.4, 20.0))]
    table = waves.format_table([waves.Round(*pair) for pair in zip(ones, many, strict=True)])
    assert table.splitlines()[-1] == "| | | **1.040** | | | **1.050** | |"


def test_generated_images_are_photo_like():
    images = data.generate_images(3)
    assert len(set(images)) == 3
    for image in images:
        assert 50_000 < len(image) < 250_000
        assert ImageDecoder(height=32, width=32)(image).std() > 0.05


def test_images_are_repeated_under_other_keys(tmp_path):
    paths = data.write_tfrecords([b"a", b"b", b"c"], 8, tmp_path / "records", files=3)
    assert len(paths) == 3
    assert data.read_images(paths) == [b"a", b"b", b"c", b"a", b"b", b"c", b"a", b"b"]
    directory = data.write_files([b"a", b"b"], 3, tmp_path / "files")
    assert data.read_images([directory]) == [b"a", b"b", b"a"]
    assert Path(directory, "00000002.jpg").samefile(Path(directory, "00000000.jpg"))


def test_parquet_files_hold_the_same_images_under_the_same_keys(tmp_path):
    paths = data.write_parquet([b"a", b"b", b"c"], 8, tmp_path / "tables", files=3)
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert [row["id"] for row in rows] == [f"{number:08d}" for number in range(8)]
    assert b"".join(row["image"] for row in rows) == b"abcabcab"


def write_vectors(directory, keys, vectors, *, form):
    if form == "parquet":
        table = pa.table({"key": keys, "embedding": pa.array([list(row) for row in vectors], pa.list_(pa.float32()))})
        pq.write_table(table, directory / "part-0.parquet")
    else:
        rows = [make_example({"key": key, "embedding": row.tolist()}) for key, row in zip(keys, vectors, strict=True)]
        (directory / "vectors-0.tfrecord").write_bytes(make_tfrecord(rows))


@pytest.mark.parametrize("form", ["parquet", "tfrecord"])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_vectors_of_a_peer_are_read_by_key(form, suffix, tmp_path):
    vectors = np.array([[1.5, 2.5], [3.5, 4.5]], np.float32)
    write_vectors(tmp_path, [f"00000001{suffix}", f"00000000{suffix}"], vectors, form=form)
    (tmp_path / "_SUCCESS").touch()
    found = read_vectors(tmp_path, 2)
    assert {key: vector.tolist() for key, vector in found.items()} == {"00000001": [1.5, 2.5], "00000000": [3.5, 4.5]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["00000000"], "1 vectors were written for 2 images; 1 keys are missing"),
        (["00000000", "00000000"], "2 vectors were written for 2 images; 1 keys are missing"),
        (["00000000", "00000001", "00000001"], "3 vectors were written for 2 images; 0 keys are missing"),
    ],
)
def test_a_peer_that_loses_or_repeats_images_is_found(keys, message, tmp_path):
    write_vectors(tmp_path, keys, np.ones((len(keys), 2), np.float32), form="parquet")
    with pytest.raises(WrongOutput, match=message):
        read_vectors(tmp_path, 2)


def test_vectors_are_compared_by_key():
    reference = {"a": np.array([3, 4]), "b": np.array([0, 1]), "c": np.array([1, 0])}
    same = compare_vectors(dict(reversed(reference.items())), reference)
    assert same == Difference(0, 0)
    moved = compare_vectors({**reference, "a": np.array([3, 9])}, reference)
    assert moved == Difference(0, 1)


def test_the_table_has_the_difference_and_the_version_of_a_peer():
    rounds = [Round(measurement(0, 0.0), measurement(10, 1.0))]
    rows = summarize({"tf.data": rounds}, {"tf.data": Difference(0.2, 0.5)})
    version = next(item for item in CONTENDERS if item.label == "tf.data").version()
    assert format_table(rows).endswith(f"| 2.0e-01 (5.0e-01) | tensorflow {version} |")


def test_a_peer_that_is_not_installed_is_left_out_in_one_line(capsys):
    missing = Contender("Nobody", "nobody", package="no-such-library", extra="benchmark-nobody")
    present = Contender("tf.data", "tfdata", package="tensorflow")
    assert run.installed([missing, present]) == [present]
    expected = "Nobody: left out: no-such-library is not installed: pip install -e '.[benchmark-nobody]'\n"
    assert capsys.readouterr().err == expected


def test_fidelity_of_vectors():
    reference = np.eye(4, dtype=np.float32) + np.array([[0.3], [0.2], [0.1], [0.0]], np.float32)
    same = fidelity.compare(reference, reference)
    assert (same.median, same.largest, same.nearest_kept, same.first_kept) == (0, 0, 1, 1)
    scaled = fidelity.compare(reference * 2, reference)
    assert scaled.median == pytest.approx(1)
    assert (scaled.nearest_kept, scaled.first_kept) == (1, 1)
    moved = fidelity.compare(reference[:, ::-1], reference)
    assert moved.first_kept == 0


@pytest.mark.parametrize("args", [["--small=5", "--large=5"], ["--only=nobody"]])
def test_nonsense_is_refused(args, capsys):
    assert run.main(args) == 2
    assert "unknown labels" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmarks_run_and_report(tmp_path, tiny_module, capsys):
    examples = [make_example({"image/encoded": jpeg_bytes(seed=i), "id": str(i)}) for i in range(3)]
    (tmp_path / "photos.tfrecord").write_bytes(make_tfrecord(examples))
    common = [f"--input={tmp_path / 'photos.tfrecord'}", f"--module={tiny_module}", f"--output={tmp_path / 'out'}"]
    labels = ("limit", "pipeline", "tf.data, frozen")
    assert run.main([*common, "--small=4", "--large=200", "--rounds=1", *(f"--only={label}" for label in labels)]) == 0
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [row["label"] for row in report["rows"]] == list(labels)
    assert all(row["peak_mib"] > 50 for row in report["rows"])
    assert (tmp_path / "out" / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert scale.main([*common, "--sizes", "3", "9"]) == 0
    assert [row["images"] for row in json.loads((tmp_path / "out" / "scale.json").read_text())["rows"]] == [3, 9]
    assert scale.main([*common, "--image_files", "--sizes", "7"]) == 0
    assert [row["images"] for row in json.loads((tmp_path / "out" / "scale.json").read_text())["rows"]] == [7]
    assert waves.main([*common, "--images=6", "--waves=3", "--rounds=1"]) == 0
    assert len(json.loads((tmp_path / "out" / "waves.json").read_text())["rounds"]) == 1
    assert "| limit | " in capsys.readouterr().out


def test_a_comparison_of_commits_without_a_speed_has_no_ratio():
    odd = Round(measurement(10, 2.0), measurement(20, 1.0))
    good = Round(measurement(10, 1.0), measurement(20, 2.0))
    table = commits.format_table("exact", [commits.Pair(odd, good)])
    assert table.splitlines()[2].endswith("| no value |")
    table = commits.format_table("exact", [commits.Pair(good, good)] * 3)
    assert table.splitlines()[2] == "| images/s | 10 | 10 | 1.000 (1.000-1.000) |"


@pytest.mark.slow
def test_two_commits_are_compared(tmp_path, tiny_module, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    (tmp_path / "photos.tfrecord").write_bytes(
        make_tfrecord([make_example({"image/encoded": jpeg_bytes(), "id": "a"})])
    )
    flags = ["HEAD", f"--input={tmp_path / 'photos.tfrecord'}", f"--module={tiny_module}", f"--output={tmp_path}"]
    assert commits.main([*flags, "--images=600", "--rounds=1", "--mode=exact"]) == 0
    table = capsys.readouterr().out
    assert [line.split(" |")[0] for line in table.splitlines()[2:-1]] == [f"| {name}" for name in commits.FIGURES]
    (pair,) = json.loads((tmp_path / "commits.json").read_text())["exact"]
    assert {pair[name]["large"]["images"] for name in ("before", "now")} == {600}


@pytest.mark.slow
def test_presets_are_compared_with_the_plain_one(tmp_path, tiny_module, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    (tmp_path / "photos.tfrecord").write_bytes(
        make_tfrecord([make_example({"image/encoded": jpeg_bytes(), "id": "a"})])
    )
    flags = [f"--input={tmp_path / 'photos.tfrecord'}", f"--module={tiny_module}", f"--output={tmp_path}"]
    assert presets.main([*flags, "--images=300", "--rounds=1", "--preset=clip"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" |")[0] for line in table[2:]] == ["| hub", "| clip"]
    assert json.loads((tmp_path / "presets.json").read_text())["clip"][0]["large"]["images"] == 300


def test_planning_finds_what_is_new_done_and_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "match", listing.match)  # the benchmark replaces it
    results = [planning.run_case(case, 2500, str(tmp_path)) for case in planning.CASES]
    assert results == ["1 waves", "1 commits", "0 waves, 2500 done before", "1 waves, 2475 done before"]


def jobs(first_row_s, *, small_s, large_s):
    sizes = ((500, small_s), (4500, large_s))
    return clusters.Round(*(clusters.Job(images, seconds, first_row_s, 1.0) for images, seconds in sizes))


def test_the_cost_of_an_engine_is_relative_to_the_direct_runner_of_the_same_round():
    table = clusters.format_table(
        {
            ("direct", 1): [jobs(2.0, small_s=2.5, large_s=6.5)],
            ("direct", 2): [jobs(4.0, small_s=3.0, large_s=5.0)],
            ("flink", 1): [jobs(9.0, small_s=10.0, large_s=18.0)],
            ("flink", 2): [jobs(9.5, small_s=11.0, large_s=15.0)],
        }
    )
    assert table.splitlines()[2:] == [
        "| direct | 1 | 1000 (1000-1000) | 1.00 | 2.0 | 2.0 |",
        "| direct | 2 | 2000 (2000-2000) | 1.00 | 4.0 | 2.8 |",
        "| flink | 1 | 500 (500-500) | 0.50 | 9.0 | 9.0 |",
        "| flink | 2 | 1000 (1000-1000) | 0.50 | 9.5 | 10.5 |",
    ]


def test_an_engine_without_a_speed_leaves_its_cells_empty():
    table = clusters.format_table({("prism", 1): [jobs(math.nan, small_s=5.0, large_s=5.0)]})
    assert table.splitlines()[2:] == ["| prism | 1 |  |  |  |  |"]


def test_a_cluster_that_does_not_start_is_left_out_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "cluster.sh").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "scripts" / "cluster.sh").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    case = clusters.Case("flink", 2, ())
    assert clusters.run_rounds([case], {1: (), 2: ()}, 2, tmp_path) == {}
    error = capsys.readouterr().err
    assert error.startswith("flink, 2 SDK workers: left out: scripts/cluster.sh flink up failed: ")
    assert error.count("\n") == 1


def test_the_first_row_is_seen_in_the_staging_directory_and_after_the_commit(tmp_path):
    assert not clusters.has_rows(tmp_path / "missing")
    staged = tmp_path / "staging" / "token" / "wave"
    staged.mkdir(parents=True)
    (staged / "failures-1").touch()
    assert not clusters.has_rows(tmp_path)
    (staged / "embeddings-1").touch()
    assert clusters.has_rows(tmp_path)
    os.renames(staged / "embeddings-1", tmp_path / "embeddings" / "embeddings-wave-00000-of-00001.tfrecord")
    assert clusters.has_rows(tmp_path)


def test_a_failed_job_ends_in_the_last_line_of_its_log(tmp_path):
    with pytest.raises(clusters.JobError, match="exit code 2: error: no input"):
        clusters.run_job([], 10, tmp_path / "out")


@pytest.mark.parametrize("args", [["--small=5", "--images=5"], ["--rounds=0"]])
def test_a_comparison_of_engines_without_a_slope_is_refused(args, capsys):
    assert clusters.main(args) == 2
    assert "expected 0 < --small < --images" in capsys.readouterr().err


@pytest.mark.slow
def test_engines_are_compared(tmp_path, tiny_module, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    (tmp_path / "photos.tfrecord").write_bytes(
        make_tfrecord([make_example({"image/encoded": jpeg_bytes(), "id": "a"})])
    )
    flags = [f"--input={tmp_path / 'photos.tfrecord'}", f"--module={tiny_module}", f"--output={tmp_path / 'out'}"]
    assert clusters.main([*flags, "--engine=direct", "--small=4", "--images=600", "--rounds=1"]) == 0
    assert "| direct | 2 | " in capsys.readouterr().out
    cases = json.loads((tmp_path / "out" / "clusters.json").read_text())["cases"]
    assert [case["workers"] for case in cases] == [1, 2]
    for job in (case["rounds"][0]["large"] for case in cases):
        assert job["images"] == 600
        assert 0 < job["first_row_s"] < job["seconds"]


def test_the_same_images_as_tars(tmp_path):
    paths = data.write_tars([b"a", b"b"], 5, tmp_path / "tars", files=2)
    settings = ReadSettings(InputConfig(paths, key_feature="txt"))
    records = list(read_tasks(make_tasks(find_inputs(settings.config)), settings))
    assert sorted((record.key, record.image) for record in records) == [
        (f"{number:08d}".encode(), b"ab"[number % 2 : number % 2 + 1]) for number in range(5)
    ]


def test_kinds_of_inputs_are_compared_with_tfrecords():
    def rounds(*speeds):
        return [Round(measurement(0, 0.0), measurement(1000, 1000 / speed)) for speed in speeds]

    table = inputs.format_speeds({"TFRecord": rounds(100, 400), "tar": rounds(99, 388)})
    assert table.splitlines()[-1] == "| tar | 244 | 0.98 | 0.00 | 100 |"
    memory = inputs.format_memory({"tar": (measurement(10, 1.0), measurement(1000, 9.0, peak_mib=101.0))})
    assert memory.splitlines()[-1] == "| tar | 10 | 100 | 1000 | 101 | 1.01 |"


def test_large_files_are_one_file_with_one_row_group(tmp_path):
    images = [jpeg_bytes(seed=seed) for seed in range(3)]
    count = inputs.write_large(images, "parquet", 20_000, tmp_path)
    (path,) = (tmp_path / f"parquet-{count}").iterdir()
    assert pq.read_metadata(path).num_row_groups == 1
    assert 10_000 < path.stat().st_size < 30_000
    count = inputs.write_large(images, "tar", 20_000, tmp_path)
    assert len(list((tmp_path / f"tar-{count}").iterdir())) == 1


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
def test_the_data_set_of_the_reading_benchmark(tmp_path, file_format):
    reading.write_dataset(str(tmp_path), file_format, rows=2000, dimension=4)
    found = reading.read(str(tmp_path), "key,label")
    assert found.rows == 2000
    assert found.peak_mib >= found.start_mib > 0
