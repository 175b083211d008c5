"""Chooses the function of a module that a run calls, and says how it is fed: images in, vectors out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.core.errors import ModuleError
from pipeline.core.settings.module import Pooling
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo

PREFERRED_SIGNATURES = ("image_feature_vector", "default", "serving_default")
"""The signatures that are tried, in this order, where none is named."""

ENCODED = "string"
"""The dtype of an input that takes encoded images."""

LEVELS = 255
LEVEL_PARTS = 8192
"""Parts of a grey level to which pixels are rounded first, for an input of uint8; their number times 255 is exact in
float32."""

Shape = tuple[int | None, ...]

_FLOATS = ("float32", "float16", "bfloat16", "float64")
_PIXELS = (*_FLOATS, "uint8")
_TRAINING = re.compile(r"train|learning_phase", re.IGNORECASE)
_EXAMPLES = re.compile(r"example|serialized", re.IGNORECASE)
_EXPECTED = (
    "expected one input of float or uint8 [?,height,width,3] or [?,3,height,width], or string[?] for encoded images; "
    "others need a default value or must be a training switch"
)


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """The one function of a module that a run calls: images in, vectors out.

    `pipeline.savedmodel.freezing.freeze` adapts the function: the adapted one takes float32 images [N, height, width,
    3], or encoded images if the dtype is `string`, and returns float32 vectors [N, dimension].

    Attributes:
      signature: its name.
      input_key: the input that takes the images.
      output_key: the output that gives the vectors.
      height: expected height of the images, in pixels; 0 if the function takes encoded images.
      width: expected width of the images, in pixels; 0 if the function takes encoded images.
      dimension: length of a vector, or None where the module does not say.
      dtype: data type of the input: a float; `uint8`, which gets levels from 0 to 255; or `string`, which gets
        encoded images.
      layout: order of the input's axes, `NHWC` or `NCHW`.
      fixed_batch_size: the number of images that each call takes, or None for any number.
      switches: further inputs, which get False; all others have a default.
      pooling: what makes one vector of an output with more axes than [N, dimension]: `mean` over all positions, `cls`
        for the first token, `flatten`; or None, if at most one of these axes is longer than 1.
    """

    signature: str
    input_key: str
    output_key: str
    height: int
    width: int
    dimension: int | None
    dtype: str = "float32"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    fixed_batch_size: int | None = None
    switches: tuple[str, ...] = ()
    pooling: Pooling | None = None

    @property
    def is_adapted(self) -> bool:
        """Whether the function itself takes or returns something else than the adapted one."""
        return (self.dtype, self.layout, self.fixed_batch_size, self.pooling) != ("float32", "NHWC", None, None)

    @property
    def is_encoded(self) -> bool:
        """Whether the function takes encoded images."""
        return self.dtype == ENCODED


def choose_signature(
    module: Module,
    *,
    signature: str | None = None,
    output_key: str | None = None,
    image_size: tuple[int, int] | None = None,
    default_size: tuple[int, int] | None = None,
    pooling: Pooling | None = None,
) -> ImageSignature:
    """Returns the function of a module to call; what is not named is found out.

    The image size is that of the attachment `image_module_info`, else that of the signature's input,
    else `image_size` (height, width), which must not contradict the input's shape, else `default_size`, likewise.

    Args:
      module: the module.
      signature: its name; default: the first of `PREFERRED_SIGNATURES` that the module has.
      output_key: default: `default`, the only output, or the only output with a vector for each image.
      image_size: height and width in pixels.
      default_size: height and width in pixels for a module that does not state them.
      pooling: what makes one vector of an output with more axes; ignored where it would change nothing.

    Raises:
      ModuleError: there is no such signature or output, it takes no images or gives no vectors, or
        the image size is unknown or contradicts the module.
    """
    name = _choose_name(module, signature)
    chosen = module.signatures[name]
    images = _image_input(name, chosen, decodes_images=module.decodes_images)
    output = _vector_output(name, chosen, output_key, pooling)
    layout = _layout(images.shape)
    height, width = _image_size(name, images, layout, module.image_size, image_size, default_size)
    axes = None if output.shape is None else output.shape[1:]
    if axes is not None and sum(length != 1 for length in axes) <= 1:
        pooling = None
    return ImageSignature(
        signature=name,
        input_key=images.key,
        output_key=output.key,
        height=height,
        width=width,
        dimension=_dimension(axes, layout, pooling),
        dtype=images.dtype,
        layout=layout,
        fixed_batch_size=images.shape[0] if images.shape else None,
        switches=tuple(key for key, tensor in chosen.inputs.items() if tensor is not images and _is_switch(tensor)),
        pooling=pooling,
    )


def _choose_name(module: Module, signature: str | None) -> str:
    candidates = (signature,) if signature else PREFERRED_SIGNATURES
    for name in candidates:
        if name in module.signatures:
            return name
    wanted = f"no signature '{signature}'" if signature else f"none of the signatures {', '.join(PREFERRED_SIGNATURES)}"
    found = ", ".join(module.signatures) or "none"
    raise ModuleError(f"the module has {wanted}; it has: {found}; name one with --signature")


def _image_input(name: str, signature: SignatureInfo, *, decodes_images: bool) -> TensorInfo:
    inputs = signature.inputs
    needed = [tensor for tensor in inputs.values() if tensor.default is None and not _is_switch(tensor)]
    images = needed[0] if len(needed) == 1 else inputs.get("images") if not needed else None
    if images is None or not _takes_images(images, decodes_images=decodes_images):
        found = "; ".join(map(str, inputs.values())) or "no inputs"
        raise ModuleError(f"signature '{name}' takes no images: it takes {found}; {_EXPECTED}")
    if images.dtype == ENCODED and _EXAMPLES.search(images.key):
        raise ModuleError(
            f"signature '{name}' takes serialized tf.train.Examples ({images}); expected images; choose another "
            "--signature, or export one that takes images"
        )
    return images


def _is_switch(tensor: TensorInfo) -> bool:
    return tensor.dtype == "bool" and not tensor.shape and _TRAINING.search(tensor.key) is not None


def _takes_images(tensor: TensorInfo, *, decodes_images: bool) -> bool:
    if tensor.dtype == ENCODED:  # which may be text
        return decodes_images and (tensor.shape is None or len(tensor.shape) == 1)
    return tensor.dtype in _PIXELS and (
        tensor.shape is None or (len(tensor.shape) == 4 and (tensor.shape[3] in (3, None) or tensor.shape[1] == 3))
    )


def _layout(shape: Shape | None) -> Literal["NHWC", "NCHW"]:
    is_nchw = shape is not None and len(shape) == 4 and shape[3] != 3 and shape[1] == 3
    return "NCHW" if is_nchw else "NHWC"


def _vector_output(name: str, signature: SignatureInfo, output_key: str | None, pooling: Pooling | None) -> TensorInfo:
    outputs = signature.outputs
    found = ", ".join(outputs)
    if output_key is not None and output_key not in outputs:
        raise ModuleError(f"signature '{name}' has no output '{output_key}'; choose --output_key from: {found}")
    if not outputs:
        raise ModuleError(f"signature '{name}' has no outputs; choose another --signature")
    if output_key is None and "default" in outputs:
        output_key = "default"
    if output_key is None:
        suitable = [key for key, tensor in outputs.items() if not _obstacle(tensor, pooling)]
        candidates = suitable if len(outputs) > 1 else list(outputs)
        if len(candidates) != 1:
            raise ModuleError(
                f"signature '{name}' has several outputs and none is 'default'; choose --output_key from: {found}"
            )
        output_key = candidates[0]
    output = outputs[output_key]
    if obstacle := _obstacle(output, pooling):
        raise ModuleError(f"signature '{name}' gives no vectors: {output}; {obstacle}")
    return output


def _obstacle(output: TensorInfo, pooling: Pooling | None) -> str:
    """Returns the reason why an output gives no vectors; empty if it gives some."""
    shape = output.shape
    if output.dtype not in _FLOATS or (shape is not None and len(shape) < 2):
        return "expected an output float32[?,dimension]"
    if shape is None or sum(length != 1 for length in shape[1:]) <= 1:
        return ""
    if pooling is None:
        return (
            "expected an output float32[?,dimension]; choose another --output_key, or say --pooling=mean, "
            "--pooling=cls or --pooling=flatten"
        )
    if pooling == "cls" and len(shape) != 3:
        return "--pooling=cls expects an output float32[?,tokens,dimension]; say --pooling=mean or --pooling=flatten"
    return ""


def _dimension(axes: Shape | None, layout: str, pooling: Pooling | None) -> int | None:
    """Returns the length of a vector that is pooled from an output with these axes, without the images' axis."""
    if axes is None:
        return None
    if pooling in ("mean", "cls"):
        return axes[feature_axis(len(axes) + 1, layout) - 1]
    lengths = [length for length in axes if length is not None]
    return math.prod(lengths) if len(lengths) == len(axes) else None


def feature_axis(rank: int, layout: str) -> int:
    """Returns the axis of an output that holds the features of a position: that of the input's channels."""
    return 1 if layout == "NCHW" and rank == 4 else rank - 1


def _image_size(
    name: str,
    images: TensorInfo,
    layout: str,
    attached: tuple[int, int] | None,
    asked: tuple[int, int] | None,
    default: tuple[int, int] | None,
) -> tuple[int, int]:
    if images.dtype == ENCODED:
        if asked:
            raise ModuleError(
                f"--image_size={asked[0]},{asked[1]} has no effect: signature '{name}' takes encoded images and "
                "resizes them itself; leave it out"
            )
        return 0, 0
    height, width = _sides(images.shape, layout)
    if attached is None and None in (height, width):
        asked = asked or default
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


def _sides(shape: Sequence[int | None] | None, layout: str) -> tuple[int | None, int | None]:
    if not shape:
        return None, None
    return (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
