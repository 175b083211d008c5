"""The benchmark of images at web addresses."""

import http.client

from benchmarks import urls
from benchmarks.measure import Measurement, Round


def test_images_are_served_in_turns(tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    with urls.serving([b"one", b"two"], 0.0, tmp_path) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        found = []
        for number in (0, 1, 2, 21):
            connection.request("GET", f"/{number}.jpg")
            found.append(connection.getresponse().read())
        connection.close()
    assert found == [b"one", b"two", b"one", b"two"]


def test_ratios_are_taken_within_a_round():
    def rounds(*speeds):
        return [
            Round(Measurement(0, 1.0, 0.0, 100.0, 0.0), Measurement(1000, 1 + 1000 / speed, 2.0, 100.0, 0.5))
            for speed in speeds
        ]

    table = urls.format_table({urls.PIPELINE: rounds(100, 400), urls.BASELINE: rounds(50, 100)})
    assert table.splitlines()[2] == "| pipeline | 250 | 3.00 | 188 | 2.53 | 2.00 | 100 | 0.5 |"
    assert urls.format_table({urls.PIPELINE: rounds(100)}).splitlines()[2].startswith("| pipeline | 100 |  | ")
