import importlib.metadata
import json

import pytest

from pipeline.core.errors import TooManyFailures
from pipeline.job.summary import VERSIONED_PACKAGES, package_versions
from tests.datasets import embed, read_rows


def test_too_many_failures_keep_what_was_embedded(photos, out, tiny_module):
    (photos / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(
        TooManyFailures, match=r"1 of 6 records failed \(1 not_an_image\), more than --max_failure_rate=0.1"
    ):
        embed(photos, out, tiny_module, max_failure_rate=0.1)
    assert len(read_rows(out)) == 5
    assert json.loads((out / "summary.json").read_text())["failed"] == 1


def test_as_many_failures_as_the_rate_allows_are_allowed(photos, out, tiny_module):
    (photos / "bad.jpg").write_bytes(b"bad")
    assert embed(photos, out, tiny_module, max_failure_rate=1 / 6).failed == 1


def test_the_versions_are_those_of_the_installed_packages():
    assert package_versions() == {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("pipeline.job.summary.VERSIONED_PACKAGES", ("numpy", "no-such-package"))
    package_versions.cache_clear()
    try:
        assert package_versions().keys() == {"numpy"}
    finally:
        package_versions.cache_clear()
