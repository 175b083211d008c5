"""What a fine-tuning run has done so far, in one file that is replaced as a whole."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import OutputError
from pipeline.finetune.training import Phase, Tally, Trainer
from pipeline.storage import filesystem

Weights = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images.

    Attributes:
      epoch: its number, from 1.
      phase: `head` while only the classifier was trained, then `network`.
      learning_rate: that of its last step.
      train_loss: mean cross-entropy of the training images, augmented, each before the step that learnt from it.
      train_accuracy: share of them whose class was named.
      validation_loss: mean cross-entropy of the validation images, after the epoch.
      validation_accuracy: share of them whose class was named.
      seconds: how long it took.
    """

    epoch: int
    phase: Phase
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float

    def in_words(self, total: int) -> str:
        """Returns a line about the epoch, of which there are `total`."""
        part = "classifier" if self.phase == "head" else "whole network"
        return (
            f"epoch {self.epoch} of {total}, {part}: "
            f"training loss {self.train_loss:.3f}, accuracy {self.train_accuracy:.1%}; "
            f"validation loss {self.validation_loss:.3f}, accuracy {self.validation_accuracy:.1%}; {self.seconds:.1f} s"
        )


@dataclass
class State:
    """How far a run is.

    Attributes:
      settings: what the run was asked to do; it can only go on under the same.
      history: the epochs that are done.
      step: steps that are done of the next epoch.
      tally: scores of those steps.
      seconds: time that they took.
      best: index in `history` of the best epoch so far of the whole network.
      best_weights: the weights then.
    """

    settings: Mapping[str, Any]
    history: list[Epoch] = field(default_factory=list)
    step: int = 0
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    best: int | None = None
    best_weights: Weights = field(default_factory=list)

    def finish_epoch(self, epoch: Epoch, weights: Weights) -> None:
        """Takes in an epoch that is done, and the weights after it."""
        self.history.append(epoch)
        self.step, self.tally, self.seconds = 0, Tally(), 0.0
        if epoch.phase == "network" and (self.best is None or _rank(epoch) > _rank(self.history[self.best])):
            self.best, self.best_weights = len(self.history) - 1, weights


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def save(path: Path, state: State, trainer: Trainer) -> None:
    """Writes a checkpoint; it replaces the one before only when it is whole."""
    progress = {
        "settings": state.settings,
        "history": [dataclasses.asdict(epoch) for epoch in state.history],
        "step": state.step,
        "tally": dataclasses.asdict(state.tally),
        "seconds": state.seconds,
        "best": state.best,
    }
    groups = {"weights": trainer.get_weights(), "slots": trainer.get_slots(), "best": state.best_weights}
    arrays = {f"{name}/{index}": value for name, values in groups.items() for index, value in enumerate(values)}
    file = io.BytesIO()
    np.savez(file, progress=np.frombuffer(json.dumps(progress).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    filesystem.write_atomically(str(path), file.getvalue())


def restore(path: Path, settings: Mapping[str, Any], trainer: Trainer) -> State:
    """Reads a checkpoint into a trainer; where there is none, returns the state of a new run.

    Args:
      path: the checkpoint.
      settings: what this run is asked to do; plain values that JSON keeps.
      trainer: gets the weights.

    Raises:
      OutputError: the checkpoint is damaged, or of a run that was asked to do something else.
    """
    if not path.exists():
        return State(settings)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            progress = json.loads(bytes(file["progress"]))
            _check_settings(path, progress["settings"], settings)
            trainer.set_weights(_group(file, "weights"))
            trainer.set_slots(_group(file, "slots"))
            best_weights = _group(file, "best")
        return State(
            settings,
            [Epoch(**epoch) for epoch in progress["history"]],
            progress["step"],
            Tally(**progress["tally"]),
            progress["seconds"],
            progress["best"],
            best_weights,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); remove its directory to start from nothing"
        ) from error


def _group(file: Mapping[str, NDArray[Any]], name: str) -> Weights:
    count = sum(key.startswith(f"{name}/") for key in file)
    return [file[f"{name}/{index}"] for index in range(count)]


def _check_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differences = [f"{name} {old.get(name)}, now {value}" for name, value in new.items() if old.get(name) != value]
    if differences:
        raise OutputError(
            f"{path.parent} is of a run with other settings ({'; '.join(differences)}): start that command again to go "
            "on with it, or remove the directory to start from nothing"
        )
