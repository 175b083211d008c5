"""OpenVINO's intermediate representation: a file `*.xml` with the graph, and a `*.bin` of the same name with weights.

The format is described at https://docs.openvino.ai, "OpenVINO IR format"; versions 10 and 11 are read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from xml.etree import ElementTree

from pipeline.core.errors import ModuleError
from pipeline.model_formats.base import Reference, find_one
from pipeline.model_formats.image_graph import FUNCTION, read_function, with_channels
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo
from pipeline.savedmodel.safety import UnsafeOperation
from pipeline.savedmodel.signatures import ImageSignature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DTYPE = re.compile(r"(fp?|bf|i|u)(\d+)")
_DTYPE_NAMES = {"f": "float", "fp": "float", "bf": "bfloat", "i": "int", "u": "uint"}
_OWN_OPERATIONS = re.compile(r"opset\d+")


class OpenVinoIr:
    """The `ModuleFormat` of OpenVINO's IR."""

    title: ClassVar[str] = "an OpenVINO model"
    reference: ClassVar[Reference | None] = None

    def find(self, names: Collection[str]) -> str | None:
        """See `ModuleFormat`; an XML file without weights beside it may be anything."""
        weights = {name.lower() for name in names}
        models = [name for name in names if f"{name.lower().removesuffix('.xml')}.bin" in weights]
        return find_one(models, ".xml", ("model.xml", "openvino_model.xml"), "openvino")

    def companions(self, path: Path) -> tuple[str, ...]:
        """See `ModuleFormat`; the weights."""
        return (path.with_suffix(".bin").name,)

    def read(self, directory: str, model_file: str, *, handle: str, sha256: str) -> Module:
        """See `ModuleFormat`."""
        path = Path(directory, model_file)
        net = _parse(path)
        return Module(
            handle=handle,
            path=directory,
            sha256=sha256,
            format="openvino_ir",
            tag_sets=(),
            signatures={FUNCTION: SignatureInfo(with_channels(_by_key(_inputs(net))), _by_key(_outputs(net)))},
            image_size=None,
            unsafe_operations=_unsafe_operations(net),
            model_file=model_file,
        )

    def load(self, directory: str, model_file: str, signature: ImageSignature) -> IrNetwork:
        """See `ModuleFormat`."""
        return IrNetwork(Path(directory, model_file), signature)


class IrNetwork:
    """The `Network` of OpenVINO's IR, which no other framework computes."""

    has_reference = False

    def __init__(self, path: Path, signature: ImageSignature) -> None:
        self._path = path
        self._signature = signature

    def openvino_model(self, scratch: Path) -> Any:
        """See `Network`."""
        return read_function(self._path, self._signature)

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network`."""
        raise NotImplementedError("there is no reference")


def _parse(path: Path) -> ElementTree.Element:
    try:
        net = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise ModuleError(f"{path} cannot be read: {error.strerror}") from None
    except ElementTree.ParseError as error:
        raise ModuleError(f"{path} is not an OpenVINO model, or it is damaged: {error}; fetch it again") from None
    if net.tag != "net" or net.find("layers") is None:
        raise ModuleError(f"{path} is not an OpenVINO model: its first element is <{net.tag}>, expected <net>")
    return net


def _kind(layer: ElementTree.Element) -> str:
    return layer.get("type", "")


def _layers(net: ElementTree.Element, kind: str) -> Iterator[ElementTree.Element]:
    """Yields the layers of a kind of the network itself, not of the bodies of its loops."""
    return (layer for layer in net.findall("layers/layer") if _kind(layer) == kind)


def _by_key(infos: Iterator[TensorInfo]) -> dict[str, TensorInfo]:
    return {info.key: info for info in infos}


def _inputs(net: ElementTree.Element) -> Iterator[TensorInfo]:
    for layer in _layers(net, "Parameter"):
        data, port = layer.find("data"), layer.find("output/port")
        dtype = "" if data is None else data.get("element_type", "")
        yield TensorInfo(_name(layer, port), _dtype(dtype), _shape(port))


def _outputs(net: ElementTree.Element) -> Iterator[TensorInfo]:
    ports = {
        (layer.get("id"), port.get("id")): (layer, port)
        for layer in net.findall("layers/layer")
        for port in layer.findall("output/port")
    }
    sources = {
        edge.get("to-layer"): (edge.get("from-layer"), edge.get("from-port")) for edge in net.findall("edges/edge")
    }
    for result in _layers(net, "Result"):
        source = ports.get(sources.get(result.get("id"), (None, None)))
        if source is not None:
            layer, port = source
            yield TensorInfo(_name(layer, port), _dtype(port.get("precision", "")), _shape(port))


def _name(layer: ElementTree.Element, port: ElementTree.Element | None) -> str:
    """Returns the first name of a tensor; a tensor without one has that of its layer."""
    names = "" if port is None else port.get("names", "")
    # A comma within a name is escaped.
    first = re.split(r"(?<!\\),", names)[0].replace("\\,", ",")
    return first or layer.get("name", "")


def _dtype(name: str) -> str:
    """Returns the data type of an attribute such as `f32` or `FP32`, as TensorFlow calls it."""
    match = _DTYPE.fullmatch(name.lower())
    return f"{_DTYPE_NAMES[match[1]]}{match[2]}" if match else name.lower() or "unknown type"


def _shape(port: ElementTree.Element | None) -> tuple[int | None, ...] | None:
    if port is None:
        return None
    lengths = [int(dim.text or -1) for dim in port.findall("dim")]
    return tuple(length if length > 0 else None for length in lengths)


def _unsafe_operations(net: ElementTree.Element) -> tuple[UnsafeOperation, ...]:
    """Returns the operations that are in none of OpenVINO's own sets: they need a library of native code."""
    found: dict[str, set[str]] = {}
    for layer in net.iter("layer"):
        opset = layer.get("version", "")
        if not _OWN_OPERATIONS.fullmatch(opset):
            found.setdefault(f"{opset}.{_kind(layer)}", set()).add(layer.get("name", ""))
    return tuple(UnsafeOperation(name, "libraries", tuple(sorted(nodes))) for name, nodes in sorted(found.items()))
