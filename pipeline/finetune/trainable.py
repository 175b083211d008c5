"""Modules whose weights can be trained, in either format: their features, statistics and losses, and a new copy."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow, import_tensorflow_hub
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.savedmodel.messages import parse_saved_model
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.signatures import ImageSignature

Forward = Callable[[NDArray[np.float32]], Any]

_log = logging.getLogger(__name__)


class TrainableModule(Protocol):
    """A module's network with variables that can be changed.

    Attributes:
      variables: all `tf.Variable`s of the network.
      trainable_variables: those that gradients move.
    """

    variables: Sequence[Any]
    trainable_variables: Sequence[Any]

    def features(self, images: Any, *, training: bool) -> Any:
        """Returns the vectors float32 [N, D] of images float32 [N, height, width, 3] in [0, 1].

        In training, batch normalisation uses the statistics of the batch and moves their averages.
        """

    def regularization_loss(self) -> Any:
        """Returns the sum of the module's own regularisation losses, a float32 scalar."""

    def synchronize(self) -> None:
        """Lets `features` outside of training see what training did to the variables."""

    def write(self, directory: Path) -> None:
        """Writes a module of the same format and graphs with the variables' values of now."""


def load_trainable(module: Module, chosen: ImageSignature) -> TrainableModule:
    """Loads a module for training.

    Args:
      module: the module.
      chosen: the function whose vectors are trained.

    Raises:
      ModuleError: the module cannot be loaded, or not be trained.
    """
    import_tensorflow()
    import tensorflow as tf

    kind = _Tf1Module if module.format == "tf1_hub" else _Tf2Module
    try:
        trainable: TrainableModule = kind(module, chosen)
    except (tf.errors.OpError, ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise ModuleError(
            f"{module.handle} cannot be loaded for training: {type(error).__name__}: {text}; is the module complete?"
        ) from error
    if not trainable.trainable_variables:
        raise ModuleError(f"{module.handle} cannot be fine-tuned: it has no trainable variables; take another module")
    return trainable


class _Tf1Module:
    """A module in the TF1 Hub format: one graph version for training and another for everything else."""

    def __init__(self, module: Module, chosen: ImageSignature) -> None:
        hub = import_tensorflow_hub()
        self._path, name = module.path, module.handle
        saved_model = parse_saved_model((Path(module.path) / SAVED_MODEL).read_bytes())
        tags = {frozenset(graph.meta_info_def.tags): graph for graph in saved_model.meta_graphs}
        graph = tags.get(hub_format.TRAIN)
        if graph is None or chosen.signature not in graph.signature_def:
            raise ModuleError(
                f"{name} cannot be fine-tuned: it has no graph with the tag 'train' and signature "
                f"'{chosen.signature}'; take another module"
            )
        signature = graph.signature_def[chosen.signature]
        train = self._train = hub.load(module.path, tags=sorted(hub_format.TRAIN))
        self._inference = hub.load(module.path, tags=sorted(hub_format.INFERENCE))
        self.variables: Sequence[Any] = list(train.variables)
        self.trainable_variables: Sequence[Any] = [v for v in train.variables if v.trainable]
        updates = train.graph.get_collection("update_ops")
        if not updates:
            _log.warning("module %s moves no averages of batch statistics in training", name)
        images = signature.inputs[chosen.input_key].name
        vectors = train.graph.get_tensor_by_name(signature.outputs[chosen.output_key].name)
        self._train_step = train.prune(images, {"vectors": vectors, "updates": updates})
        self._infer = self._inference.signatures[chosen.signature]
        self._input_key, self._output_key = chosen.input_key, chosen.output_key
        losses = train.graph.get_collection("regularization_losses")
        self._losses = train.prune([], losses) if losses else None
        by_name = {variable.name: variable for variable in self.variables}
        self._copies = [(v, by_name[v.name]) for v in self._inference.variables if v.name in by_name]

    def features(self, images: Any, *, training: bool) -> Any:
        if training:
            return self._train_step(images)["vectors"]
        return self._infer(**{self._input_key: images})[self._output_key]

    def regularization_loss(self) -> Any:
        import tensorflow as tf

        return tf.add_n(self._losses()) if self._losses else tf.constant(0.0)

    def synchronize(self) -> None:
        for copy, variable in self._copies:
            copy.assign(variable)

    def write(self, directory: Path) -> None:
        import tensorflow as tf

        reader = tf.train.load_checkpoint(os.path.join(self._path, "variables", "variables"))
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        values.update({v.name.removesuffix(":0"): v.numpy() for v in self.variables})
        _copy_graphs(self._path, directory)
        hub_format.write_variables(directory, values)


class _Tf2Module:
    """A TF2 SavedModel with the interface of reusable SavedModels (tensorflow.org/hub/reusable_saved_models)."""

    def __init__(self, module: Module, chosen: ImageSignature) -> None:
        hub = import_tensorflow_hub()
        import tensorflow as tf

        self._path, name = module.path, module.handle
        self._module = hub.load(module.path, tags=["serve"])
        if not callable(self._module) or not hasattr(self._module, "trainable_variables"):
            raise ModuleError(
                f"{name} cannot be fine-tuned: it has no `__call__` and `trainable_variables`; expected a reusable "
                "SavedModel, such as `python -m pipeline.hub export --format=tf2` makes"
            )
        self._layer = hub.KerasLayer(self._module, trainable=True)
        self.trainable_variables: Sequence[Any] = self._layer.trainable_variables
        self.variables: Sequence[Any] = self._layer.variables
        spec = tf.TensorSpec([None, chosen.height, chosen.width, 3], tf.float32)
        for training in (True, False):
            forward = tf.function(functools.partial(self.features, training=training), autograph=False)
            found = forward.get_concrete_function(spec).structured_outputs.shape
            if found.rank != 2 or found[-1] != chosen.dimension:
                raise ModuleError(
                    f"{name} cannot be fine-tuned: its `__call__` gives {found}, but signature '{chosen.signature}' "
                    f"vectors of {chosen.dimension} values; expected the same; if it has a classifier, export it "
                    "without"
                )

    def features(self, images: Any, *, training: bool) -> Any:
        result = self._layer(images, training=training)
        return result["default"] if isinstance(result, dict) else result

    def regularization_loss(self) -> Any:
        import tensorflow as tf

        return tf.add_n(self._layer.losses) if self._layer.losses else tf.constant(0.0)

    def synchronize(self) -> None:
        """Does nothing: there is one set of variables."""

    def write(self, directory: Path) -> None:
        import tensorflow as tf

        _copy_graphs(self._path, directory)
        # A SavedModel's variables are a checkpoint of its root object.
        tf.train.Checkpoint(root=self._module).write(os.fspath(directory / "variables" / "variables"))


def _copy_graphs(path: str, directory: Path) -> None:
    """Copies all files of a module but its variables."""
    shutil.copytree(path, directory, ignore=lambda folder, _: ["variables"] if folder == path else [])
    (directory / "variables").mkdir()


@dataclass(frozen=True)
class _Average:
    """A variable that each training step moves towards a statistic of the batch.

    Attributes:
      variable: the `tf.Variable`.
      decay: the share of its old value that a step leaves.
    """

    variable: Any
    decay: float


class MovingAverages:
    """The moving averages of a module's batch statistics.

    They move slowly, 0.3 % a step in MobileNetV2: after a short training they still tell of the weights from before
    it, and the network outside of training would make little sense. What an average would come to if the weights
    stayed as they are can be found from a few steps, as a step is known to be `m <- decay m + (1 - decay) statistic`:
    n steps make `decay^n m + (1 - decay^n)` times the statistics' weighted mean. `settle` puts that mean in place.
    """

    def __init__(self, module: TrainableModule, forward: Forward, images: NDArray[np.float32]) -> None:
        """Finds the averages and their decay, which shows in what a step leaves of a change.

        Args:
          module: the module; keeps its values.
          forward: computes the module's vectors in training from float32 [N, height, width, 3].
          images: any batch.
        """
        self._forward = forward
        trainable = {id(v) for v in module.trainable_variables}
        others = [v for v in module.variables if id(v) not in trainable and v.dtype.is_floating]
        before = [v.numpy() for v in others]
        after = self._step_from(others, before, images)
        steps = [1 + np.abs(value) for value in before]
        changed = self._step_from(others, [value + step for value, step in zip(before, steps, strict=True)], images)
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
        self._averages = []
        for variable, low, high, step in zip(others, after, changed, steps, strict=True):
            decays = (high.astype(np.float64) - low) / step
            decay = float(decays.mean())
            if 0 < decay < 1 - 1e-6 and np.ptp(decays) < 1e-3:
                self._averages.append(_Average(variable, decay))

    def _step_from(
        self, variables: Sequence[Any], values: Sequence[NDArray[Any]], images: NDArray[np.float32]
    ) -> list[NDArray[Any]]:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self._forward(images)
        return [variable.numpy() for variable in variables]

    def __len__(self) -> int:
        return len(self._averages)

    def settle(self, batches: Iterable[NDArray[np.float32]]) -> None:
        """Sets each average to the mean over batches, float32 [N, height, width, 3], with the weights as they are."""
        before = [average.variable.numpy().astype(np.float64) for average in self._averages]
        count = 0
        for images in batches:
            self._forward(images)
            count += 1
        for average, old in zip(self._averages, before, strict=True):
            kept = average.decay**count
            mean = (average.variable.numpy() - kept * old) / (1 - kept)
            # Of a variance near 0, float32 may leave one just below.
            rounding = count * 2.0**-23 * np.abs(old) / (1 - kept)
            average.variable.assign(np.where(np.abs(mean) < rounding, 0, mean).astype(np.float32))
