import io
import threading
import time

import pytest

from pipeline.core.settings import InputConfig
from pipeline.inputs import image_files
from pipeline.inputs.base import UNKNOWN_BYTES, InputFile, ReadSettings, TaskPart
from pipeline.inputs.tasks import read_part
from pipeline.storage import filesystem
from tests.inputs.tasks import image_task

BUDGET_BYTES = 1000


@pytest.fixture(autouse=True)
def budget(monkeypatch):
    monkeypatch.setattr(image_files, "REMOTE_BYTES", BUDGET_BYTES)


class Store:
    """A remote store of files whose names begin with their sizes; lists the requested images not yet taken."""

    def __init__(self, monkeypatch, before_read=lambda: time.sleep(0.001)):
        self._lock = threading.Lock()
        self._before_read = before_read
        self.under_way = []
        self.most = []
        monkeypatch.setattr(filesystem, "is_remote", lambda path: True)
        monkeypatch.setattr(filesystem, "open_read", self._open)

    def _open(self, path):
        with self._lock:
            self.under_way.append(size_of(path))
            self.most.append(tuple(self.under_way))
        self._before_read()
        return io.BytesIO(bytes(size_of(path)))

    def read(self, files, max_image_bytes=10 * BUDGET_BYTES):
        """Yields the items of the files, and takes them one by one."""
        part = TaskPart(image_task(files), 0, len(files))
        settings = ReadSettings(InputConfig(("unused",)), max_image_bytes)
        for item in read_part(part, lambda _: True, settings):
            with self._lock:
                self.under_way.remove(size_of(item.source))
            yield item


def size_of(path):
    return int(path.rpartition("/")[2].partition("-")[0])


def remote_files(*sizes, known=True):
    paths = [f"gs://bucket/{size}-{index}" for index, size in enumerate(sizes)]
    return tuple(
        InputFile(path, path, "images", size if known else 0, 0.0) for path, size in zip(paths, sizes, strict=True)
    )


def test_requests_stay_within_the_budget_and_in_order(monkeypatch):
    store = Store(monkeypatch)
    files = remote_files(*[10, 990, 300, 400, 500, 1, 2000, 1, 1, 1000, 5000, 5000, 600, 600] * 8)
    found = list(store.read(files))
    assert [item.source for item in found] == [file.path for file in files]
    assert [len(item.image) for item in found] == [file.size_bytes for file in files]
    assert all(sum(sizes) <= BUDGET_BYTES or len(sizes) == 1 for sizes in store.most)


def test_images_that_were_read_but_not_taken_count(monkeypatch):
    store = Store(monkeypatch)
    items = store.read(remote_files(*[400] * 6))
    next(items)
    time.sleep(0.05)
    assert len(store.most) == 2  # the first image counts until the next one is wanted


@pytest.mark.parametrize(("size", "together"), [(250, 4), (1, image_files.REMOTE_READERS)])
def test_requests_run_at_the_same_time_up_to_the_budget(monkeypatch, size, together):
    barrier = threading.Barrier(together)
    store = Store(monkeypatch, lambda: barrier.wait(timeout=60))
    assert len(list(store.read(remote_files(*[size] * together)))) == together


def test_a_file_of_unknown_size_counts_as_the_assumed_size(monkeypatch):
    monkeypatch.setattr(image_files, "REMOTE_BYTES", 3 * UNKNOWN_BYTES)
    store = Store(monkeypatch)
    list(store.read(remote_files(*[7] * 20, known=False), max_image_bytes=2 * UNKNOWN_BYTES))
    assert max(map(len, store.most)) <= 3


def test_a_file_over_the_limit_counts_as_the_limit(monkeypatch):
    barrier = threading.Barrier(2)
    store = Store(monkeypatch, lambda: barrier.wait(timeout=60))
    found = list(store.read(remote_files(5000, 5000), max_image_bytes=BUDGET_BYTES // 2))
    assert [item.reason for item in found] == ["too_large"] * 2
