"""Reads a module on disk: its signatures, the image size it expects, and its network as a frozen graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import DecodeError

from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow_hub
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.digest import SAVED_MODEL, module_digest
from pipeline.savedmodel.messages import dtype_name, parse_saved_model
from pipeline.savedmodel.safety import UnsafeOperation, find_unsafe_operations
from pipeline.savedmodel.tensorflow_internals import freeze_variables

PREFERRED_SIGNATURES = ("image_feature_vector", "default", "serving_default")
"""The signatures that are tried, in this order, where none is named."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
      key: its name within the signature.
      dtype: the name of its data type, such as `float32`.
      shape: its dimensions, None for an unknown one; or None where the rank is unknown.
    """

    key: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dims = "unknown shape" if self.shape is None else ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.key}: {self.dtype}[{dims}]"


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    """The inputs and outputs of a signature, by key."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Module:
    """A module on disk.

    Attributes:
      handle: what the user calls the module.
      path: the directory that holds the module's files.
      sha256: the module's digest, 64 lower-case hexadecimal digits; see `module_digest`.
      format: `tf1_hub` (a directory with `tfhub_module.pb`), `tf2` (any other SavedModel), `onnx` or `openvino_ir`.
      tag_sets: the tags of each graph version; the empty set is `()`.
      signatures: the signatures of the graph version for inference, by name.
      image_size: height and width in pixels from the attachment `image_module_info`, or None.
      unsafe_operations: the kinds of operations in any graph version that reach files, processes or the network.
      model_file: the file that says what the module is, relative to `path`, with `/`.
    """

    handle: str
    path: str
    sha256: str
    format: Literal["tf1_hub", "tf2", "onnx", "openvino_ir"]
    tag_sets: tuple[tuple[str, ...], ...]
    signatures: Mapping[str, SignatureInfo]
    image_size: tuple[int, int] | None
    unsafe_operations: tuple[UnsafeOperation, ...] = ()
    model_file: str = SAVED_MODEL


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """The one function of a module that a run calls: images in, vectors out.

    Attributes:
      signature: its name.
      input_key: the input that takes float32 images [N, height, width, 3] in [0, 1].
      output_key: the output that gives float32 vectors [N, dimension].
      height: expected height of the images, in pixels.
      width: expected width of the images, in pixels.
      dimension: length of a vector, or None where the module does not say.
    """

    signature: str
    input_key: str
    output_key: str
    height: int
    width: int
    dimension: int | None


@dataclass(slots=True)
class TraceCounter:
    """Counts the times that TensorFlow runs a function's Python code to make a graph of it."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class FrozenGraph:
    """A network whose variables are constants.

    Attributes:
      function: the TensorFlow function: float32 [N, H, W, 3] in, a list of one float32 [N, D] out.
      input_name: the name of the graph's placeholder, such as `images`.
      output_name: the name of the graph's result tensor, such as `Identity:0`.
      traces: counts how many times TensorFlow has traced the function.
    """

    function: Any
    input_name: str
    output_name: str
    traces: TraceCounter


def read_module(path: str, *, handle: str | None = None, sha256: str | None = None) -> Module:
    """Reads the module in a directory, without building its graphs.

    Args:
      path: the directory.
      handle: what the user calls the module; default: the path.
      sha256: the module's digest; computed by default, which reads all files.

    Raises:
      ModuleError: the directory holds no SavedModel, or one that cannot be read.
    """
    try:
        saved_model = parse_saved_model((Path(path) / SAVED_MODEL).read_bytes())
    except OSError as error:
        raise ModuleError(f"{path} is not a module: saved_model.pb cannot be read: {error.strerror}") from None
    except DecodeError:
        raise ModuleError(f"{path} is not a module: its saved_model.pb is damaged; fetch it again") from None
    is_hub = hub_format.is_hub_module(path)
    wanted = set() if is_hub else {"serve"}
    by_tags = {frozenset(graph.meta_info_def.tags): graph for graph in saved_model.meta_graphs}
    graph = by_tags.get(frozenset(wanted))
    tag_sets = tuple(tuple(graph.meta_info_def.tags) for graph in saved_model.meta_graphs)
    if graph is None:
        found = ", ".join("[" + ", ".join(tags) + "]" for tags in tag_sets) or "none"
        raise ModuleError(f"{path} has no graph with tags {sorted(wanted)}; its graphs have the tags {found}")
    return Module(
        handle=handle or path,
        path=path,
        sha256=sha256 or module_digest(path),
        format="tf1_hub" if is_hub else "tf2",
        tag_sets=tag_sets,
        signatures={
            name: SignatureInfo(_tensor_infos(signature.inputs), _tensor_infos(signature.outputs))
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        image_size=hub_format.read_image_size(graph),
        unsafe_operations=find_unsafe_operations(saved_model.meta_graphs),
    )


def _tensor_infos(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    infos = {}
    for key, tensor in sorted(tensors.items()):
        shape = tensor.tensor_shape
        dims = None if shape.unknown_rank else tuple(None if d.size < 0 else int(d.size) for d in shape.dim)
        infos[key] = TensorInfo(key, dtype_name(tensor.dtype), dims)
    return infos


def choose_signature(
    module: Module,
    *,
    signature: str | None = None,
    output_key: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> ImageSignature:
    """Returns the function of a module to call; what is not named is found out.

    The image size is that of the attachment `image_module_info`, else that of the signature's input,
    else `image_size` (height, width), which must not contradict the input's shape.

    Raises:
      ModuleError: there is no such signature or output, it takes no images or gives no vectors, or
        the image size is unknown or contradicts the module.
    """
    name = _choose_name(module, signature)
    chosen = module.signatures[name]
    images = _image_input(name, chosen)
    output = _vector_output(name, chosen, output_key)
    height, width = _image_size(name, images, module.image_size, image_size)
    dimension = output.shape[-1] if output.shape else None
    return ImageSignature(name, images.key, output.key, height, width, dimension)


def _choose_name(module: Module, signature: str | None) -> str:
    candidates = (signature,) if signature else PREFERRED_SIGNATURES
    for name in candidates:
        if name in module.signatures:
            return name
    wanted = f"no signature '{signature}'" if signature else f"none of the signatures {', '.join(PREFERRED_SIGNATURES)}"
    found = ", ".join(module.signatures) or "none"
    raise ModuleError(f"the module has {wanted}; it has: {found}; name one with --signature")


def _image_input(name: str, signature: SignatureInfo) -> TensorInfo:
    inputs = signature.inputs
    images = inputs.get("images") or (next(iter(inputs.values())) if len(inputs) == 1 else None)
    takes_images = (
        images is not None
        and len(inputs) == 1
        and images.dtype == "float32"
        and (images.shape is None or (len(images.shape) == 4 and images.shape[3] in (3, None)))
    )
    if images is None or not takes_images:
        found = "; ".join(map(str, inputs.values())) or "no inputs"
        raise ModuleError(
            f"signature '{name}' takes no images: it takes {found}; expected one input float32[?,height,width,3]"
        )
    return images


def _vector_output(name: str, signature: SignatureInfo, output_key: str | None) -> TensorInfo:
    outputs = signature.outputs
    found = ", ".join(outputs)
    if output_key is not None and output_key not in outputs:
        raise ModuleError(f"signature '{name}' has no output '{output_key}'; choose --output_key from: {found}")
    if not outputs:
        raise ModuleError(f"signature '{name}' has no outputs; choose another --signature")
    if output_key is None and "default" not in outputs and len(outputs) != 1:
        raise ModuleError(
            f"signature '{name}' has several outputs and none is 'default'; choose --output_key from: {found}"
        )
    output = outputs[output_key or ("default" if "default" in outputs else found)]
    if output.dtype != "float32" or (output.shape is not None and len(output.shape) != 2):
        raise ModuleError(f"signature '{name}' gives no vectors: {output}; expected an output float32[?,dimension]")
    return output


def _image_size(
    name: str, images: TensorInfo, attached: tuple[int, int] | None, asked: tuple[int, int] | None
) -> tuple[int, int]:
    height, width = images.shape[1:3] if images.shape else (None, None)
    size = attached or (asked if asked and None in (height, width) else None) or (height, width)
    if size[0] is None or size[1] is None:
        raise ModuleError(f"the module does not say what image size signature '{name}' takes; give --image_size=H,W")
    takes = (height or size[0], width or size[1]) if attached is None else attached
    if asked and tuple(asked) != tuple(takes):
        raise ModuleError(
            f"--image_size={asked[0]},{asked[1]} contradicts the module, "
            f"which takes {takes[0]},{takes[1]}; leave it out"
        )
    return size[0], size[1]


def freeze(path: str, chosen: ImageSignature, batch_size: int | None = None) -> FrozenGraph:
    """Loads a module and returns its chosen function with all variables turned into constants.

    Args:
      path: the module's directory.
      chosen: the function to freeze.
      batch_size: the fixed number of images N of a call, or None for any number.

    Raises:
      ModuleError: the module cannot be loaded, or its function cannot be frozen.
    """
    hub = import_tensorflow_hub()
    import tensorflow as tf

    tags = [] if hub_format.is_hub_module(path) else ["serve"]
    traces = TraceCounter()
    shape = [batch_size, chosen.height, chosen.width, 3]
    try:
        module = hub.load(path, tags=tags)
        signature = module.signatures[chosen.signature]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="images")], autograph=False)
        def vectors(images: Any) -> Any:
            traces.count += 1
            return signature(**{chosen.input_key: images})[chosen.output_key]

        function = freeze_variables(vectors.get_concrete_function())
    except Exception as error:  # TensorFlow raises whatever its reading of damaged files trips over.
        text = " ".join(str(error).split())[:300]
        raise ModuleError(
            f"{path} cannot be loaded: {type(error).__name__}: {text}; is the module complete?"
        ) from error
    return FrozenGraph(function, function.inputs[0].op.name, function.outputs[0].name, traces)
