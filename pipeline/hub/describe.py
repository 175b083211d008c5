"""Tells what a module is, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.errors import ModuleError
from pipeline.hub.cache import ResolvedModule
from pipeline.hub.handles import resolve
from pipeline.savedmodel.module import ImageSignature, ModuleInfo, TensorInfo, choose_signature, read_module
from pipeline.savedmodel.safety import list_operations

_FORMAT_NAMES = {"tf1_hub": "TF1 Hub", "tf2": "TF2 SavedModel"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a module is.

    Attributes:
      resolved: where it came from and its digest.
      info: its signatures, tags and format.
      embedding: what `pipeline.run` would call; None where the module gives no embeddings of images.
      obstacle: why there is no `embedding`; empty where there is one.
    """

    resolved: ResolvedModule
    info: ModuleInfo
    embedding: ImageSignature | None
    obstacle: str

    def to_json(self) -> str:
        """Returns the description as a JSON object of several lines; unknown dimensions are null."""
        embedding = self.embedding
        return json.dumps(
            {
                "handle": self.resolved.handle,
                "path": self.resolved.path,
                "sha256": self.resolved.sha256,
                "format": self.info.format,
                "tag_sets": self.info.tag_sets,
                "image_size": (embedding.height, embedding.width) if embedding else self.info.image_size,
                "embedding": dataclasses.asdict(embedding) if embedding else None,
                "obstacle": self.obstacle or None,
                "unsafe_operations": [dataclasses.asdict(operation) for operation in self.info.unsafe_operations],
                "signatures": {
                    name: {"inputs": _as_dict(signature.inputs), "outputs": _as_dict(signature.outputs)}
                    for name, signature in self.info.signatures.items()
                },
            },
            indent=2,
        )

    def __str__(self) -> str:
        info = self.info
        lines = [
            f"module      {self.resolved.handle}",
            f"files       {self.resolved.path}",
            f"sha256      {self.resolved.sha256}",
            f"format      {_FORMAT_NAMES[info.format]}",
            f"tags        {', '.join('[' + ', '.join(tags) + ']' for tags in info.tag_sets)}",
        ]
        if self.resolved.handle.startswith("untrained:"):
            lines.append("weights     random: its vectors are for trying the pipeline out, and mean nothing")
        if self.embedding:
            chosen = self.embedding
            source = "attachment image_module_info" if info.image_size else "shape of the signature's input"
            dimension = "an unknown number of" if chosen.dimension is None else str(chosen.dimension)
            lines += [
                f"image size  {chosen.height}x{chosen.width} ({source})",
                f"embedding   {dimension} values (signature {chosen.signature}, output {chosen.output_key})",
            ]
        else:
            lines.append(f"embedding   none: {self.obstacle}")
        if info.unsafe_operations:
            lines.append(f"unsafe      {list_operations(info.unsafe_operations)}")
        # Signatures are often aliases of each other.
        names_by_tensors: dict[str, list[str]] = {}
        for name, signature in info.signatures.items():
            tensors = [f"  in   {tensor}" for tensor in signature.inputs.values()]
            tensors += [f"  out  {tensor}" for tensor in signature.outputs.values()]
            names_by_tensors.setdefault("\n".join(tensors), []).append(name)
        for tensors_text, names in names_by_tensors.items():
            lines += ["", f"signature {', '.join(names)}", tensors_text]
        return "\n".join(lines)


def describe(handle: str, *, sha256: str | None = None) -> Description:
    """Finds out what a module is.

    Args:
      handle: any handle that `pipeline.hub.handles.resolve` takes.
      sha256: the digest that the module must have.

    Raises:
      ModuleError: the module cannot be found, trusted or read.
    """
    resolved = resolve(handle, sha256=sha256)
    info = read_module(resolved.path)
    try:
        return Description(resolved, info, choose_signature(info), "")
    except ModuleError as error:
        return Description(resolved, info, None, str(error))


def _as_dict(tensors: Mapping[str, TensorInfo]) -> dict[str, object]:
    return {key: {"dtype": tensor.dtype, "shape": tensor.shape} for key, tensor in tensors.items()}
