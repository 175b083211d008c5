"""The steps of fine-tuning: a linear classifier on a module's vectors, and Adam on its head or on everything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from pipeline.finetune.batches import Batch
from pipeline.finetune.trainable import MovingAverages, TrainableModule

Phase = Literal["head", "network"]

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_WARM_UP = 0.05


@dataclass(frozen=True, slots=True)
class Score:
    """How well a classifier does on some images.

    Attributes:
      loss: mean cross-entropy, in nats.
      accuracy: share of the images whose class it names, 0 to 1.
    """

    loss: float
    accuracy: float


@dataclass
class Tally:
    """Sums that a `Score` is made from."""

    count: int = 0
    loss: float = 0.0
    correct: int = 0

    def add(self, count: int, mean_loss: float, correct: int) -> None:
        """Adds a batch."""
        self.count += count
        self.loss += mean_loss * count
        self.correct += correct

    def score(self) -> Score:
        """Returns the means."""
        return Score(self.loss / self.count, self.correct / self.count)


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Returns the learning rate of a step: up to the peak in a straight line, and down to 0 along a cosine.

    Args:
      peak: the highest rate.
      step: counts from 0.
      steps: how many there are.
    """
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class Trainer:
    """A module and a linear classifier on its vectors, trained with Adam (Kingma and Ba, arXiv:1412.6980)."""

    def __init__(self, module: TrainableModule, image_size: tuple[int, int], dimension: int, num_classes: int) -> None:
        """Puts an empty classifier on a module.

        Args:
          module: the module.
          image_size: height and width that it takes.
          dimension: length of its vectors.
          num_classes: number of classes.
        """
        import tensorflow as tf

        self.module = module
        self._kernel = tf.Variable(tf.zeros([dimension, num_classes]))
        self._bias = tf.Variable(tf.zeros([num_classes]))
        head = [self._kernel, self._bias]
        self._trained: dict[Phase, list[Any]] = {"head": head, "network": [*module.trainable_variables, *head]}
        self._variables = [*module.variables, *head]
        self._slots = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in self._trained["network"]]
        self._slots_by_id = {id(v): slots for v, slots in zip(self._trained["network"], self._slots, strict=True)}
        self._averages: MovingAverages | None = None
        signature = [
            tf.TensorSpec([None, *image_size, 3], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ]
        scalar = tf.TensorSpec([], tf.float32)
        self._steps = {
            phase: tf.function(
                lambda images, labels, rate, power_1, power_2, phase=phase: self._step(
                    phase, images, labels, rate, power_1, power_2
                ),
                input_signature=[*signature, scalar, scalar, scalar],
                autograph=False,
            )
            for phase in self._trained
        }
        self._evaluate = tf.function(self._measure, input_signature=signature, autograph=False)
        self._forward = tf.function(
            lambda images: module.features(images, training=True), input_signature=signature[:1], autograph=False
        )

    def _loss(self, vectors: Any, labels: Any) -> tuple[Any, Any]:
        """Returns the mean cross-entropy and the number of images whose class is named."""
        import tensorflow as tf

        logits = tf.matmul(vectors, self._kernel) + self._bias
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return tf.reduce_mean(losses), tf.reduce_sum(tf.cast(hits, tf.int32))

    def _measure(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return self._loss(self.module.features(images, training=False), labels)

    def _step(self, phase: Phase, images: Any, labels: Any, rate: Any, power_1: Any, power_2: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        whole = phase == "network"
        trained = self._trained[phase]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss, correct = self._loss(self.module.features(images, training=whole), labels)
            total = loss + self.module.regularization_loss() if whole else loss
        for variable, gradient in zip(trained, tape.gradient(total, trained), strict=True):
            if gradient is None:  # the vectors do not depend on it
                continue
            first, second = self._slots_by_id[id(variable)]
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=rate,
                beta1=_BETA_1,
                beta2=_BETA_2,
                epsilon=_EPSILON,
                grad=tf.convert_to_tensor(gradient),
            )
        return loss, correct

    def begin_phase(self) -> None:
        """Forgets the gradients of the phase before."""
        for slots in self._slots:
            for slot in slots:
                slot.assign(slot * 0)

    def train(self, phase: Phase, batch: Batch, rate: float, step: int, tally: Tally) -> None:
        """Takes one step.

        Args:
          phase: `head` to train the classifier only, on the module as it is outside of training; `network` to train
            everything, with batch normalisation in training.
          batch: what to learn from.
          rate: learning rate.
          step: of the phase, counts from 0.
          tally: gets the batch's scores, from before the step.
        """
        powers = (_BETA_1 ** (step + 1), _BETA_2 ** (step + 1))
        loss, correct = self._steps[phase](batch.images, batch.labels, rate, *powers)
        tally.add(len(batch.labels), float(loss), int(correct))

    def settle_averages(self, batches: Iterable[Batch]) -> None:
        """Sets the averages of batch statistics to what the weights of now lead to; see `MovingAverages`."""
        images = [batch.images for batch in batches]
        if self._averages is None:
            self._averages = MovingAverages(self.module, self._forward, images[0])
        self._averages.settle(images)

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """Returns how well the classifier does, with the module as it is outside of training."""
        self.module.synchronize()
        tally = Tally()
        for batch in batches:
            loss, correct = self._evaluate(batch.images, batch.labels)
            tally.add(len(batch.labels), float(loss), int(correct))
        return tally.score()

    def get_weights(self) -> list[NDArray[Any]]:
        """Returns the values of all variables of the module and the classifier."""
        return [v.numpy() for v in self._variables]

    def set_weights(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets what `get_weights` returned."""
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        self.module.synchronize()

    def get_slots(self) -> list[NDArray[Any]]:
        """Returns what the optimiser remembers."""
        return [slot.numpy() for slots in self._slots for slot in slots]

    def set_slots(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets what `get_slots` returned."""
        for variable, value in zip([slot for slots in self._slots for slot in slots], values, strict=True):
            variable.assign(value)
