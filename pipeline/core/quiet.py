"""Suppresses the chatter of libraries on stderr."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHATTER = re.compile(
    rb"I\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: I |WARNING: All log messages before absl|"
    rb"To enable the following instructions"
)
_NO_DRIVER = re.compile(rb".*failed call to cuInit")
_NVIDIA_DEVICE = Path("/dev/nvidiactl")


def ignore_pillow_warnings() -> None:
    """Ignores Pillow's warnings in the whole process; an `ImageError` reports each image that cannot be decoded."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def import_tensorflow() -> None:
    """Imports TensorFlow and drops its log messages of level INFO, which no setting silences.

    Other lines on stderr appear after the import.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_chatter():
        import tensorflow as tf

        tf.config.list_physical_devices()


def import_tensorflow_hub() -> Any:
    """Returns the package tensorflow_hub, imported without TensorFlow's chatter and without warnings.

    After TensorFlow, this import takes 0.7 s of CPU time, mostly for tf_keras. Importing one submodule costs the same:
    the package imports all its submodules.
    """
    import_tensorflow()
    if "tensorflow_hub" not in sys.modules:
        with _without_chatter(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package imports pkg_resources, which is deprecated and warns
            importlib.import_module("tensorflow_hub")
    return sys.modules["tensorflow_hub"]


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back the output to file descriptor 2; at the end, writes all lines except chatter."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _is_chatter(line)))


def _is_chatter(line: bytes) -> bool:
    # Without a GPU, TensorFlow reports as an error that the driver does not start.
    return bool(_CHATTER.match(line) or (_NO_DRIVER.match(line) and not _NVIDIA_DEVICE.exists()))
