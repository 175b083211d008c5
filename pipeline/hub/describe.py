"""Describes a module, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.errors import ModuleError, UsageError
from pipeline.core.settings import ModuleConfig, PreprocessConfig
from pipeline.hub.named_transform import NamedTransform
from pipeline.hub.preprocess import Context, choose_transform, size_of_transform
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import Module, TensorInfo
from pipeline.savedmodel.safety import list_operations
from pipeline.savedmodel.signatures import ImageSignature, choose_signature

_BY_DEFAULT = PreprocessConfig()
_FORMAT_NAMES = {"tf1_hub": "TF1 Hub", "tf2": "TF2 SavedModel", "onnx": "ONNX", "openvino_ir": "OpenVINO IR"}


@dataclass(frozen=True, slots=True)
class Description:
    """A module, and the function of it that computes embeddings.

    Attributes:
      module: the module.
      embedding: the function that `pipeline.run` would call; None if the module computes no embeddings of images.
      obstacle: why there is no `embedding`; empty if there is one.
      preprocess: the transform that `pipeline.run` would use; None if there is no `embedding`, the transform is
        unknown, or the function takes encoded images.
      doubt: why the transform is unknown; empty if it is known.
    """

    module: Module
    embedding: ImageSignature | None
    obstacle: str
    preprocess: NamedTransform | None = None
    doubt: str = ""

    def to_json(self) -> str:
        """Returns the description as a JSON object of several lines; unknown dimensions are null."""
        module, embedding = self.module, self.embedding
        return json.dumps(
            {
                "handle": module.handle,
                "path": module.path,
                "sha256": module.sha256,
                "format": module.format,
                "tag_sets": module.tag_sets,
                "image_size": (embedding.height, embedding.width) if embedding else module.image_size,
                "embedding": dataclasses.asdict(embedding) if embedding else None,
                "obstacle": self.obstacle or None,
                "preprocess": dataclasses.asdict(self.preprocess.transform) if self.preprocess else None,
                "preprocess_source": self.preprocess.source if self.preprocess else self.doubt or None,
                "unsafe_operations": [dataclasses.asdict(operation) for operation in module.unsafe_operations],
                "signatures": {
                    name: {"inputs": _as_dict(signature.inputs), "outputs": _as_dict(signature.outputs)}
                    for name, signature in module.signatures.items()
                },
            },
            indent=2,
        )

    def __str__(self) -> str:
        module = self.module
        lines = [
            f"module      {module.handle}",
            f"files       {module.path}",
            f"sha256      {module.sha256}",
            f"format      {_FORMAT_NAMES[module.format]}",
        ]
        if module.tag_sets:
            lines.append(f"tags        {', '.join('[' + ', '.join(tags) + ']' for tags in module.tag_sets)}")
        if module.handle.startswith("untrained:"):
            lines.append("weights     random: its vectors are for trying the pipeline out, and mean nothing")
        if self.embedding:
            chosen = self.embedding
            source = "attachment image_module_info" if module.image_size else "shape of the signature's input"
            if not module.image_size and self.preprocess and self.preprocess.image_size:
                source = self.preprocess.source
            size = f"{chosen.height}x{chosen.width} ({source})"
            dimension = "an unknown number of" if chosen.dimension is None else str(chosen.dimension)
            lines += [
                f"image size  {'any, the module takes encoded images and resizes them' if chosen.is_encoded else size}",
                f"embedding   {dimension} values (signature {chosen.signature}, output {chosen.output_key})",
                f"preprocess  {self._preprocess_text()}",
            ]
            if chosen.is_adapted or chosen.switches:
                lines.append(f"fed with    {_feed(chosen)}")
        else:
            lines.append(f"embedding   none: {self.obstacle}")
        if module.unsafe_operations:
            lines.append(f"unsafe      {list_operations(module.unsafe_operations)}")
        # Signatures are often aliases of each other.
        names_by_tensors: dict[str, list[str]] = {}
        for name, signature in module.signatures.items():
            tensors = [f"  in   {tensor}" for tensor in signature.inputs.values()]
            tensors += [f"  out  {tensor}" for tensor in signature.outputs.values()]
            names_by_tensors.setdefault("\n".join(tensors), []).append(name)
        for tensors_text, names in names_by_tensors.items():
            lines += ["", f"signature {', '.join(names)}", tensors_text]
        return "\n".join(lines)

    def _preprocess_text(self) -> str:
        if self.doubt:
            return f"unknown: {self.doubt}"
        return "by the module" if self.preprocess is None else str(self.preprocess)


def describe(config: ModuleConfig, preprocess: PreprocessConfig = _BY_DEFAULT) -> Description:
    """Resolves a module and describes it, as a run with these settings would use it.

    The network of a module with unsafe operations is loaded only if the settings allow them.

    Args:
      config: the module, and the function to choose.
      preprocess: how pixels become the function's input.

    Raises:
      ModuleError: the module cannot be found, trusted or read.
      UsageError: `--preprocess` is neither a preset nor a file that can be honoured.
    """
    module = resolve_module(config.module, sha256=config.module_sha256)
    try:
        chosen = choose_signature(
            module,
            signature=config.signature,
            output_key=config.output_key,
            image_size=config.image_size,
            default_size=_size(module, preprocess),
            pooling=config.pooling,
        )
    except ModuleError as error:
        return Description(module, None, str(error))
    may_load = config.allow_unsafe_module or not module.unsafe_operations
    try:
        return Description(module, chosen, "", choose_transform(module, chosen, preprocess, Context(may_load=may_load)))
    except UsageError as error:
        return Description(module, chosen, "", doubt=str(error))


def _size(module: Module, preprocess: PreprocessConfig) -> tuple[int, int] | None:
    try:
        return size_of_transform(module, preprocess)
    except UsageError:
        if preprocess.preprocess is not None:
            raise
        return None  # the file in the module's directory; `choose_transform` raises the error again


def _feed(chosen: ImageSignature) -> str:
    """Returns how the signature is fed, if it is no float32 NHWC of any number of images."""
    pixels = {"string": "encoded images", "uint8": "uint8 from 0 to 255"}.get(chosen.dtype, chosen.dtype)
    parts = [pixels if chosen.is_encoded else f"{pixels}, {chosen.layout}"]
    if chosen.fixed_batch_size:
        parts.append(f"{chosen.fixed_batch_size} images a call")
    return ", ".join([*parts, *(f"{name}=False" for name in chosen.switches)])


def _as_dict(tensors: Mapping[str, TensorInfo]) -> dict[str, object]:
    return {key: {"dtype": tensor.dtype, "shape": tensor.shape} for key, tensor in tensors.items()}
