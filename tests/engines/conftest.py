from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.quiet import import_tensorflow
from pipeline.core.settings import Pooling
from pipeline.engines.base import ModuleFunction
from pipeline.model_formats.registry import read_module
from pipeline.savedmodel.signatures import choose_signature


def function_of(
    directory: Path | str,
    engine: str = "openvino",
    *,
    signature_name: str | None = None,
    output_key: str | None = None,
    pooling: Pooling | None = None,
    **options: Any,
) -> ModuleFunction:
    module = read_module(str(directory))
    signature = choose_signature(module, signature=signature_name, output_key=output_key, pooling=pooling)
    made_of = {"format": module.format, "model_file": module.model_file}
    return ModuleFunction(module.path, module.path, module.sha256, signature, engine, **made_of, **options)


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
