import math
import re
import webbrowser

import pytest

from pipeline.commands import neighbours, report
from pipeline.dataset.reader import read_embeddings
from pipeline.dataset.verify import verify
from tests.datasets import add_wave, complete, make_batch
from tests.report.pages import HOSTILE, make_dataset


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("report"), ["a.jpg", "b.jpg", "c.jpg", HOSTILE])


def test_the_page_lies_in_the_data_set_which_stays_complete(output, capsys):
    assert report.main([str(output)]) == 0
    line = rf"{output}/report.html: 4 vectors, 4 thumbnails, \d\.\d MB; open it in a browser\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    page = (output / "report.html").read_text("utf-8")
    assert "<script>window" not in page
    assert "onerror='" not in page
    assert complete(output)
    assert verify(str(output)).rows == 4


def test_a_page_elsewhere_and_without_thumbnails(output, tmp_path, capsys):
    path = tmp_path / "pages/page.html"
    assert report.main([str(output), f"--output={path}", "--thumbnails=0"]) == 0
    assert "4 vectors, 0 thumbnails" in capsys.readouterr().out
    assert "data:image/webp;base64,U" not in path.read_text("utf-8")
    assert "No image of this data set could be read again, or thumbnails were switched off." in path.read_text("utf-8")


def test_a_data_set_without_vectors_and_one_with_a_single_vector(tmp_path, capsys):
    add_wave(tmp_path / "none", "00000", make_batch({}))
    add_wave(tmp_path / "one", "00000", make_batch({"a": [1, 2, 3]}))
    assert report.main([str(tmp_path / "none")]) == 0
    assert "No record of this data set has a vector." in (tmp_path / "none/report.html").read_text("utf-8")
    assert report.main([str(tmp_path / "one")]) == 0
    assert "A single vector has no neighbours." in (tmp_path / "one/report.html").read_text("utf-8")


def test_a_sample_is_said_to_be_one(tmp_path):
    from pipeline.report.report import ReportSettings, write_report

    add_wave(tmp_path, "00000", make_batch({f"{key}": [key, 1, 0] for key in range(30)}))
    written = write_report(str(tmp_path), ReportSettings(max_vectors=10))
    assert (written.vectors, written.total) == (10, 30)
    text = " ".join((tmp_path / "report.html").read_text("utf-8").split())
    assert "This page compares a sample: 10 of the 30 vectors, chosen with seed 0." in text


def test_mistakes_are_one_line(output, tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no data set: it has no spec.json")
    assert report.main([str(output), "--thumbnails=-1"]) == 2
    assert capsys.readouterr().err == "error: --thumbnails=-1: expected megabytes from 0 to 1000\n"
    assert neighbours.main([str(output), "a.jpg", "--output=x.html"]) == 2
    assert capsys.readouterr().err == "error: --output=x.html names the page of --html; add --html\n"


def test_neighbours_are_printed_and_shown(output, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert neighbours.main([str(output), "a.jpg", "--count=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines] == ["b.jpg", "c.jpg"]
    cosine, distance = (float(lines[0].split()[column]) for column in (1, 3))
    angle = (1 / 3) ** 1.5
    assert cosine == pytest.approx(math.cos(angle), abs=1e-3)
    assert distance == pytest.approx(2 * math.sin(angle / 2), abs=1e-3)
    assert opened == []
    path = tmp_path / "found.html"
    assert neighbours.main([str(output), "a.jpg", "--html", f"--output={path}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert opened == [path.as_uri()]
    assert "Similar to a.jpg" in path.read_text("utf-8")


def test_a_terminal_gets_no_control_characters(tmp_path, capsys):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], b"\x1b[31m\xff\n": [1, 1, 0]}))
    assert sum(rows.num_rows for rows in read_embeddings(tmp_path)) == 2
    assert neighbours.main([str(tmp_path), "a"]) == 0
    assert capsys.readouterr().out.split()[-1] == r"\x1b[31m\xff\n"
