"""Two runs on one data set: the first sleeps before one of its storage operations, while the second takes over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from apache_beam.io.gcp.gcsio import GcsIO

from pipeline.core.errors import OutputError
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import next_wave, read_manifests, read_spec
from pipeline.dataset.ownership import remove_remains, start_over, write_spec
from pipeline.dataset.verify import verify
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory
from tests.datasets import SPEC, add_wave, entry, make_batch, make_failure, read_rows, stage, unlocked

LOCAL = ("create", "close_durably", "rename_all", "delete", "delete_directory")
CLOUD = ("copy_batch", "delete_batch")


def write(output: str, names: str, *, overwrite: bool = False) -> None:
    """Does what a run does to a data set: commits a wave for each name."""
    with DatasetLock(output, steal=True) as directory:
        remove_remains(directory)
        if overwrite:
            start_over(directory, SPEC)
        elif read_spec(output) is None:
            write_spec(directory, SPEC)
        for name in names:
            batch = make_batch({name: [1, 2, 3]}, [make_failure(f"{name}?")])
            add_wave(directory, next_wave(read_manifests(output)), batch, inputs=[entry(name), entry(f"{name}?")])
        directory.replace("summary.json", names.encode())


def read_files(output: str) -> dict[str, bytes]:
    """Returns all files of a data set, with their contents."""
    return {stat.path: filesystem.read_bytes(stat.path) for stat in filesystem.list_files(output)}


def prepare(output: str) -> None:
    """Makes a data set of two waves, with the remains of a killed run: staged and published files of a third."""
    for wave, name in (("00000", "old"), ("00001", "new")):
        add_wave(unlocked(output), wave, make_batch({name: [1, 2, 3]}), inputs=[entry(name)])
    killed = LockedDirectory.without_lock(output)
    (bundle,) = stage(killed, make_batch({"killed": [1, 2, 3]}), make_batch({"too": [1, 2, 3]}), wave="00002")
    stage(killed, make_batch({"killed": [1, 2, 3]}), wave="00002")
    target = filesystem.join(output, "embeddings", "embeddings-00002-00000-of-00001.tfrecord")
    filesystem.rename(bundle.shards[0].path, target)


def try_to(change: Callable[[], object]) -> str:
    """Returns the message of the error that a change of a data set ends with; empty if it succeeds."""
    try:
        change()
    except OutputError as error:
        return str(error)
    return ""


class Sleeper:
    """Counts the storage operations, and calls a function before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, meanwhile: Callable[[], object]) -> None:
        self.left = number
        self._meanwhile = meanwhile
        for name in LOCAL:
            patch.setattr(filesystem, name, self._wrap(getattr(filesystem, name)))
        for name in CLOUD:
            patch.setattr(GcsIO, name, self._wrap(getattr(GcsIO, name)))

    def _wrap(self, function: Callable) -> Callable:
        def call(*args, **keywords):
            if "lock.json" not in str(args):  # changes of the lock itself keep all others out
                self.left -= 1
                if self.left == 0:
                    self._meanwhile()
            return function(*args, **keywords)

        return call


FIRST = {
    "run": lambda output: write(output, "ab"),
    "overwrite": lambda output: write(output, "ab", overwrite=True),
    "compact": compact,
}
SECOND = {
    "run": lambda output: write(output, "bc"),
    "overwrite": lambda output: write(output, "bc", overwrite=True),
    "compact": lambda output: compact(output, steal_lock=True),
}


def check_operations(make_output: Callable[[int], str], first: str, second: str, *, step: int = 1) -> int:
    """Lets the second run take over before each `step`-th operation of the first; returns how many were tried."""
    number = 1 - step
    while True:
        number += step
        output = make_output(number)
        prepare(output)
        after_second: dict[str, bytes] = {}
        rows: dict = {}

        def take_over(output: str = output, files: dict = after_second, rows: dict = rows) -> None:
            SECOND[second](output)
            staging = filesystem.join(output, "staging", "")
            files |= {path: data for path, data in read_files(output).items() if not path.startswith(staging)}
            rows |= read_rows(output)

        with pytest.MonkeyPatch.context() as patch:
            sleeper = Sleeper(patch, number, take_over)
            message = try_to(lambda output=output: FIRST[first](output))
        assert message == "" or "was taken over" in message, number
        if sleeper.left > 0:
            return number // step
        assert read_files(output) == after_second, number
        assert read_rows(output) == rows
        report = verify(output)
        assert (report.problems, report.strays) == ((), ()), number


@pytest.mark.slow
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_a_run_that_slept_harms_nothing(tmp_path, first, second):
    assert check_operations(lambda number: str(tmp_path / str(number)), first, second) > 10


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("run", "run"), ("overwrite", "run"), ("compact", "overwrite")])
def test_a_run_that_slept_harms_nothing_in_an_object_store(gcs, first, second):
    # Each takes some seconds here, so that not every operation is tried each time.
    assert check_operations(lambda number: f"gs://bucket/{first}-{second}-{number}", first, second, step=17) > 1
