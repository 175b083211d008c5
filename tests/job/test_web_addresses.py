"""Runs over lists of web addresses: what is done, what is tried again, and what a preview says."""

import pytest

from pipeline.core.config import RunConfig
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import show_failure
from pipeline.job.dry_run import preview
from pipeline.testing import jpeg_bytes
from tests.datasets import complete, embed, read_rows
from tests.web_server import hang, reply

FLAGS = {"allow_private_addresses": True, "fetch_timeout": 5}


@pytest.fixture
def listed(tmp_path):
    def write(*addresses):
        (tmp_path / "all.txt").write_text("\n".join(addresses))
        return tmp_path / "all.txt"

    return write


def test_an_address_is_done_once_it_is_embedded(web, listed, out, tiny_module):
    addresses = [web.serve(f"/{index}.jpg", reply(jpeg_bytes(seed=index))) for index in range(6)]
    assert embed(listed(*addresses[:4]), out, tiny_module, **FLAGS).embedded == 4
    again = embed(listed(*addresses), out, tiny_module, **FLAGS)
    assert (again.records, again.skipped) == (2, 4)
    assert sorted(read_rows(out)) == sorted(address.encode() for address in addresses)
    assert all(web.requests[f"/{index}.jpg"] == 1 for index in range(6))
    assert complete(out)


def test_failures_are_tried_again_by_reason(web, listed, out, tiny_module):
    image = jpeg_bytes(seed=9)
    addresses = [
        web.serve("/good.jpg", reply(image)),
        web.serve("/gone.jpg", reply(status=410), reply(image)),
        web.serve("/a@5.jpg", hang, reply(image)),
        web.serve("/missing.jpg", reply(status=404)),
    ]
    source = listed(*addresses)
    first = embed(source, out, tiny_module, **{**FLAGS, "fetch_timeout": 0.3})
    assert first.failures_by_reason == {"http_404": 1, "http_410": 1, "http_timeout": 1}
    assert embed(source, out, tiny_module, retry_failed="http_503", **FLAGS).records == 0
    timeouts = embed(source, out, tiny_module, retry_failed="http_timeout", **FLAGS)
    assert (timeouts.records, timeouts.embedded, timeouts.skipped) == (1, 1, 3)
    rest = embed(source, out, tiny_module, retry_failed=True, **FLAGS)
    assert (rest.records, rest.embedded, rest.failures_by_reason) == (2, 1, {"http_404": 1})
    assert [item.source for item in read_failures(str(out))] == [addresses[3]]
    assert dict(web.requests) == {"/good.jpg": 1, "/gone.jpg": 2, "/a@5.jpg": 2, "/missing.jpg": 2}


def test_the_bytes_of_a_failure_can_be_shown(web, listed, out, tiny_module, tmp_path):
    addresses = [web.serve("/a.jpg", reply(jpeg_bytes())), web.serve("/page.jpg", reply(b"<html>"))]
    assert embed(listed(*addresses), out, tiny_module, **FLAGS).failures_by_reason == {"not_an_image": 1}
    show_failure(str(out), addresses[1], str(tmp_path / "shown"))
    assert (tmp_path / "shown").read_bytes() == b"<html>"


def test_a_preview_fetches_a_sample(web, listed, out, tiny_module):
    addresses = [web.serve(f"/{index}.jpg", reply(jpeg_bytes(seed=index))) for index in range(300)]
    flags = {"input": str(listed(*addresses)), "module": str(tiny_module), "output": str(out), "engine": "tensorflow"}
    found = preview(RunConfig.from_flags(**flags, **FLAGS, dry_run=True))
    assert (found.estimate.records, found.estimate.is_exact) == (300, True)
    assert 0 < web.requests.total() < 150
