"""A module's function as an OpenVINO model, converted once and kept in the module cache.

The launcher stages its conversion for workers on other machines. A worker with the same OpenVINO and a processor with
the same features copies it to its own cache; so it needs no TensorFlow.

```
CACHE/openvino-<SHA-256 of the identity>/module/
    model.xml, model.bin    the network in OpenVINO's format, float32, input [batch_size, height, width, 3]
    probe.npy               the reference's vectors of `probe_images`, if the module's format has a reference
    chain-<SHA-256>.npy     the reference's vectors of other images, by the digest of the images
    identity.txt            of the conversion
```

The reference is the framework that the module is made for: TensorFlow, or ONNX Runtime if it is installed. Only the
first run of a module loads it. The identity of a conversion is the module, its function and the versions of OpenVINO
and of the reference.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.core.timing import timed
from pipeline.engines.base import ModuleFunction
from pipeline.engines.batches import in_batches
from pipeline.engines.parity import plain_pixels, probe_images
from pipeline.hub.cache import CacheEntry, ModuleCache, cache_directory
from pipeline.hub.staging import fetch_staged, stage_directory
from pipeline.model_formats.openvino_package import ADVICE, OpenVINOError, import_openvino, one_line, openvino_errors
from pipeline.model_formats.registry import MODEL_FORMATS, SAVED_MODEL_FORMATS
from pipeline.savedmodel.signatures import ImageSignature

_log = logging.getLogger(__name__)

_VERSION = 2
_MODEL, _PROBE, _IDENTITY = "model.xml", "probe.npy", "identity.txt"


def advice(function: ModuleFunction) -> str:
    """Returns the end of an `OpenVINOError` about a function."""
    return ADVICE if function.format in SAVED_MODEL_FORMATS else ""


class ConvertedModule:
    """A module's function in OpenVINO's format on this machine.

    Attributes:
      model: path of the model file.
      reference: the reference's vectors of `probe_images`, float32 [N, D]; None if there is no reference.
      library: name and version of the reference.
    """

    def __init__(self, directory: Path, identity: str, library: str) -> None:
        """Reads a directory of converted files.

        Args:
          directory: an entry of the cache.
          identity: of the expected conversion.
          library: name and version of the reference.

        Raises:
          ModuleError: the directory is another conversion.
        """
        found = (directory / _IDENTITY).read_text(encoding="utf-8")
        if found != identity:
            raise ModuleError(f"{directory} is the conversion {found}; expected {identity}")
        self.model = directory / _MODEL
        self.library = library
        self._directory = directory
        self.reference: NDArray[np.float32] | None = None
        if (directory / _PROBE).exists():
            self.reference = np.load(directory / _PROBE)

    def reference_of(self, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Returns the reference's vectors of some images, float32 [N, D]; None if they are not in the directory."""
        path = self._directory / _chain_name(images)
        return np.load(path) if path.exists() else None


def _chain_name(images: NDArray[np.float32]) -> str:
    return f"chain-{hashlib.sha256(images.tobytes()).hexdigest()}.npy"


@dataclass(frozen=True)
class Converter:
    """The versions of the libraries that convert a module; empty if not installed.

    Attributes:
      openvino: version of OpenVINO.
      library: name of the package of the reference; empty if the module's format has none.
      reference: its version.
    """

    openvino: str
    library: str
    reference: str

    @classmethod
    def here(cls, module_format: str) -> Converter:
        """Returns the versions that are installed.

        Args:
          module_format: `Module.format` of the module to convert.
        """
        reference = MODEL_FORMATS[module_format].reference
        library = reference.package if reference else ""
        return cls(_installed_version("openvino"), library, _installed_version(library) if library else "")

    @property
    def title(self) -> str:
        """Name and version of the reference, such as `tensorflow 2.21.0`."""
        return f"{self.library} {self.reference}"

    def identity(self, function: ModuleFunction) -> str:
        """Returns what the conversion of a function by these libraries depends on: module, function, versions."""
        signature = function.signature
        return repr(
            (
                _VERSION,
                function.sha256,
                (signature.signature, signature.input_key, signature.output_key, signature.height, signature.width),
                signature.pooling,
                [("openvino", self.openvino), (self.library, self.reference)],
            )
        )


def _installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def processor_features() -> tuple[str, ...]:
    """Returns the processor's architecture and the features for which OpenVINO compiles; its vectors depend on them."""
    features = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return (platform.machine(), *sorted(features))


@dataclass(frozen=True)
class StagedConversion:
    """The launcher's conversion of a function, where workers can read it.

    Attributes:
      path: directory of the copy.
      sha256: digest of its files.
      converter: the launcher's.
      processor: features of the launcher's processor.
    """

    path: str
    sha256: str
    converter: Converter
    processor: tuple[str, ...]

    def difference(self) -> str:
        """Returns the reason why this process cannot use the conversion; empty if it can."""
        here = _installed_version("openvino")
        if here != self.converter.openvino:
            return f"OpenVINO is {here or 'missing'} here and {self.converter.openvino} on the launcher"
        features = processor_features()
        if features != self.processor:
            return f"the processor has {', '.join(features)} here and {', '.join(self.processor)} on the launcher"
        return ""

    def fetch(self, function: ModuleFunction) -> ConvertedModule:
        """Returns the conversion from the cache of this machine; copies it there if it is missing.

        Raises:
          ModuleError: the copy cannot be read, has another digest, or is the conversion of another function.
          CacheError: the cache cannot be written.
        """

        def copy(work: Path) -> Path:
            return fetch_staged(self.path, work / "model")

        identity = self.converter.identity(function)
        entry = _cache().get(self.path, (identity,), copy, self.sha256)
        return ConvertedModule(Path(entry.path), identity, self.converter.title)


def stage_conversion(function: ModuleFunction, location: str) -> StagedConversion:
    """Copies the conversion of a function, which the cache of this machine has, to where workers can read it.

    Args:
      function: whose OpenVINO engine was loaded here.
      location: a directory that this process can write and workers can read.

    Raises:
      ModuleError: the function must be converted again, and cannot be.
      UsageError: the location cannot be written.
    """
    entry = _convert_once(function)
    path = stage_directory(entry.path, entry.sha256, location, folder="converted", root_file=_MODEL)
    return StagedConversion(path, entry.sha256, Converter.here(function.format), processor_features())


def converted(function: ModuleFunction) -> ConvertedModule:
    """Returns a module's function in OpenVINO's format: from the cache, from the launcher, or newly converted.

    Raises:
      ModuleError: the module cannot be loaded, or its output is not a vector; or it must be converted here, and
        TensorFlow is not installed.
      OpenVINOError: OpenVINO cannot convert the module.
      CacheError: the cache cannot be written.
    """
    staged, difference = function.conversion, ""
    if staged is not None:
        difference = staged.difference()
        if not difference:
            return staged.fetch(function)
        _log.warning("this worker converts the module itself, because %s", difference)
    converter = Converter.here(function.format)
    try:
        return ConvertedModule(Path(_convert_once(function).path), converter.identity(function), converter.title)
    except ImportError as error:
        reason = f", because {difference}," if difference else ""
        raise ModuleError(
            f"module {function.handle} must be converted on this machine{reason} and cannot be: {error}; install the "
            "packages of requirements.lock"
        ) from error


def _convert_once(function: ModuleFunction) -> CacheEntry:
    """Returns the entry of a conversion by this machine's libraries; converts the function if it is missing."""
    identity = Converter.here(function.format).identity(function)

    def make(work: Path) -> Path:
        (work / "model").mkdir()
        (work / "model" / _IDENTITY).write_text(identity, encoding="utf-8")
        with timed("of that, converting it for OpenVINO"):
            convert(function, work / "model")
        return work / "model"

    return _cache().get(function.path, (identity,), make, None)


def _cache() -> ModuleCache:
    return ModuleCache(cache_directory(), kind="openvino", root_file=_MODEL)


def convert(function: ModuleFunction, directory: Path) -> None:
    """Writes a module's function in OpenVINO's format, and the reference's vectors of the probe images.

    Raises:
      ModuleError: the module cannot be loaded, or its output is not a vector.
      OpenVINOError: OpenVINO cannot convert the module.
    """
    signature = function.signature
    network = MODEL_FORMATS[function.format].load(function.local_directory(), function.model_file, signature)
    openvino = import_openvino()
    try:
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            model = network.openvino_model(Path(scratch))
            openvino.save_model(model, directory / _MODEL, compress_to_fp16=False)
    except openvino_errors(openvino) as error:
        text = f"OpenVINO cannot convert signature '{signature.signature}' of {function.path}: {one_line(error)}"
        raise OpenVINOError(text + advice(function)) from error
    if network.has_reference:
        probes = probe_images(signature.height, signature.width)
        try:
            reference = in_batches(network.reference_vectors, probes, call_size(signature))
        except ModuleError as error:
            if function.format in SAVED_MODEL_FORMATS:
                raise
            # The reference is optional there, and may know less than OpenVINO.
            _log.warning("the vectors of %s cannot be compared: %s", function.path, error)
            return
        check_vectors(reference, len(probes))
        np.save(directory / _PROBE, reference)
        chain = plain_pixels(signature.height, signature.width)
        np.save(directory / _chain_name(chain), in_batches(network.reference_vectors, chain, call_size(signature)))


def call_size(signature: ImageSignature) -> int:
    """Returns the number of images in each call of a conversion: one, unless the module wants another number."""
    return signature.fixed_batch_size or 1


def check_vectors(vectors: NDArray[np.float32], images: int) -> None:
    """Checks that an output is one vector for each image.

    Raises:
      ModuleError: it is not.
    """
    if vectors.ndim != 2 or len(vectors) != images:
        raise ModuleError(
            f"the output for {images} images has shape {list(vectors.shape)}; expected one vector an image; choose "
            "another --output_key or say --pooling"
        )
