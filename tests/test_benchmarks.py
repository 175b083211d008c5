import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import commits, data, fidelity, planning, run, scale, waves
from benchmarks.measure import Measurement
from benchmarks.run import Round, format_table, summarize
from pipeline.images.decoder import ImageDecoder
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


def test_planning_finds_what_is_new_done_and_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "match", listing.match)  # the benchmark replaces it
    results = [planning.run_case(case, 2500, str(tmp_path)) for case in planning.CASES]
    assert results == ["1 waves", "1 commits", "0 waves, 2500 done before", "1 waves, 2475 done before"]
