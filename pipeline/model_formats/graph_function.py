"""The one function of a model that is a graph with named inputs and outputs: images in, vectors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.core.errors import ModuleError
from pipeline.model_formats.pooling import no_vector
from pipeline.savedmodel.module import ImageSignature, Module, SignatureInfo, TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUNCTION = "default"
"""Name of the one signature of such a model."""

Layout = Literal["NCHW", "NHWC"]
_DTYPES = ("float32", "float16", "uint8")
_VECTOR_DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input of a model that takes images.

    Attributes:
      key: its name.
      dtype: `float32`, `float16`, or `uint8`, whose values are 0 to 255.
      layout: order of its axes.
      batch_size: the fixed number of images of a call; None if it is free.
      height: of the images, in pixels; None if it is free.
      width: of the images, in pixels; None if it is free.
    """

    key: str
    dtype: str
    layout: Layout
    batch_size: int | None
    height: int | None
    width: int | None

    def adapt(self, images: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]:
        """Returns an image as the model takes it, repeated to the fixed number of images of a call.

        Args:
          images: float32 [1, height, width, 3], in [0, 1].
        """
        import numpy as np

        if self.layout == "NCHW":
            images = images.transpose(0, 3, 1, 2)
        if self.dtype == "uint8":
            images = np.rint(images * np.float32(255))
        repeated = np.repeat(images, self.batch_size or 1, axis=0)
        return np.ascontiguousarray(repeated.astype(self.dtype))


def image_input(signature: SignatureInfo) -> ImageInput:
    """Returns the input of a model that takes images.

    An input without a fixed number of channels is taken to be NCHW, the layout of ONNX's operators.

    Raises:
      ModuleError: the model has other inputs, or its input takes no images.
    """
    inputs = tuple(signature.inputs.values())
    if len(inputs) == 1 and inputs[0].shape is not None and len(inputs[0].shape) == 4 and inputs[0].dtype in _DTYPES:
        (image,) = inputs
        assert image.shape is not None
        batch, *axes = image.shape
        if axes[2] == 3 and axes[0] != 3:
            return ImageInput(image.key, image.dtype, "NHWC", batch, axes[0], axes[1])
        if axes[0] in (3, None):
            return ImageInput(image.key, image.dtype, "NCHW", batch, axes[1], axes[2])
    found = "; ".join(map(str, inputs)) or "no inputs"
    raise ModuleError(
        f"the model takes no images: it takes {found}; expected one input [?,3,height,width] or [?,height,width,3] of "
        "float32, float16 or uint8; export the part of the model that embeds images"
    )


def choose_graph_function(
    module: Module, *, signature: str | None, output_key: str | None, image_size: tuple[int, int] | None
) -> ImageSignature:
    """Returns the function of a model; see `pipeline.savedmodel.module.choose_signature`.

    Raises:
      ModuleError: the model takes no images or returns no vectors, has no such output, or the image size is unknown.
    """
    if signature not in (None, FUNCTION):
        raise ModuleError(f"the module has no signature '{signature}'; it has: {FUNCTION}; leave --signature out")
    function = module.signatures[FUNCTION]
    image = image_input(function)
    output = _choose_output(function, output_key)
    height, width = _choose_size(image, image_size)
    return ImageSignature(FUNCTION, image.key, output.key, height, width, _dimension(output))


def _choose_output(function: SignatureInfo, output_key: str | None) -> TensorInfo:
    outputs = function.outputs
    found = "; ".join(map(str, outputs.values()))
    if output_key is not None and output_key not in outputs:
        raise ModuleError(f"the model has no output '{output_key}'; choose --output_key from: {found}")
    if output_key is None and len(outputs) != 1:
        raise ModuleError(f"the model has several outputs; choose --output_key from: {found}")
    return outputs[output_key or next(iter(outputs))]


def _dimension(output: TensorInfo) -> int | None:
    """Returns the length of the vectors of an output; None if it is not declared.

    Raises:
      ModuleError: the output has no vectors, or more than one for an image.
    """
    if output.dtype not in _VECTOR_DTYPES:
        raise ModuleError(f"the model gives no vectors: {output}; expected an output float32[?,dimension]")
    if output.shape is None:
        return None
    axes = output.shape[1:]
    if len(axes) > 1:
        axes = tuple(length for length in axes if length != 1) or (1,)
    if len(axes) != 1 and None not in axes:
        raise no_vector(output.key, output.shape)
    return axes[0] if len(axes) == 1 else None


def _choose_size(image: ImageInput, asked: tuple[int, int] | None) -> tuple[int, int]:
    height, width = (image.height, image.width) if asked is None else asked
    if height is None or width is None:
        raise ModuleError(f"the module does not say what image size input '{image.key}' takes; give --image_size=H,W")
    takes = (image.height or height, image.width or width)
    if (height, width) != takes:
        raise ModuleError(
            f"--image_size={height},{width} contradicts the module, which takes {takes[0]},{takes[1]}; leave it out"
        )
    return takes
