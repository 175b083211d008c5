"""The contenders of `benchmarks.run`: a peer, its options, and the form in which it reads the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

Form = Literal["tfrecord", "files", "parquet", "tar"]
"""How the images are stored: TFRecord files, one file for each image, Parquet files with a column of encoded images, or
WebDataset tars.

A peer reads TFRecords if its library has a reader for them, and otherwise the form that its documentation uses.
"""


class NotInstalled(Exception):
    """The library of a peer is not installed."""


@dataclass(frozen=True)
class Contender:
    """A peer with options.

    Attributes:
      label: its name in the results.
      peer: module in `benchmarks.peers`.
      options: for the peer.
      reference: label of the limit that it is compared with.
      form: the form in which it reads the images.
      package: the library that is measured, as package registries name it.
      extra: the extra of this project that installs the library; empty if every installation has it.
    """

    label: str
    peer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "limit"
    form: Form = "tfrecord"
    package: str = "openvino"
    extra: str = ""

    def version(self) -> str:
        """Returns the version of the library.

        Raises:
          NotInstalled: the library is not installed; the message says how to install it.
        """
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError as error:
            remedy = f"pip install -e '.[{self.extra}]'" if self.extra else f"pip install {self.package}"
            raise NotInstalled(f"{self.package} is not installed: {remedy}") from error


_FAST = {"decode": "fast", "precision": "bfloat16"}
_OPENVINO = {"engine": "openvino"}
RUN_INFERENCE = "Beam RunInference"
PIPELINE = "pipeline"
CONTENDERS = (
    Contender("limit", "limit"),
    Contender(PIPELINE, "pipeline"),
    Contender("limit, fast", "limit", {"decode": "fast", "precision": "bf16"}, "limit, fast"),
    Contender("pipeline, fast", "pipeline", _FAST, "limit, fast"),
    Contender("pipeline, image files", "pipeline", form="files"),
    Contender(
        "pipeline, 2 processes", "pipeline", {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    ),
    Contender("pipeline, tensorflow", "pipeline", {"engine": "tensorflow"}, package="tensorflow"),
    Contender("limit, batch 8", "limit", {"inference_batch": 8}),
    Contender("tf.data, frozen", "tfdata", {"frozen": True}, package="tensorflow"),
    Contender("tf.data", "tfdata", package="tensorflow"),
    Contender(RUN_INFERENCE, "beam_runinference", package="apache-beam"),
    Contender("tfx-bsl RunInference", "tfx_bsl_runinference", package="tfx-bsl"),
    Contender("Ray Data", "ray_data", package="ray", extra="benchmark-ray"),
    Contender("Ray Data, OpenVINO", "ray_data", _OPENVINO, package="ray", extra="benchmark-ray"),
    Contender("Daft", "daft_frame", form="parquet", package="daft", extra="benchmark-daft"),
    Contender("Daft, OpenVINO", "daft_frame", _OPENVINO, form="parquet", package="daft", extra="benchmark-daft"),
    Contender("Spark", "spark", form="parquet", package="pyspark", extra="benchmark-spark"),
    Contender("Spark, OpenVINO", "spark", _OPENVINO, form="parquet", package="pyspark", extra="benchmark-spark"),
    Contender("datasets", "hugging_face", form="parquet", package="datasets", extra="benchmark-datasets"),
    Contender(
        "datasets, OpenVINO",
        "hugging_face",
        _OPENVINO,
        form="parquet",
        package="datasets",
        extra="benchmark-datasets",
    ),
)
