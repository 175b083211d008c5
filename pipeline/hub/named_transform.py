"""A transform, with who says that it is the right one for a module."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.images.transform import ImageTransform


@dataclass(frozen=True)
class NamedTransform:
    """A transform, and who says that it is the right one.

    Attributes:
      transform: the transform.
      source: who says so, such as `preset clip` or `attachment image_module_info`.
      image_size: height and width in pixels, if the source has one.
    """

    transform: ImageTransform
    source: str
    image_size: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.transform.describe()} ({self.source})"
