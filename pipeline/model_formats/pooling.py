"""From an output with more axes than [N, D] to vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.core.errors import ModuleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pooling = Literal["mean", "cls", "flatten"]


def pool(
    values: NDArray[np.float32], pooling: Pooling | None, *, name: str, channels_first: bool = False
) -> NDArray[np.float32]:
    """Returns the vectors of an output.

    Args:
      values: float32 [N, D]; [N, tokens, D]; [N, height, width, D]; or, with `channels_first`, [N, D, height, width].
      pooling: `mean` over the tokens or the places; `cls`, the first token; `flatten`, all values in their order; None:
        only one axis after the first may be longer than 1.
      name: of the output, for error messages.
      channels_first: whether the vectors of an output with four axes are along its second axis.

    Returns:
      float32 [N, D].

    Raises:
      ModuleError: the output holds more than one vector an image and `pooling` does not say which, or it does not fit.
    """
    if values.ndim == 2:
        return values
    if pooling is None and (values.ndim < 2 or sum(length != 1 for length in values.shape[1:]) > 1):
        raise no_vector(name, tuple(values.shape))
    if pooling in (None, "flatten"):
        return values.reshape(len(values), -1)
    if pooling == "cls" and values.ndim == 3:
        return values[:, 0]
    if pooling == "mean" and values.ndim in (3, 4):
        import numpy as np

        axes = (2, 3) if channels_first and values.ndim == 4 else tuple(range(1, values.ndim - 1))
        means: NDArray[np.float32] = values.mean(axis=axes, dtype=np.float64).astype(np.float32)
        return means
    raise ModuleError(
        f"--pooling={pooling} does not fit output '{name}' of shape {list(values.shape)}; expected [N, tokens, D], or "
        "for mean [N, height, width, D]; say --pooling=flatten, or choose another --output_key"
    )


def no_vector(name: str, shape: tuple[int | None, ...]) -> ModuleError:
    """Returns the error for an output that has more than one vector for an image."""
    dims = ",".join("?" if length is None else str(length) for length in shape)
    return ModuleError(
        f"output '{name}' has shape [{dims}]; expected one vector an image; choose another --output_key, or say how "
        "the vectors of an image become one with --pooling=mean, cls or flatten"
    )
