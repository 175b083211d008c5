"""The kernel of bicubic interpolation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_A = -0.5


def keys_kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the weights of cubic convolution (Keys 1981, equation 4, with a = -0.5).

    Args:
      distance: from the place of the result, in source pixels; not negative.
    """
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * _A
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
