"""Tasks, as the tests write them."""

from pipeline.inputs.base import InputFile, ReadTask


def record_task(file: InputFile, ranges=None, aligned=True) -> ReadTask:
    """Returns the task that reads a TFRecord file, or ranges of it."""
    return ReadTask("tfrecord", (file,), ranges, aligned)


def image_task(files) -> ReadTask:
    """Returns the task that reads image files."""
    return ReadTask("images", tuple(files))
