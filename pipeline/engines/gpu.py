"""Detects a GPU that TensorFlow can use."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.quiet import import_tensorflow

# The device files of a GPU on Linux: NVIDIA, AMD, or the GPU of a Windows host.
_DEVICES = ("nvidiactl", "nvidia0", "kfd", "dxg")


def sees_gpu(devices: Path = Path("/dev")) -> bool:
    """Returns whether TensorFlow sees a GPU; does not load TensorFlow on a machine without a GPU device file.

    Args:
      devices: the directory of the device files.
    """
    if not any((devices / name).exists() for name in _DEVICES):
        return False
    import_tensorflow()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
