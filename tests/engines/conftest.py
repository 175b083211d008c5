from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.quiet import import_tensorflow
from pipeline.engines.base import ModuleFunction
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import choose_signature


def function_of(
    directory: Path | str, engine: str = "openvino", *, signature_name: str | None = None, **options: Any
) -> ModuleFunction:
    signature = choose_signature(read_module(str(directory)), signature=signature_name)
    path = str(directory)
    return ModuleFunction(path, path, module_digest(path), signature, engine, **options)


@pytest.fixture
def write_module(tmp_path: Path) -> Callable[[Callable[[Any], Any]], Path]:
    """Writes a module of one function of float32 images [N, 32, 32, 3]; returns its directory."""

    def write(function: Callable[[Any], Any]) -> Path:
        import_tensorflow()
        import tensorflow as tf

        def serve(images: Any) -> dict[str, Any]:
            return {"default": function(images)}

        module = tf.Module()
        spec = tf.TensorSpec([None, 32, 32, 3], tf.float32, name="images")
        signature = tf.function(serve, autograph=False, input_signature=[spec])
        tf.saved_model.save(module, str(tmp_path / "module"), signatures={"serving_default": signature})
        return tmp_path / "module"

    return write
