"""The epochs of a fine-tuning run: which there are, and running those that are not done yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from pipeline.core.errors import OutputError, UsageError
from pipeline.finetune.batches import Batch, plain_batches, training_batches
from pipeline.finetune.config import FinetuneConfig
from pipeline.finetune.data import TrainingData
from pipeline.finetune.progress import training_progress
from pipeline.finetune.state import Epoch, State, save
from pipeline.finetune.training import Phase, Trainer, learning_rate

HEAD_LEARNING_RATE = 1e-3
UNTRAINED_LEARNING_RATE = 3e-3
TRAINED_LEARNING_RATE = 3e-4
"""Large steps forget what a trained network knows; one with random weights has nothing to forget."""

_DEFAULT_STEPS = 800
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 100
_AVERAGED_IMAGES = 256
_CHECKPOINT_S = 60


@dataclass(frozen=True)
class Schedule:
    """The epochs of a run, and the learning rate of each step.

    Attributes:
      size: height and width of the images.
      batch_size: images in a step.
      steps: steps in an epoch.
      head_epochs: epochs in which only the classifier learns; they come first.
      epochs: epochs in which the whole network learns.
      learning_rate: the highest one of the latter.
      seed: of all that is random.
    """

    size: tuple[int, int]
    batch_size: int
    steps: int
    head_epochs: int
    epochs: int
    learning_rate: float
    seed: int

    @classmethod
    def of(cls, config: FinetuneConfig, size: tuple[int, int], steps: int) -> Schedule:
        """Returns the schedule of a run whose epochs have `steps` steps; settings that are None get their defaults."""
        is_untrained = config.module.startswith("untrained:")
        return cls(
            size=size,
            batch_size=config.batch_size,
            steps=steps,
            head_epochs=config.head_epochs,
            epochs=config.epochs or min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_DEFAULT_STEPS / steps))),
            learning_rate=config.learning_rate or (UNTRAINED_LEARNING_RATE if is_untrained else TRAINED_LEARNING_RATE),
            seed=config.seed,
        )

    @property
    def total_epochs(self) -> int:
        """Returns the number of epochs of both phases."""
        return self.head_epochs + self.epochs

    def phase(self, epoch: int) -> Phase:
        """Returns the phase of an epoch, counted from 0."""
        return "head" if epoch < self.head_epochs else "network"

    def place(self, epoch: int, step: int) -> tuple[int, float]:
        """Returns the number of a step within its phase, and its learning rate."""
        if self.phase(epoch) == "head":
            return epoch * self.steps + step, HEAD_LEARNING_RATE
        number = (epoch - self.head_epochs) * self.steps + step
        return number, learning_rate(self.learning_rate, number, self.epochs * self.steps)


@dataclass
class EpochRunner:
    """Runs the epochs that a state lacks.

    Attributes:
      schedule: the epochs.
      data: the images.
      trainer: the module with its classifier.
      state: what is done; changes with each step.
      checkpoint: file that the state is saved to, after each epoch and each minute.
      stream: where to report progress.
    """

    schedule: Schedule
    data: TrainingData
    trainer: Trainer
    state: State
    checkpoint: Path
    stream: TextIO
    _saved: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Runs them all.

        Raises:
          UsageError: training diverged.
          OutputError: the checkpoint cannot be written.
        """
        schedule, state = self.schedule, self.state
        first = len(state.history)
        done = first * schedule.steps + state.step
        with training_progress(self.stream) as progress:
            task = progress.add_task("", total=schedule.total_epochs * schedule.steps, completed=done)
            if done:
                progress.console.print(
                    f"going on with epoch {min(first + 1, schedule.total_epochs)} of {schedule.total_epochs}"
                )
            for epoch in range(first, schedule.total_epochs):
                self._run_epoch(epoch, lambda text: progress.update(task, advance=1, description=text))
                progress.console.print(state.history[-1].in_words(schedule.total_epochs))

    def _run_epoch(self, epoch: int, report: Callable[[str], None]) -> None:
        schedule, state, trainer = self.schedule, self.state, self.trainer
        phase = schedule.phase(epoch)
        if epoch in (0, schedule.head_epochs) and state.step == 0:
            trainer.begin_phase()
        started = time.monotonic() - state.seconds
        batches = training_batches(
            self.data.train, schedule.batch_size, schedule.size, seed=schedule.seed, epoch=epoch, first_step=state.step
        )
        for step, batch in enumerate(batches, start=state.step):
            number, rate = schedule.place(epoch, step)
            trainer.train(phase, batch, rate, number, state.tally)
            state.step, state.seconds = step + 1, time.monotonic() - started
            score = state.tally.score()
            report(f"epoch {epoch + 1} of {schedule.total_epochs}, loss {score.loss:.3f}, {score.accuracy:.1%}")
            if time.monotonic() - self._saved > _CHECKPOINT_S:
                self._save()
        trained = state.tally.score()
        if phase == "network":
            trainer.settle_averages(self._sample(epoch))
        validated = trainer.evaluate(plain_batches(self.data.validation, schedule.batch_size, schedule.size))
        if not (math.isfinite(trained.loss) and math.isfinite(validated.loss)):
            raise UsageError(
                f"training diverged in epoch {epoch + 1}: its loss is {trained.loss:g}, in validation "
                f"{validated.loss:g}; remove {self.checkpoint.parent} and start with a --learning_rate below "
                f"{schedule.learning_rate:g}"
            )
        record = Epoch(
            epoch=epoch + 1,
            phase=phase,
            learning_rate=schedule.place(epoch, schedule.steps - 1)[1],
            train_loss=trained.loss,
            train_accuracy=trained.accuracy,
            validation_loss=validated.loss,
            validation_accuracy=validated.accuracy,
            seconds=round(time.monotonic() - started, 3),
        )
        state.finish_epoch(record, trainer.get_weights())
        self._save()

    def _sample(self, epoch: int) -> Iterator[Batch]:
        """Yields a few full batches of training images as they are, others in each epoch."""
        schedule, train = self.schedule, self.data.train
        size = min(schedule.batch_size, len(train))
        count = max(1, min(_AVERAGED_IMAGES, len(train)) // size) * size
        rows = np.random.default_rng((schedule.seed, epoch)).permutation(len(train))[:count]
        return plain_batches(train, size, schedule.size, rows)

    def _save(self) -> None:
        try:
            save(self.checkpoint, self.state, self.trainer)
        except OSError as error:
            raise OutputError(f"{self.checkpoint} cannot be written: {error.strerror}") from error
        self._saved = time.monotonic()
