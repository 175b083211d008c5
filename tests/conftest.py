import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pipeline.core.quiet import import_tensorflow
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.signatures import choose_signature
from pipeline.testing import write_tiny_module
from tests.gcs_emulator import GcsEmulator, gcs_emulator
from tests.hub.server import Server, serve
from tests.odd_modules import write_odd_module
from tests.web_server import WebServer

# How long an example takes says more about the machine than about the test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server without any pages yet."""
    with WebServer().running() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of modules for all tests, in which each module is made and converted once."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("TFHUB_CACHE_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def tiny_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TF2 SavedModel; `pipeline.testing.tiny_vectors` says what it computes."""
    import_tensorflow()
    directory = tmp_path_factory.mktemp("modules") / "tiny_tf2"
    write_tiny_module(directory, format="tf2")
    return directory


@pytest.fixture(scope="session")
def tiny_tf1_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in the TF1 Hub format."""
    import_tensorflow()
    directory = tmp_path_factory.mktemp("modules") / "tiny_tf1"
    write_tiny_module(directory, format="tf1_hub")
    return directory


@pytest.fixture(scope="session")
def convolutions(module_cache: Path) -> str:
    """The directory of a small MobileNetV2, whose arithmetic is that of real modules."""
    return resolve_module("untrained:mobilenet_v2_035_96").path


@pytest.fixture(scope="session")
def convolution_engine(convolutions: str) -> Callable[[str], Engine]:
    """Returns the engine of a name that has loaded `convolutions`; each is loaded once."""
    module = resolve_module(convolutions)
    signature = choose_signature(module)
    return functools.cache(
        lambda name: ModuleFunction(module.handle, module.path, module.sha256, signature, name).load()
    )


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsEmulator]:
    """Google Cloud Storage on 127.0.0.1 with one empty bucket, `gs://bucket`."""
    with gcs_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def odd_module(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of the module of `tests.odd_modules`."""
    return str(write_odd_module(tmp_path_factory.mktemp("odd modules")))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    for _ in serve(made.http):
        yield made
