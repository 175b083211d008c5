from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.base import EngineSpec
from pipeline.hub.cache import module_digest
from pipeline.hub.handles import resolve
from pipeline.hub.module import choose_signature, read_module
from pipeline.quiet import import_tensorflow


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gives these tests a cache of modules of their own, so that each is converted once."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("TFHUB_CACHE_DIR", str(directory))
        yield directory


def engine_spec(directory: Path | str, name: str = "openvino", **options: Any) -> EngineSpec:
    signature = choose_signature(read_module(str(directory)))
    return EngineSpec(name, str(directory), module_digest(directory), signature, **options)


@pytest.fixture(scope="session")
def convolutions(cache: Path) -> str:
    """The directory of a small MobileNetV2, whose arithmetic is that of real modules."""
    return resolve("untrained:mobilenet_v2_035_96").path


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
