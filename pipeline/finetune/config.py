"""The settings of a fine-tuning run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.core.errors import UsageError


@dataclass(frozen=True)
class FinetuneConfig:
    """What to fine-tune, on what, and how.

    Attributes:
      module: handle of the module.
      train: TFRecords of `tf.train.Example`s: files, directories or globs.
      label_feature: the feature with the label: one int64 or bytes value.
      output: the new module's directory, or an archive if it ends in `.tar.gz` or `.tgz`; must not exist.
      validation: TFRecords to validate on; none to take a part of `train`.
      validation_fraction: the part of each class of `train` that is taken where there is no `validation`.
      image_feature: the feature with the encoded image.
      epochs: passes over the training images with the whole network; None for about 800 steps, and 10 to 100.
      head_epochs: passes before that, in which only the classifier learns.
      batch_size: images in a step.
      learning_rate: the peak while the whole network is trained; None for 0.003 for an `untrained:` module, else
        0.0003.
      seed: of the order of the images, the crops and the flips.
      module_sha256: the digest that the module must have.
      allow_unsafe_module: take a module with operations that reach files, processes or the network.
      signature: the signature whose vectors are trained; None for the one that `pipeline.run` would take.
      output_key: its output; likewise.
      image_size: height and width, for a module that does not say.
      preprocess: a preset or a file, as in `pipeline.run`; only the plain transform can be trained.
    """

    module: str
    train: tuple[str, ...]
    label_feature: str
    output: str
    validation: tuple[str, ...] = ()
    validation_fraction: float = 0.2
    image_feature: str = "image/encoded"
    epochs: int | None = None
    head_epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None
    seed: int = 0
    module_sha256: str | None = None
    allow_unsafe_module: bool = False
    signature: str | None = None
    output_key: str | None = None
    image_size: tuple[int, int] | None = None
    preprocess: str | None = None

    def __post_init__(self) -> None:
        """Refuses values that nothing can be done with.

        Raises:
          UsageError: a value is out of its range.
        """
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"--validation_fraction={self.validation_fraction:g} is not between 0 and 1")
        for name, least in (("epochs", 1), ("head_epochs", 0), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name}={value} is too small; it must be at least {least}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"--learning_rate={self.learning_rate:g} is not a positive number")
        if self.image_feature == self.label_feature:
            raise UsageError(f"--label_feature={self.label_feature} is also the feature of the image; name another")
