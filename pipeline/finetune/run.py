"""Fine-tunes a module on labelled images: a classifier on its vectors first, then everything."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline.core.errors import ModuleError, OutputError, UsageError
from pipeline.finetune import curve
from pipeline.finetune import state as finetune_state
from pipeline.finetune.data import Batch, TrainingData, plain_batches, read_data, steps_per_epoch, training_batches
from pipeline.finetune.progress import ProgressBar
from pipeline.finetune.state import Epoch, State
from pipeline.finetune.trainable import load_trainable
from pipeline.finetune.training import Phase, Trainer, learning_rate
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import ImageSignature, Module, choose_signature
from pipeline.savedmodel.publish import ARCHIVE_SUFFIXES, check_output, publish
from pipeline.savedmodel.safety import check_operations
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)

HEAD_LEARNING_RATE = 1e-3
UNTRAINED_LEARNING_RATE = 3e-3
TRAINED_LEARNING_RATE = 3e-4
"""Large steps forget what a trained network knows; one with random weights has nothing to forget."""

_DEFAULT_STEPS = 800
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 100
_AVERAGED_IMAGES = 256
_CHECKPOINT_S = 60
_CLASSIFIER = "image_classification"


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


@dataclass(frozen=True)
class FinetunedModule:
    """A module that was fine-tuned.

    Attributes:
      path: the directory or archive.
      sha256: the module's digest.
      best: the epoch whose weights it has.
      epochs: how many epochs there were.
      validation_images: how many images the validation accuracy is of.
      metrics: the JSON file beside it.
      curve: the learning curve beside it.
    """

    path: Path
    sha256: str
    best: Epoch
    epochs: int
    validation_images: int
    metrics: Path
    curve: Path


def finetune(config: FinetuneConfig, stream: TextIO | None = None) -> FinetunedModule:
    """Fine-tunes a module and exports the best epoch; goes on where the same run was stopped before.

    Beside the output there is a directory `NAME.finetune` with the run's checkpoint until the module is done, and then
    `NAME.metrics.json` and `NAME.learning_curve.png`.

    Args:
      config: what to do.
      stream: where to tell how far it is; default: stderr.

    Raises:
      InputError: the images or labels cannot be used.
      ModuleError: the module cannot be found, trusted or trained.
      OutputError: the output exists or cannot be written, or its checkpoint is of another run.
      UsageError: training diverged.
    """
    output = check_output(config.output)
    module = resolve_module(config.module, sha256=config.module_sha256)
    check_operations(module.handle, module.unsafe_operations, allow=config.allow_unsafe_module)
    chosen = choose_signature(
        module, signature=config.signature, output_key=config.output_key, image_size=config.image_size
    )
    if chosen.dimension is None:
        raise ModuleError(
            f"module {config.module} does not say how long the vectors of signature '{chosen.signature}' are; choose "
            "another --signature or --output_key"
        )
    if _CLASSIFIER in module.signatures and chosen.signature != _CLASSIFIER:
        _log.warning(
            "signature %s of the new module will keep the old classifier, whose answers mean nothing over new vectors",
            _CLASSIFIER,
        )
    files = _Files(output)
    try:
        files.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{files.work} cannot be made: {error.strerror}; name another --output") from error
    try:
        return _finetune(config, module, chosen, files, stream or sys.stderr)
    finally:
        with contextlib.suppress(OSError):  # there is a checkpoint in it
            files.work.rmdir()


def _finetune(
    config: FinetuneConfig,
    module: Module,
    chosen: ImageSignature,
    files: _Files,
    stream: TextIO,
) -> FinetunedModule:
    size = (chosen.height, chosen.width)
    data = read_data(
        config.train,
        config.validation,
        image_feature=config.image_feature,
        label_feature=config.label_feature,
        image_size=size,
        validation_fraction=config.validation_fraction,
        directory=files.work,
    )
    schedule = _Schedule.of(config, size, steps_per_epoch(data.train, config.batch_size))
    settings = {
        "module_sha256": module.sha256,
        "signature": chosen.signature,
        "output_key": chosen.output_key,
        "image_size": list(size),
        "classes": list(data.classes),
        "train_sha256": data.train.sha256,
        "validation_sha256": data.validation.sha256,
        **{name: getattr(schedule, name) for name in ("batch_size", "head_epochs", "epochs", "learning_rate", "seed")},
    }
    assert chosen.dimension is not None
    trainable = load_trainable(module, chosen)
    trainer = Trainer(trainable, size, chosen.dimension, len(data.classes))
    state = finetune_state.restore(files.checkpoint, settings, trainer)
    _Run(schedule, data, trainer, state, files.checkpoint, stream).run()
    assert state.best is not None
    best = state.best
    trainer.set_weights(state.best_weights)

    def describe(digest: str) -> None:
        metrics = _metrics(config, digest, data, state, best)
        filesystem.write_atomically(str(files.metrics), json.dumps(metrics, indent=2).encode() + b"\n")
        filesystem.write_atomically(str(files.curve), curve.draw(state.history, best))

    digest = publish(files.output, trainable.write, describe)
    shutil.rmtree(files.work, ignore_errors=True)
    return FinetunedModule(
        path=files.output,
        sha256=digest,
        best=state.history[best],
        epochs=len(state.history),
        validation_images=len(data.validation),
        metrics=files.metrics,
        curve=files.curve,
    )


class _Files:
    """Where things are, beside the output."""

    def __init__(self, output: Path) -> None:
        name = next((output.name.removesuffix(end) for end in ARCHIVE_SUFFIXES if output.name.endswith(end)), None)
        stem = name or output.name
        self.output = output
        self.work = output.with_name(f"{stem}.finetune")
        self.checkpoint = self.work / "checkpoint.npz"
        self.metrics = output.with_name(f"{stem}.metrics.json")
        self.curve = output.with_name(f"{stem}.learning_curve.png")


@dataclass(frozen=True)
class _Schedule:
    """When to do what.

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
    def of(cls, config: FinetuneConfig, size: tuple[int, int], steps: int) -> _Schedule:
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
        return self.head_epochs + self.epochs

    def phase(self, epoch: int) -> Phase:
        return "head" if epoch < self.head_epochs else "network"

    def place(self, epoch: int, step: int) -> tuple[int, float]:
        """Returns the number of a step within its phase, and its learning rate."""
        if self.phase(epoch) == "head":
            return epoch * self.steps + step, HEAD_LEARNING_RATE
        number = (epoch - self.head_epochs) * self.steps + step
        return number, learning_rate(self.learning_rate, number, self.epochs * self.steps)


@dataclass
class _Run:
    """All epochs of a run, from where its state says."""

    schedule: _Schedule
    data: TrainingData
    trainer: Trainer
    state: State
    checkpoint: Path
    stream: TextIO
    _saved: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        schedule, state = self.schedule, self.state
        first = len(state.history)
        done = first * schedule.steps + state.step
        bar = ProgressBar(self.stream, schedule.total_epochs * schedule.steps, done)
        if done:
            bar.line(f"going on with epoch {min(first + 1, schedule.total_epochs)} of {schedule.total_epochs}")
        try:
            for epoch in range(first, schedule.total_epochs):
                self._run_epoch(epoch, bar)
        finally:
            bar.clear()

    def _run_epoch(self, epoch: int, bar: ProgressBar) -> None:
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
            bar.advance(f"epoch {epoch + 1} of {schedule.total_epochs}, loss {score.loss:.3f}, {score.accuracy:.1%}")
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
        bar.line(record.in_words(schedule.total_epochs))

    def _sample(self, epoch: int) -> Iterator[Batch]:
        """Yields a few full batches of training images as they are, others in each epoch."""
        schedule, train = self.schedule, self.data.train
        size = min(schedule.batch_size, len(train))
        count = max(1, min(_AVERAGED_IMAGES, len(train)) // size) * size
        rows = np.random.default_rng((schedule.seed, epoch)).permutation(len(train))[:count]
        return plain_batches(train, size, schedule.size, rows)

    def _save(self) -> None:
        try:
            finetune_state.save(self.checkpoint, self.state, self.trainer)
        except OSError as error:
            raise OutputError(f"{self.checkpoint} cannot be written: {error.strerror}") from error
        self._saved = time.monotonic()


def _metrics(config: FinetuneConfig, digest: str, data: TrainingData, state: State, best: int) -> Mapping[str, Any]:
    """Returns what `NAME.metrics.json` holds."""
    epoch = state.history[best]
    train, validation = (Counter(images.labels.tolist()) for images in (data.train, data.validation))
    return {
        "output_sha256": digest,
        "best_epoch": epoch.epoch,
        "validation_accuracy": epoch.validation_accuracy,
        "validation_loss": epoch.validation_loss,
        "classes": [
            {"label": label, "train_images": train[index], "validation_images": validation[index]}
            for index, label in enumerate(data.classes)
        ],
        "left_out": dict(data.left_out),
        "settings": {**dataclasses.asdict(config), **state.settings},
        "epochs": [dataclasses.asdict(epoch) for epoch in state.history],
    }
