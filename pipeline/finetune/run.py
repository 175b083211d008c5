"""Fine-tunes a module on labelled images: a classifier on its vectors first, then everything."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.core.errors import ModuleError, OutputError
from pipeline.core.settings import PreprocessConfig
from pipeline.finetune import curve
from pipeline.finetune.batches import steps_per_epoch
from pipeline.finetune.config import FinetuneConfig
from pipeline.finetune.data import TrainingData, read_data
from pipeline.finetune.epochs import EpochRunner, Schedule
from pipeline.finetune.state import Epoch, State, restore
from pipeline.finetune.trainable import load_trainable
from pipeline.finetune.training import Trainer
from pipeline.hub.preprocess import choose_transform, size_of_transform
from pipeline.hub.resolve import resolve_module
from pipeline.images.transform import ImageTransform
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.publish import ARCHIVE_SUFFIXES, check_output, publish
from pipeline.savedmodel.safety import check_operations
from pipeline.savedmodel.signatures import ImageSignature, choose_signature
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)

_CLASSIFIER = "image_classification"


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
    preprocess = PreprocessConfig(config.preprocess)
    chosen = choose_signature(
        module,
        signature=config.signature,
        output_key=config.output_key,
        image_size=config.image_size,
        default_size=size_of_transform(module, preprocess),
    )
    if chosen.is_adapted:
        raise ModuleError(
            f"module {config.module} cannot be fine-tuned: signature '{chosen.signature}' takes "
            f"{chosen.dtype} {chosen.layout}, {chosen.fixed_batch_size or 'any number of'} images; expected any number "
            "of images float32 [height,width,3]; take another module"
        )
    _check_transform(module, chosen, preprocess)
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


def _check_transform(module: Module, chosen: ImageSignature, preprocess: PreprocessConfig) -> None:
    """Checks that a module takes the images that it would be trained with.

    Raises:
      UsageError: its images are scaled, cut or ordered in another way, or how is unknown.
    """
    named = choose_transform(module, chosen, preprocess)
    if named is not None and named.transform != ImageTransform():
        raise ModuleError(
            f"module {module.handle} cannot be fine-tuned: its preprocessing is {named}; expected "
            f"{ImageTransform().describe()}; take another module"
        )


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
    schedule = Schedule.of(config, size, steps_per_epoch(data.train, config.batch_size))
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
    state = restore(files.checkpoint, settings, trainer)
    EpochRunner(schedule, data, trainer, state, files.checkpoint, stream).run()
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
