import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.engines import conversion
from pipeline.engines.conversion import converted, processor_features
from pipeline.engines.parity import probe_images
from pipeline.engines.staging import stage_function
from pipeline.hub.cache import CacheError
from pipeline.model_formats.openvino_package import OpenVINOError
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
from pipeline.savedmodel.signatures import ImageSignature
{spec!r}.load()
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
from pipeline.model_formats.openvino_package import import_openvino
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


def test_nothing_but_the_model_the_references_and_the_identity_is_kept(tiny_module):
    directory = Path(converted(function_of(tiny_module)).model).parent
    names = sorted(path.name for path in directory.iterdir())
    assert [name.partition("-")[0] for name in names] == [
        "chain",
        "identity.txt",
        "model.bin",
        "model.xml",
        "probe.npy",
    ]


@pytest.fixture
def staged(tiny_module, tmp_path, monkeypatch):
    """A function as a worker receives it; the worker's cache is empty."""
    function = function_of(tiny_module)
    converted(function)
    staged = stage_function(function, str(tmp_path / "temp"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return staged


def refuse(*args):
    raise AssertionError("converted again")


def test_a_worker_takes_what_the_launcher_has_converted(staged, tiny_module, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "convert", refuse)
    assert staged.path == f"{tmp_path}/temp/modules/{staged.sha256}"
    assert staged.conversion.path == f"{tmp_path}/temp/converted/{staged.conversion.sha256}"
    assert staged.load().name == "openvino"
    (entry,) = (tmp_path / "cache").iterdir()
    assert converted(staged).model == entry / "module/model.xml"


def test_on_the_launchers_machine_the_cache_has_it_already(staged, module_cache, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(module_cache))
    monkeypatch.setattr(conversion, "fetch_staged", refuse)
    assert converted(staged).model.is_relative_to(module_cache)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"processor": ("a", "b")}, r"the processor has .* here and a, b on the launcher"),
        (
            {"converter": conversion.Converter("2000.1", "tensorflow", "2.1")},
            r"OpenVINO is \S+ here and 2000\.1 on the launcher",
        ),
    ],
)
def test_a_worker_that_differs_converts_the_module_itself(staged, changes, difference, caplog):
    other = dataclasses.replace(staged, conversion=dataclasses.replace(staged.conversion, **changes))
    np.testing.assert_array_equal(converted(other).reference, converted(staged).reference)
    (message,) = (item.getMessage() for item in caplog.records if item.name.startswith("pipeline"))
    assert re.fullmatch(f"this worker converts the module itself, because {difference}", message)


def test_another_tensorflow_makes_no_difference_to_a_worker(staged, monkeypatch):
    monkeypatch.setattr(conversion, "convert", refuse)
    versions = dataclasses.replace(staged.conversion.converter, reference="2.1")
    assert dataclasses.replace(staged.conversion, converter=versions).difference() == ""


def test_changed_files_are_refused(staged):
    model = Path(staged.conversion.path, "model.xml")
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(ModuleError, match=f"its SHA-256 is [0-9a-f]{{64}}, expected {staged.conversion.sha256}"):
        converted(staged)


def test_the_conversion_of_another_module_is_refused(staged, tiny_tf1_module):
    other = dataclasses.replace(function_of(tiny_tf1_module), conversion=staged.conversion)
    with pytest.raises(ModuleError, match=f"is the conversion .*{staged.sha256}.*; expected .*{other.sha256}"):
        converted(other)


@pytest.mark.parametrize("part", ["module", "conversion"])
def test_a_worker_that_does_not_see_the_copy(staged, part):
    shutil.rmtree(staged.conversion.path if part == "conversion" else staged.path)
    function = staged if part == "conversion" else dataclasses.replace(staged, engine="tensorflow")
    path = staged.conversion.path if part == "conversion" else staged.path
    with pytest.raises(ModuleError, match=rf"^a worker does not see {path}, to which the launcher copied the module;"):
        function.load()


def test_the_features_of_the_processor_are_named():
    architecture, *features = processor_features()
    assert architecture == platform.machine()
    assert "FP32" in features
