"""Labelled images for fine-tuning: read from TFRecords, split, held on disk, cropped and flipped."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cores import usable_cores
from pipeline.core.errors import ImageError, InputError
from pipeline.core.failures import Failure
from pipeline.core.records import Feature, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.images.decoder import ImageDecoder
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.find import find_inputs
from pipeline.inputs.probe import check_records
from pipeline.inputs.tasks import make_tasks, read_tasks

Label = int | str

CROP_MARGIN = 1.25
"""Training images are held at this many times the size that the module takes, so that crops stay sharp."""

_log = logging.getLogger(__name__)

_DECODED_AT_ONCE = 64
_MIN_CROP_AREA = 0.5
_MAX_CROP_ASPECT = 4 / 3
_MESSAGES_SHOWN = 3
_PREFETCHED_BATCHES = 2


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Decoded images and their classes.

    Attributes:
      pixels: uint8 [N, height, width, 3], RGB; on disk, of which the system keeps in memory what fits.
      labels: int32 [N], indices of classes.
      sha256: digest of both.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a module is fine-tuned on.

    Attributes:
      classes: the labels, in the order of their indices: numbers, or names.
      train: images of `CROP_MARGIN` times the module's size.
      validation: images of the module's size.
      left_out: how many records could not be used, by reason: those of `pipeline.core.failures.FailureReason`,
        `missing_label`, and `unknown_label` for a class that only the validation set has.
    """

    classes: tuple[Label, ...]
    train: LabelledImages
    validation: LabelledImages
    left_out: Mapping[str, int]


def read_data(
    train: Sequence[str],
    validation: Sequence[str],
    *,
    image_feature: str,
    label_feature: str,
    image_size: tuple[int, int],
    validation_fraction: float,
    directory: Path,
) -> TrainingData:
    """Reads and decodes all images; records that cannot be used are counted and told of.

    Args:
      train: files, directories or globs of TFRecords with `tf.train.Example`s.
      validation: likewise; empty to take `validation_fraction` of each class from `train`, evenly spread.
      image_feature: the feature that holds the encoded image.
      label_feature: the feature that holds the label: one int64 or bytes value.
      image_size: height and width that the module takes.
      validation_fraction: between 0 and 1.
      directory: where to hold the pixels; the files there have no names and go when the process ends.

    Raises:
      InputError: nothing matched, or what was read is not enough to train on.
    """
    reader = _Reader(image_feature, label_feature)
    large = _decoder(math.ceil(image_size[0] * CROP_MARGIN), math.ceil(image_size[1] * CROP_MARGIN))
    exact = _decoder(*image_size)
    with (
        ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool,
        TemporaryFile(dir=directory) as train_file,
        TemporaryFile(dir=directory) as validation_file,
    ):
        train_set, validation_set = _Collector(large, train_file), _Collector(exact, validation_file)
        seen: Counter[Label] = Counter()

        def choose(record: _Labelled) -> _Collector:
            if validation:
                return train_set
            # Of each class, every so many-th record: the same ones in each run.
            number = seen[record.label] = seen[record.label] + 1
            taken = math.floor(number * validation_fraction) > math.floor((number - 1) * validation_fraction)
            return validation_set if taken else train_set

        reader.decode(reader.read(train), choose, pool)
        if validation:
            reader.decode(reader.read(validation), lambda _: validation_set, pool)
        reader.report()
        # The pixels stay mapped into memory when their files are closed.
        return _assemble(train_set, validation_set, reader.left_out)


def _assemble(train: _Collector, validation: _Collector, left_out: Counter[str]) -> TrainingData:
    counts = Counter(train.labels)
    kinds = {type(label) for label in [*train.labels, *validation.labels]}
    if len(kinds) > 1:
        raise InputError("some labels are numbers and some are text; expected one kind; check --label_feature")
    if len(counts) < 2:
        found = f"one, {next(iter(counts))!r}" if counts else "none"
        raise InputError(
            f"{len(train.labels)} images could be read for training, of this many classes: {found}; expected two "
            "classes or more; check --train and --label_feature"
        )
    classes = tuple(sorted(counts))
    indices = {label: index for index, label in enumerate(classes)}
    known = [label in indices for label in validation.labels]
    if unknown := len(known) - sum(known):
        left_out["unknown_label"] = unknown
        _log.warning("left out %d images for validation whose class has no image for training", unknown)
    if not any(known):
        raise InputError(
            f"no image is left for validation beside {len(train.labels)} for training; give more records, a larger "
            "--validation_fraction, or --validation"
        )
    held_out = validation.finish(indices)
    if not all(known):
        held_out = LabelledImages(held_out.pixels[known], held_out.labels[known], held_out.sha256)
    return TrainingData(classes, train.finish(indices), held_out, dict(sorted(left_out.items())))


@dataclass(frozen=True)
class _Labelled:
    record: ImageRecord
    label: Label


@dataclass
class _Reader:
    """Reads records and counts those that cannot be used."""

    image_feature: str
    label_feature: str
    left_out: Counter[str] = field(default_factory=Counter)

    def read(self, patterns: Sequence[str]) -> Iterator[_Labelled]:
        """Yields the records of TFRecord files that have an image and a label.

        Raises:
          InputError: nothing matched, or no file is a TFRecord.
        """
        config = InputConfig(
            tuple(patterns), "tfrecord", image_feature=self.image_feature, passthrough=(self.label_feature,)
        )
        files = find_inputs(config)
        check_records(files)
        for record in read_tasks(make_tasks(files.by_path()), ReadSettings(config)):
            if isinstance(record, Failure):
                self._leave_out(record.source, record.reason, record.message)
            elif (label := self._label(record)) is not None:
                yield _Labelled(record, label)

    def _label(self, record: ImageRecord) -> Label | None:
        name = self.label_feature
        feature = record.features.get(name)
        if feature is None:
            self._leave_out(record.source, "missing_label", f"the record has no feature '{name}'")
        elif not isinstance(feature, Feature) or feature.kind == "float" or len(feature.values) != 1:
            found = f"{len(feature.values)} {feature.kind} values" if isinstance(feature, Feature) else "a column"
            self._leave_out(record.source, "missing_label", f"feature '{name}' holds {found}, not one int64 or bytes")
        else:
            value = feature.values[0]
            return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else int(value)
        return None

    def _leave_out(self, source: str, reason: str, message: str) -> None:
        if self.left_out.total() < _MESSAGES_SHOWN:
            _log.warning("left out %s: %s", source, message)
        self.left_out[reason] += 1

    def decode(
        self, records: Iterable[_Labelled], choose: Callable[[_Labelled], _Collector], pool: ThreadPoolExecutor
    ) -> None:
        """Decodes images on several threads and adds each to the set that `choose` names, in order."""
        records = iter(records)
        while chunk := list(islice(records, _DECODED_AT_ONCE)):
            targets = [choose(item) for item in chunk]
            decoded = pool.map(lambda pair: pair[1].decode(pair[0].record.image), zip(chunk, targets, strict=True))
            for item, target, pixels in zip(chunk, targets, decoded, strict=True):
                if isinstance(pixels, ImageError):
                    self._leave_out(item.record.source, pixels.reason, str(pixels))
                else:
                    target.add(pixels, item.label)

    def report(self) -> None:
        """Tells how many records were left out."""
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
            _log.warning("left out %d records: %s", self.left_out.total(), reasons)


class _Collector:
    """Decoded images on their way to disk."""

    def __init__(self, decoder: ImageDecoder, file: BinaryIO) -> None:
        self._decoder = decoder
        self._file = file
        self._digest = hashlib.sha256()
        self.labels: list[Label] = []

    def decode(self, image: bytes) -> NDArray[np.uint8] | ImageError:
        """Returns an image's pixels, or why it has none."""
        try:
            pixels = self._decoder(image)
        except ImageError as error:
            return error
        levels: NDArray[np.uint8] = np.rint(pixels * np.float32(255)).astype(np.uint8)
        return levels

    def add(self, pixels: NDArray[np.uint8], label: Label) -> None:
        """Adds one image."""
        encoded = pixels.tobytes()
        self._file.write(encoded)
        self._digest.update(encoded)
        self.labels.append(label)

    def finish(self, indices: Mapping[Label, int]) -> LabelledImages:
        """Returns all images; labels that have no index get -1."""
        self._file.flush()
        shape = (len(self.labels), self._decoder.height, self._decoder.width, 3)
        pixels = np.memmap(self._file, np.uint8, "r", shape=shape)
        labels = np.array([indices.get(label, -1) for label in self.labels], np.int32)
        self._digest.update(labels.tobytes())
        return LabelledImages(pixels, labels, self._digest.hexdigest())


def _decoder(height: int, width: int) -> ImageDecoder:
    return ImageDecoder(height=height, width=width)
