"""Embeds a share of a data set's rows again, in this process, and compares the vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.config import RunConfig, option_name
from pipeline.core.errors import OutputError
from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ImageRecord
from pipeline.core.settings import PreprocessConfig
from pipeline.dataset.metadata import live, read_manifests, require_spec
from pipeline.dataset.recompute import Recomputation, Sample, StoredSample
from pipeline.embedding.dataset_spec import check_same_space
from pipeline.embedding.embedder import Embedder
from pipeline.engines.registry import ENGINES
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.input_table import InputTable
from pipeline.inputs.tasks import find_kind, make_tasks, read_tasks
from pipeline.inputs.tfrecord_files import DEFAULT_IMAGE_FEATURE
from pipeline.job.checks import check_run
from pipeline.storage import filesystem


def recompute(output: str, args: Sequence[str], sample: Sample, tolerance: float) -> Recomputation:
    """Embeds a sample of the rows of a data set again, as the data set's spec says, and compares the vectors.

    Image files are read only if they are in the sample; files of records are read as a whole.

    Args:
      output: directory of the data set.
      args: arguments of `pipeline.run` that name the inputs and, if it has moved, the module. Arguments that the spec
        determines can be left out.
      sample: of the keys.
      tolerance: the largest relative L2 difference of two vectors that count as equal.

    Raises:
      UsageError: the request cannot be fulfilled.
      OutputError: there is no data set, or its vectors are of another kind than those of this request.
    """
    output = filesystem.normalize(output)
    spec = require_spec(output)
    is_configured = any(option_name(arg) == "config" for arg in args)
    config = RunConfig.from_args([*([] if is_configured else _known_args(output)), *args, f"--output={output}"])
    checked = check_run(config)
    stored = StoredSample(output, sample)
    embedder_spec = checked.embedder
    if config.preprocess == PreprocessConfig():
        decoder = dataclasses.replace(embedder_spec.decoder, transform=spec.preprocessing.transform)
        embedder_spec = dataclasses.replace(embedder_spec, decoder=decoder)
    with Embedder.choose(embedder_spec) as embedder:
        check_same_space(output, spec, embedder.uncertified_spec)
        settings = ReadSettings(config.input, config.decode.max_image_bytes)
        for batch in embedder.stream(_records(checked.files, settings, stored)):
            stored.add_failures(batch.failures)
            for rows in batch.rows:
                stored.add(rows.column("key").to_pylist(), _vectors(rows))
    return stored.compare(tolerance)


def _vectors(rows: pa.RecordBatch) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
    return vectors


def _known_args(output: str) -> list[str]:
    """Returns the arguments of `pipeline.run` that a data set's spec and manifests determine.

    Raises:
      OutputError: a custom engine computed the vectors.
    """
    spec, manifests = require_spec(output), live(read_manifests(output))
    if spec.engine not in ENGINES.names:
        raise OutputError(
            f"{output} has the vectors of the custom engine {spec.engine}; expected one of {', '.join(ENGINES.names)}: "
            "only these can be computed again"
        )
    values = {
        "module": spec.module,
        "signature": spec.signature,
        "output_key": spec.output_key,
        "pooling": spec.pooling,
        "normalize": spec.normalization,
        "engine": spec.engine,
        "precision": spec.precision,
        "decode": spec.preprocessing.decode if spec.preprocessing.decode == "fast" else None,
        "icc": spec.preprocessing.icc if spec.preprocessing.icc != "ignore" else None,
        # A module that takes encoded images has no size.
        "image_size": f"{spec.preprocessing.height},{spec.preprocessing.width}" if spec.preprocessing.height else None,
    }
    for name in ("key_feature", "image_feature"):
        found = {getattr(manifest, name) for manifest in manifests}
        values[name] = found.pop() if len(found) == 1 else None
    if values["image_feature"] == DEFAULT_IMAGE_FEATURE:  # of TFRecords; other inputs have no such feature
        values["image_feature"] = None
    args = [f"--{name}={value}" for name, value in values.items() if value]
    return [*args, "--exif_orientation"] if spec.preprocessing.exif_orientation else args


def _records(files: InputTable, settings: ReadSettings, stored: StoredSample) -> Iterator[ImageRecord]:
    """Yields the records of the sample; notes those that cannot be read."""
    chosen = [file for file in files if find_kind(file.kind).has_records or key_to_bytes(file.name) in stored]
    for item in read_tasks(make_tasks(chosen), settings):
        if isinstance(item, Failure):
            stored.add_failures([item])
        elif item.key in stored:
            yield item
