import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.conversion import OpenVINOError, converted
from pipeline.engines.parity import probe_images
from pipeline.hub.cache import CacheError
from pipeline.testing import tiny_vectors
from tests.engines.conftest import function_of


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_reference_is_what_the_module_computes(tiny_module):
    module = converted(function_of(tiny_module))
    assert module.model.is_file()
    np.testing.assert_allclose(module.reference, tiny_vectors(probe_images(32, 32)), rtol=1e-5, atol=1e-6)


def test_both_formats_are_converted(tiny_module, tiny_tf1_module):
    first, second = (converted(function_of(path)) for path in (tiny_module, tiny_tf1_module))
    assert first.model != second.model
    np.testing.assert_allclose(first.reference, second.reference, rtol=1e-6)


def test_what_is_converted_once_is_loaded_without_tensorflow(tiny_module):
    spec = function_of(tiny_module)
    converted(spec)
    code = f"""
import sys
from pipeline.engines.base import ModuleFunction
from pipeline.savedmodel.module import ImageSignature
{spec!r}.compile()
print("tensorflow" in sys.modules)
"""
    assert run_python(code) == "False"


def test_a_damaged_conversion_is_made_anew(tiny_module):
    model = converted(function_of(tiny_module)).model
    model.write_bytes(model.read_bytes()[:-10])
    assert converted(function_of(tiny_module)).model.read_bytes().endswith(b"</net>\n")


def test_importing_openvino_tells_nobody_and_writes_nothing(tmp_path):
    code = """
import socket, sys
def refuse(*_):
    raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pipeline.engines.conversion import import_openvino
core = import_openvino().Core()
print([name for name in sys.modules if "telemetry" in name and sys.modules[name] and "stub" not in name])
"""
    names = run_python(code, HOME=str(tmp_path))
    assert "openvino_telemetry" not in names
    assert list(tmp_path.iterdir()) == []


def test_operations_that_openvino_lacks_are_named(write_module):
    import tensorflow as tf

    directory = write_module(lambda images: tf.math.lgamma(1 + images[:, 0, :8, 0]))
    expected = (
        f"OpenVINO cannot convert signature 'serving_default' of {directory}: .*: Lgamma; use --engine=tensorflow"
    )
    with pytest.raises(OpenVINOError, match=f"^{expected}$"):
        converted(function_of(directory))


def test_a_cache_that_cannot_be_written_is_told(tiny_module, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(CacheError, match=re.escape(f"cannot be stored in the cache directory {tmp_path / 'file'}")):
        converted(function_of(tiny_module))


def test_nothing_but_the_model_and_the_reference_is_kept(tiny_module):
    directory = Path(converted(function_of(tiny_module)).model).parent
    assert sorted(path.name for path in directory.iterdir()) == ["model.bin", "model.xml", "probe.npy"]
