import re
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.inputs.base import InputFile
from pipeline.inputs.tasks import check_visible
from tests.inputs.tasks import image_task, record_task


def image_files(*paths, mtime_s=1.0):
    return image_task(tuple(InputFile(str(path), Path(path).name, "images", 3, mtime_s) for path in paths))


def refused(directory):
    text = (
        f"a worker does not see the directory {directory}, in which the launcher found inputs; expected the same paths "
        "on all machines: mount the directory where the workers run, or use a store such as gs://"
    )
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


def test_a_directory_that_is_missing_or_empty_is_not_seen(tmp_path):
    task = image_files(tmp_path / "mount/a.jpg", tmp_path / "mount/b.jpg")
    with refused(tmp_path / "mount"):
        check_visible(task)
    (tmp_path / "mount").mkdir()  # as a mount point on which nothing is mounted
    with refused(tmp_path / "mount"):
        check_visible(task)
    with refused(tmp_path / "mount"):
        check_visible(record_task(InputFile(f"{tmp_path}/mount/a.tfrecord", "a.tfrecord", "tfrecord", 3, 1.0)))


def test_missing_files_beside_others_are_failure_records(tmp_path):
    (tmp_path / "b.jpg").touch()
    check_visible(image_files(tmp_path / "a.jpg"))
    check_visible(image_files(tmp_path / "gone/a.jpg", tmp_path / "b.jpg"))


def test_files_that_the_launcher_did_not_see_are_failure_records(tmp_path):
    check_visible(image_files(tmp_path / "gone/a.jpg", mtime_s=0.0))


def test_files_in_a_store_are_not_looked_up():
    check_visible(image_files("gs://no-such-bucket/a.jpg"))
